// Omega over t, sigma, step or logsnr, of all methods or one, by condition.
const weights = data.weights;
if (weights) {
  const chart = find("#weights"), svg = find("svg.plot", chart), list = find(".legend", chart);
  const chosen = {
    axis: () => find("input[name=axis]:checked", chart).value,
    method: () => find("select[name=method]", chart).value,
    condition: () => find("select[name=condition]", chart).value,
  };
  const LABELS = {
    t: "time t of the step's start   (noise → data)",
    sigma: "σ at the step's start   (noise → data)",
    step: "step of the sampler   (noise → data)",
    logsnr: "logsnr = 2 log(α / σ), nats   (noise → data)",
  };
  const average = (rows) => rows[0].map((_, k) => rows.reduce((sum, row) => sum + row[k], 0) / rows.length);
  const band = (rows) => {  // mean ± std over seeds
    const middle = average(rows);
    const spread = middle.map((m, k) => Math.sqrt(rows.reduce((s, r) => s + (r[k] - m) ** 2, 0) / Math.max(1, rows.length - 1)));
    return { low: middle.map((m, k) => m - spread[k]), high: middle.map((m, k) => m + spread[k]) };
  };
  const style = (method, width) => ({
    stroke: `var(${method.colour})`, fill: "none", "stroke-width": width,
    "stroke-dasharray": method.dashes.map((each) => each * 1.4).join(" ") || "none",
  });
  const rowsOf = (method, place) => (place < 0 || method.each.length === 1 ? method.mean : method.each[place]);

  function curves() {
    const method = chosen.method(), condition = chosen.condition();
    const place = condition === "mean" || condition === "each" ? -1 : Number(condition);
    const of = place < 0 ? "" : `, ${weights.conditions[place]}`;
    const found = [];
    const add = (each, width, opacity = 1) => {
      const rows = rowsOf(each, place);
      const spread = rows.length > 1 ? band(rows)
        : condition !== "mean" && method === "all" || place >= 0 || !each.learned || each.each.length < 2 ? null
        : { low: each.low, high: each.high };
      found.push({ name: each.name + of, values: average(rows), band: spread, style: style(each, width), opacity });
    };
    if (method === "all") {
      for (const each of weights.methods) add(each, each.learned ? 2.4 : 1.5);
      return found;
    }
    const one = weights.methods[Number(method)];
    for (const each of weights.methods) if (!each.learned && each !== one) add(each, 1.3, 0.8);
    if (condition === "each" && one.each.length > 1) {
      one.each.forEach((rows, g) => found.push({
        name: weights.conditions[g], values: average(rows), band: null, opacity: 0.9,
        style: { stroke: `var(--condition-${g})`, fill: "none", "stroke-width": 1.2 },
      }));
      found.push({ name: `${one.name}, mean`, values: average(one.mean), band: null, style: style(one, 3.2), opacity: 1 });
    } else add(one, 2.8);
    return found;
  }

  let drawn = null;
  function show() {
    const axis = chosen.axis(), x = weights.axes[axis], lines = curves();
    const finite = x.filter((value) => value !== null);
    const low = Math.min(...finite), high = Math.max(...finite), rises = axis === "step" || axis === "logsnr";
    const log = axis === "sigma" && low > 0 && high / low > 100;
    const ends = low === high ? [low - 1, high + 1] : [low, high];
    const values = lines.flatMap((line) => [...line.values, ...(line.band ? [...line.band.low, ...line.band.high] : [])]);
    const at = frame(svg, { limits: rises ? ends : ends.reverse(), label: LABELS[axis], log },
      { limits: limits([0, ...values]), label: "guidance weight ω", log: false });
    const points = (row) => row.map((value, k) => (x[k] === null ? [null, null] : [at.sx(x[k]), at.sy(value)]));
    for (const line of lines) {
      if (!line.band) continue;
      const edge = [...points(line.band.low), ...points(line.band.high).reverse()].filter(([a]) => a !== null);
      draw(svg, "path", { d: `${path(edge)}Z`, fill: line.style.stroke, opacity: 0.16 });
    }
    for (const line of lines) {
      draw(svg, "path", { d: path(points(line.values)), ...line.style, opacity: line.opacity, "stroke-linejoin": "round" });
      if (finite.length === 1) {
        const [px, py] = points(line.values).find(([a]) => a !== null);
        draw(svg, "circle", { cx: px, cy: py, r: 4, fill: line.style.stroke });
      }
    }
    const cursor = draw(svg, "line", { class: "axis", y1: at.box.top, y2: at.box.bottom, visibility: "hidden" });
    drawn = { at, x, lines, cursor, axis };
    key(list, lines);
  }

  svg.addEventListener("pointermove", (event) => {
    if (!drawn) return;
    const { at, x, lines, cursor, axis } = drawn, box = svg.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * at.width;
    const near = x.map((value, k) => [value === null ? Infinity : Math.abs(at.sx(value) - px), k]).sort((a, b) => a[0] - b[0])[0][1];
    cursor.setAttribute("x1", at.sx(x[near]));
    cursor.setAttribute("x2", at.sx(x[near]));
    cursor.setAttribute("visibility", "visible");
    const most = [...lines].sort((a, b) => b.values[near] - a.values[near]).slice(0, 14);
    showTip(event.clientX, event.clientY, make("strong", {}, `${axis} ${short(x[near])}`), ...most.map((line) =>
      make("div", { class: "row" }, make("span", {}, line.name), make("span", {}, line.values[near].toFixed(3)))));
  });
  svg.addEventListener("pointerleave", () => { hideTip(); drawn?.cursor.setAttribute("visibility", "hidden"); });
  chart.addEventListener("change", show);
  redrawn(show, svg);
}
