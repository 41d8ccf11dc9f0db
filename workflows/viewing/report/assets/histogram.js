report.section("histogram", (root, { counts, low, high, marks }) => {
  const plot = report.byId("histogram-plot"), readout = report.byId("histogram-readout");
  const space = "http://www.w3.org/2000/svg";
  const total = counts.reduce((sum, count) => sum + count, 0), most = Math.max(...counts);
  const step = (high - low) / counts.length;
  let chosen = -1, bars = [];

  function element(name, attributes, text) {
    const made = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function choose(bin) {
    bars[chosen]?.classList.remove("on");
    chosen = Math.max(0, Math.min(counts.length - 1, bin));
    bars[chosen].classList.add("on");
    const from = low + chosen * step;
    const below = counts.slice(0, chosen + 1).reduce((sum, count) => sum + count, 0);
    readout.textContent = `${report.shown(from)} to ${report.shown(from + step)}: `
      + `${counts[chosen].toLocaleString("en")} pairs; ${(100 * below / total).toFixed(1)} % of all are closer than ${report.shown(from + step)}`;
  }

  function draw() {
    const width = plot.clientWidth, height = 240, top = 34, bottom = height - 26;
    const place = (distance) => (distance - low) / (high - low) * width;
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0",
      "aria-label": `Histogram of ${total.toLocaleString("en")} distances from ${report.shown(low)} to ${report.shown(high)}; arrow keys read the bars` });
    const wide = width / counts.length;
    bars = counts.map((count, bin) => {
      const tall = (bottom - top) * count / most;
      return element("rect", { class: "column", x: bin * wide + 0.5, y: bottom - tall, width: Math.max(0.5, wide - 1), height: tall });
    });
    svg.append(...bars, element("line", { class: "axis", x1: 0, x2: width, y1: bottom, y2: bottom }));
    const ticks = nice(low, high, Math.max(3, Math.floor(width / 80)));
    for (const tick of ticks) {
      const x = place(tick);
      svg.append(element("text", { x, y: height - 8, "text-anchor": x < 20 ? "start" : x > width - 20 ? "end" : "middle" }, String(Number(tick.toFixed(6)))));
    }
    let rights = [-99, -99];
    for (const [name, distance] of marks) {
      const x = place(distance), text = `${name} ${distance.toFixed(3)}`, long = text.length * 6.6;
      const left = Math.min(Math.max(0, x - long / 2), width - long);
      const row = left > rights[0] + 8 ? 0 : 1;
      rights[row] = left + long;
      svg.append(element("line", { class: "mark", x1: x, x2: x, y1: row ? 32 : 18, y2: bottom }),
        element("text", { class: "label", x: left, y: row ? 28 : 13 }, text));
    }
    svg.addEventListener("pointermove", (event) => choose(Math.floor((event.clientX - svg.getBoundingClientRect().left) / wide)));
    svg.addEventListener("pointerdown", (event) => choose(Math.floor((event.clientX - svg.getBoundingClientRect().left) / wide)));
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      choose(chosen + move);
    });
    const focused = plot.contains(document.activeElement);
    plot.replaceChildren(svg);
    if (focused) svg.focus();
    if (chosen >= 0) choose(chosen);
  }

  function nice(from, to, count) {
    const rough = (to - from) / count, power = 10 ** Math.floor(Math.log10(rough));
    const unit = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
    const ticks = [];
    for (let tick = Math.ceil(from / unit) * unit; tick <= to + unit * 1e-6; tick += unit) ticks.push(tick);
    return ticks;
  }

  let width = 0;
  new ResizeObserver(() => {
    if (plot.clientWidth && plot.clientWidth !== width) { width = plot.clientWidth; draw(); }
  }).observe(plot);
  readout.textContent = "Point at a bar to read it.";
});
