// One metric against another: a point for every row, rows of one family joined.
const tradeoff = find("#tradeoff");
if (tradeoff) {
  const svg = find("svg.plot", tradeoff);
  const choice = (name) => data.quantities.find((each) => each.key === find(`select[name=${name}]`, tradeoff).value);
  const error = (value) => value.error ?? 0;
  const better = (quantity) => (quantity.lower === null ? "" : quantity.lower ? "  (lower is better)" : "  (higher is better)");

  function place(taken, x, y, width, box) {  // where a name overlaps least
    const spots = [[9, 4, "start"], [-9, 4, "end"], [0, -11, "middle"], [0, 20, "middle"], [9, -10, "start"], [9, 18, "start"], [-9, -10, "end"], [-9, 18, "end"]];
    for (const far of [28, 44, 60, 76]) spots.push([9, -far, "start"], [-9, -far, "end"], [9, far + 8, "start"], [-9, far + 8, "end"]);
    let best = null;
    for (const [dx, dy, anchor] of spots) {
      const left = x + dx - (anchor === "end" ? width : anchor === "middle" ? width / 2 : 0);
      const spot = { left, right: left + width, top: y + dy - 11, bottom: y + dy + 3, x: x + dx, y: y + dy, anchor };
      const overlap = (other) => Math.max(0, Math.min(spot.right, other.right) - Math.max(spot.left, other.left))
        * Math.max(0, Math.min(spot.bottom, other.bottom) - Math.max(spot.top, other.top));
      const outside = Math.max(0, box.left - spot.left) + Math.max(0, spot.right - box.right) + Math.max(0, spot.bottom - box.bottom) + Math.max(0, box.top - spot.top);
      spot.isFar = Math.abs(dy) > 20;  // then a line leads to it
      spot.cost = taken.reduce((sum, other) => sum + overlap(other), 0) + 40 * outside + Math.max(0, Math.abs(dy) - 20);
      if (!best || spot.cost < best.cost) best = spot;
    }
    taken.push(best);
    return best;
  }

  function show() {
    const x = choice("x"), y = choice("y");
    const points = data.methods.map((method, i) => ({ ...method, x: x.values[i], y: y.values[i] }))
      .filter((point) => point.x && point.y);
    svg.replaceChildren();
    if (!points.length) return;
    const reach = (axis) => points.flatMap((p) => [p[axis].mean - error(p[axis]), p[axis].mean + error(p[axis])]);
    const at = frame(svg, { limits: limits(reach("x"), 0.12), label: x.title + better(x), log: false },
      { limits: limits(reach("y"), 0.1), label: y.title + better(y), log: false }, 400);
    const families = Object.groupBy(points, (p) => p.family);
    for (const group of Object.values(families)) {
      if (group.length < 2) continue;
      draw(svg, "path", { d: path(group.map((p) => [at.sx(p.x.mean), at.sy(p.y.mean)])), fill: "none", stroke: `var(${group[0].colour})`, "stroke-width": 1.3, opacity: 0.7 });
    }
    const taken = points.flatMap((p) => {  // marks and bars, which names keep off
      const px = at.sx(p.x.mean), py = at.sy(p.y.mean), dx = px - at.sx(p.x.mean - error(p.x)), dy = py - at.sy(p.y.mean + error(p.y));
      return [[dx + 3, 4], [4, dy + 3], [7, 7]].map(([w, h]) => ({ left: px - w, right: px + w, top: py - h, bottom: py + h }));
    });
    for (const p of points) {
      const px = at.sx(p.x.mean), py = at.sy(p.y.mean), colour = `var(${p.colour})`, line = { stroke: colour, "stroke-width": 1.2 };
      draw(svg, "line", { ...line, x1: at.sx(p.x.mean - error(p.x)), x2: at.sx(p.x.mean + error(p.x)), y1: py, y2: py });
      draw(svg, "line", { ...line, x1: px, x2: px, y1: at.sy(p.y.mean - error(p.y)), y2: at.sy(p.y.mean + error(p.y)) });
      const mark = p.learned ? draw(svg, "circle", { cx: px, cy: py, r: 5.5, fill: colour })
        : draw(svg, "rect", { x: px - 4.5, y: py - 4.5, width: 9, height: 9, fill: colour });
      const said = `${p.name}: ${x.title} ${short(p.x.mean)}, ${y.title} ${short(p.y.mean)}`;
      draw(mark, "title", {}, said);
    }
    for (const group of Object.values(families)) {
      const p = group.at(-1), whole = group.length > 1 ? p.family : p.name;
      const name = whole.length > 40 ? `${whole.slice(0, 39)}…` : whole;
      const px = at.sx(p.x.mean), py = at.sy(p.y.mean), spot = place(taken, px, py, 6.2 * name.length, at.box);
      if (spot.isFar) draw(svg, "line", { class: "axis", opacity: 0.6, x1: px, y1: py, x2: spot.x, y2: spot.y - 4 });
      draw(svg, "text", { class: "halo", x: spot.x, y: spot.y, "text-anchor": spot.anchor }, name);
    }
  }
  tradeoff.addEventListener("change", show);
  redrawn(show, svg);
}
