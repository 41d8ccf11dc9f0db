// The distances of the images shown; `report.distances` answers for numbers of the page.
report.distances = (() => {
  const payload = report.data("matrix");
  if (!payload) return null;
  const images = report.unpack(payload.images), rows = new Map();
  images.forEach((number, row) => rows.set(number, row));
  const count = images.length;
  let half = null;
  function between(i, j) {
    if (i === j) return 0;
    half = half || report.unpack(payload.distances);
    const a = Math.min(i, j), b = Math.max(i, j);
    return payload.distances.low + payload.distances.step * half[count * a - a * (a + 1) / 2 + b - a - 1];
  }
  // The k nearest of an image: [[number, distance], …].
  function nearest(number, k) {
    const row = rows.get(number);
    if (row === undefined) return [];
    const all = Array.from(images, (other, n) => [other, between(row, n)]);
    all.splice(row, 1);
    return all.sort((one, two) => one[1] - two[1]).slice(0, k);
  }
  return { images, rows, count, between, nearest };
})();

report.section("matrix", (root, { order: packedOrder, low, high, colours: packedColours }) => {
  const { images, count, between } = report.distances;
  const order = report.unpack(packedOrder), colours = report.unpack(packedColours);
  const canvas = report.byId("matrix-canvas"), readout = report.byId("matrix-readout");
  const figures = [...readout.querySelectorAll("figure")], value = readout.querySelector(".distance");
  const strip = 44;
  let row = 0, column = Math.min(1, count - 1);

  const cells = document.createElement("canvas");
  cells.width = cells.height = count;
  const field = cells.getContext("2d").createImageData(count, count);
  const pixels = new Uint32Array(field.data.buffer);
  const table = new Uint32Array(256);
  for (let n = 0; n < 256; n++) table[n] = 0xff000000 | colours[3 * n + 2] << 16 | colours[3 * n + 1] << 8 | colours[3 * n];
  for (let i = 0; i < count; i++) {
    for (let j = i; j < count; j++) {
      const level = (between(order[i], order[j]) - low) / (high - low) * 255;
      pixels[i * count + j] = pixels[j * count + i] = table[level < 0 ? 0 : level > 255 ? 255 : Math.round(level)];
    }
  }
  cells.getContext("2d").putImageData(field, 0, 0);

  const legend = report.byId("matrix-legend").getContext("2d");
  for (let n = 0; n < 256; n++) {
    legend.fillStyle = `rgb(${colours[3 * n]} ${colours[3 * n + 1]} ${colours[3 * n + 2]})`;
    legend.fillRect(n, 0, 1, 1);
  }

  const zoomed = report.zoomable(canvas, {
    inset: strip,
    most: (view) => Math.max(1, count * 64 / (view.size || 1)),
    ratio: () => 1,
    draw,
    mark,
    cursor: (view) => [column, row].map((n, axis) =>
      strip + view[axis ? "y" : "x"] + (n + 0.5) * view.size * view.scale / count),
    hover: (x, y) => {
      const cell = zoomed.view.size * zoomed.view.scale / count;
      const i = Math.floor((y - strip - zoomed.view.y) / cell), j = Math.floor((x - strip - zoomed.view.x) / cell);
      if (x < strip || y < strip || i < 0 || j < 0 || i >= count || j >= count) return;
      choose(i, j);
    },
    click: () => report.showPair(images[order[row]], images[order[column]], between(order[row], order[column])),
    keys: (key) => {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
        PageUp: [-10, 0], PageDown: [10, 0], Home: [0, -count], End: [0, count] };
      if (!moves[key]) return false;
      const within = (n) => Math.max(0, Math.min(count - 1, n));
      choose(within(row + moves[key][0]), within(column + moves[key][1]));
      reveal();
      return true;
    },
  });

  function choose(i, j) {
    row = i;
    column = j;
    [row, column].forEach((n, side) => {
      const number = images[order[n]];
      report.showPicture(figures[side].querySelector("canvas"), number);
      figures[side].querySelector("figcaption").textContent = report.names[number];
    });
    value.textContent = row === column ? "the same image" : report.shown(between(order[row], order[column]));
    zoomed?.remark();
  }

  function reveal() {
    const { view } = zoomed, cell = view.size * view.scale / count;
    for (const [axis, n, room] of [["x", column, view.width - strip], ["y", row, view.height - strip]]) {
      const start = n * cell + view[axis];
      if (start < 0) view[axis] -= start;
      if (start + cell > room) view[axis] -= start + cell - room;
    }
    zoomed.keep();
    zoomed.redraw();
  }

  function draw(context, view) {
    const wide = view.size * view.scale, cell = wide / count;
    context.save();
    context.beginPath();
    context.rect(strip, strip, view.width - strip, view.height - strip);
    context.clip();
    context.imageSmoothingEnabled = cell < 1;
    context.imageSmoothingQuality = "high";
    context.drawImage(cells, strip + view.x, strip + view.y, wide, wide);
    context.restore();
    sides(context, view, cell);
  }

  // The cursor, its row and its column.
  function mark(context, view) {
    const cell = view.size * view.scale / count;
    context.save();
    context.beginPath();
    context.rect(strip, strip, view.width - strip, view.height - strip);
    context.clip();
    const x = strip + view.x + column * cell, y = strip + view.y + row * cell;
    context.strokeStyle = "#ffffff";
    context.globalAlpha = 0.55;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(strip, y + cell / 2); context.lineTo(x, y + cell / 2);
    context.moveTo(x + cell / 2, strip); context.lineTo(x + cell / 2, y);
    context.stroke();
    context.globalAlpha = 1;
    context.strokeStyle = "#ffffff";
    context.lineWidth = 5;
    context.strokeRect(x - 1, y - 1, Math.max(cell, 3) + 2, Math.max(cell, 3) + 2);
    context.strokeStyle = "#000000";
    context.lineWidth = 2;
    context.strokeRect(x - 1, y - 1, Math.max(cell, 3) + 2, Math.max(cell, 3) + 2);
    context.restore();
    context.fillStyle = report.colour("accent");
    const long = Math.max(cell, 2);
    if (x >= strip && x < view.width) context.fillRect(x, strip - 3, long, 3);
    if (y >= strip && y < view.height) context.fillRect(strip - 3, y, 3, long);
  }

  // The pictures along the sides: every one that has room, else some at equal steps.
  function sides(context, view, cell) {
    const side = Math.min(strip - 6, Math.max(30, cell - 2)), every = Math.max(1, Math.ceil((side + 2) / cell));
    context.imageSmoothingEnabled = true;
    for (const [axis, room] of [["x", view.width], ["y", view.height]]) {
      context.save();
      context.beginPath();
      if (axis === "x") context.rect(strip, 0, room - strip, strip); else context.rect(0, strip, strip, room - strip);
      context.clip();
      const from = Math.max(0, Math.floor(-view[axis] / cell)), to = Math.min(count, Math.ceil((room - strip - view[axis]) / cell));
      for (let n = Math.ceil(from / every) * every - every; n < to; n += every) {
        const middle = Math.min(n + (every - 1) / 2, count - 1);
        if (n < 0 || n >= count || (n && middle < n + (every - 1) / 2)) continue;
        const at = strip + view[axis] + (middle + 0.5) * cell - side / 2;
        const number = images[order[Math.round(middle)]];
        if (axis === "x") report.drawPicture(context, number, at, (strip - side) / 2, side, side);
        else report.drawPicture(context, number, (strip - side) / 2, at, side, side);
      }
      context.restore();
    }
  }

  report.on("select", (number) => {
    const place = order.indexOf(report.distances.rows.get(number));
    if (place >= 0) { choose(place, column); reveal(); }
  });
  choose(row, column);
});
