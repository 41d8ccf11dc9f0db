report.section("curves", (root, { plots, epochs, best }) => {
  const readout = report.byId("curves-readout");
  const figures = [...root.querySelectorAll("figure[data-plot]")];
  const space = "http://www.w3.org/2000/svg";
  const kinds = ["train", "held"], left = 46, right = 12, top = 10, bottom = 214;
  const cursors = [];
  let chosen = Math.max(0, epochs.indexOf(best));

  function element(name, attributes, text) {
    const made = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const last = Math.max(1, epochs[epochs.length - 1]);
  const across = (epoch, width) => left + epoch / last * (width - left - right);

  function choose(n) {
    chosen = Math.max(0, Math.min(epochs.length - 1, n));
    const said = plots.map(({ name, series }) => name.toLocaleLowerCase() + " "
      + series.filter(({ values }) => values[chosen] !== null).map(({ name: part, values }) => `${values[chosen].toFixed(4)} (${part})`).join(", "));
    readout.textContent = `Epoch ${epochs[chosen]}${epochs[chosen] === best ? ", kept" : ""}: ${said.join("; ")}`;
    cursors.forEach(({ line, width }) => {
      const x = across(epochs[chosen], width);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    });
  }

  // Steps of 1, 2 or 5 between the ends.
  function ticks(from, to, count) {
    const rough = (to - from) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
    const unit = [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
    const found = [];
    for (let tick = Math.ceil(from / unit) * unit; tick <= to + unit * 1e-6; tick += unit) found.push(Number(tick.toFixed(9)));
    return found;
  }

  function draw(figure, n) {
    const room = figure.querySelector(".room"), width = room.clientWidth, { name, series } = plots[n];
    const values = series.flatMap((one) => one.values).filter((value) => value !== null);
    const edge = (Math.max(...values) - Math.min(...values)) * 0.06 || 0.01;
    const low = Math.min(...values) - edge, high = Math.max(...values) + edge;
    const up = (value) => bottom - (value - low) / (high - low) * (bottom - top);
    const svg = element("svg", { viewBox: `0 0 ${width} 240`, role: "img", tabindex: "0",
      "aria-label": `${name} over ${epochs.length} epochs; arrow keys read the epochs` });
    for (const tick of ticks(low, high, 4)) {
      svg.append(element("line", { class: "grid", x1: left, x2: width - right, y1: up(tick), y2: up(tick) }),
        element("text", { x: left - 8, y: up(tick) + 4, "text-anchor": "end" }, String(tick)));
    }
    for (const tick of ticks(0, last, Math.max(2, Math.min(8, Math.floor(width / 60)))).filter(Number.isInteger)) {
      svg.append(element("text", { x: across(tick, width), y: 232, "text-anchor": "middle" }, String(tick)));
    }
    const kept = across(best, width), line = element("line", { class: "cursor", x1: kept, x2: kept, y1: top, y2: bottom });
    svg.append(line, element("line", { class: "kept", x1: kept, x2: kept, y1: top, y2: bottom }));
    series.forEach((one, part) => {
      const points = epochs.map((epoch, at) => [epoch, one.values[at]]).filter(([, value]) => value !== null);
      svg.append(element("polyline", { class: "line " + kinds[part], points: points.map(([epoch, value]) => `${across(epoch, width)},${up(value)}`).join(" ") }));
      if (points.length <= 70) svg.append(...points.map(([epoch, value]) => element("circle", { class: "dot " + kinds[part], cx: across(epoch, width), cy: up(value), r: 2.5 })));
    });
    const point = (event) => {
      const at = (event.clientX - svg.getBoundingClientRect().left - left) / (width - left - right) * last;
      choose(epochs.reduce((near, epoch, place) => Math.abs(epoch - at) < Math.abs(epochs[near] - at) ? place : near, 0));
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      choose(chosen + move);
    });
    const focused = room.contains(document.activeElement);
    room.replaceChildren(svg);
    if (focused) svg.focus();
    cursors[n] = { line, width };
  }

  let before = 0;
  new ResizeObserver(() => {
    const width = figures[0].clientWidth;
    if (!width || width === before) return;
    before = width;
    figures.forEach(draw);
    choose(chosen);
  }).observe(figures[0]);
});
