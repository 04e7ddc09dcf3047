// Axes of a chart in SVG: limits, round ticks, and the frame to draw in.
const MARGIN = { left: 62, right: 16, top: 12, bottom: 46 };

function limits(values, pad = 0.05) {
  const low = Math.min(...values), high = Math.max(...values);
  const spare = (high - low) * pad || Math.abs(high) * pad || 1;
  return [low - spare, high + spare];
}

function ticksOf([low, high], count = 6) {
  const rough = Math.abs(high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  const first = Math.ceil(Math.min(low, high) / step), last = Math.floor(Math.max(low, high) / step);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function logTicks([low, high]) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => 10 ** (first + i));
}

// x, y: {limits: [at the left or bottom, at the right or top], label, log}. The scales are functions.
function frame(svg, x, y, height = 340) {
  const width = paper || Math.max(300, svg.clientWidth || 860);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
  const scale = (axis, from, to) => {
    const turn = axis.log ? Math.log : (value) => value, [a, b] = axis.limits.map(turn);
    return (value) => from + ((turn(value) - a) / (b - a)) * (to - from);
  };
  const sx = scale(x, box.left, box.right), sy = scale(y, box.bottom, box.top);
  const marks = (axis, count) => (axis.log ? logTicks([...axis.limits].sort((a, b) => a - b)) : ticksOf(axis.limits, count));
  for (const tick of marks(y, 6)) {
    draw(svg, "line", { class: "gridline", x1: box.left, x2: box.right, y1: sy(tick), y2: sy(tick) });
    draw(svg, "text", { class: "quiet", x: box.left - 7, y: sy(tick) + 4, "text-anchor": "end" }, short(tick));
  }
  for (const tick of marks(x, Math.min(10, width / 80))) {
    draw(svg, "line", { class: "gridline", x1: sx(tick), x2: sx(tick), y1: box.top, y2: box.bottom });
    draw(svg, "text", { class: "quiet", x: sx(tick), y: box.bottom + 17, "text-anchor": "middle" }, short(tick));
  }
  draw(svg, "path", { class: "axis", d: `M${box.left},${box.top}V${box.bottom}H${box.right}` });
  const middle = (box.top + box.bottom) / 2;
  draw(svg, "text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, x.label);
  draw(svg, "text", { transform: `translate(15 ${middle}) rotate(-90)`, "text-anchor": "middle" }, y.label);
  return { sx, sy, box, width, height };
}

function path(points) {
  let line = "", drawn = false;
  for (const [x, y] of points) {
    if (x === null || y === null) { drawn = false; continue; }
    line += `${drawn ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`;
    drawn = true;
  }
  return line;
}

function key(list, entries) {
  list.replaceChildren(...entries.map(({ name, style }) => {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 26 10");
    svg.setAttribute("aria-hidden", "true");
    draw(svg, "line", { x1: 0, x2: 26, y1: 5, y2: 5, ...style });
    return make("li", {}, svg, name);
  }));
}

const drawings = [];
let paper = 0;  // the width of charts that are printed, 0 on the screen
function onPaper(width) { paper = width; for (const drawing of drawings) drawing(); }
addEventListener("beforeprint", () => onPaper(700));
addEventListener("afterprint", () => onPaper(0));

function redrawn(drawing, svg) {
  let width = 0;
  drawings.push(drawing);
  new ResizeObserver(() => {
    if (svg.clientWidth !== width) { width = svg.clientWidth; drawing(); }
  }).observe(svg);
  drawing();
}
