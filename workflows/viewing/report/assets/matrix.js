// The distances of the images shown; `report.distances` answers for numbers of the page. Of one
// collection rows and columns are the same images, of two the columns are those of the second.
report.distances = (() => {
  const payload = report.data("matrix");
  if (!payload) return null;
  const places = (numbers) => new Map(Array.from(numbers, (number, place) => [number, place]));
  const down = report.unpack(payload.images), across = payload.across ? report.unpack(payload.across) : down;
  const rows = places(down), columns = across === down ? rows : places(across);
  const images = across === down ? down : Uint16Array.from(new Set([...down, ...across]));
  const count = down.length;
  let values = null;
  function between(i, j) {
    if (across === down && i === j) return 0;
    values = values || report.unpack(payload.distances);
    const a = Math.min(i, j), b = Math.max(i, j);
    const place = across === down ? count * a - a * (a + 1) / 2 + b - a - 1 : i * across.length + j;
    return payload.distances.low + payload.distances.step * values[place];
  }
  // The k nearest of an image: [[number, distance], …]. Of two collections those of the other.
  function nearest(number, k) {
    const row = rows.get(number), column = columns.get(number);
    let all = [];
    if (row !== undefined) all = Array.from(across, (other, n) => [other, between(row, n)]);
    else if (column !== undefined) all = Array.from(down, (other, n) => [other, between(n, column)]);
    if (across === down) all.splice(row, 1);
    return all.sort((one, two) => one[1] - two[1]).slice(0, k);
  }
  return { images, down, across, rows, columns, between, nearest };
})();

report.section("matrix", (root, { order: packedOrder, orderAcross, low, high, colours: packedColours }) => {
  const { down, across, between } = report.distances;
  const order = report.unpack(packedOrder), colours = report.unpack(packedColours);
  const wideOrder = orderAcross ? report.unpack(orderAcross) : order, whole = across === down;
  const rowCount = down.length, columnCount = across.length;
  const shape = Math.min(root.querySelector(".tall") ? 1.8 : 1, Math.max(0.2, rowCount / columnCount));
  const canvas = report.byId("matrix-canvas"), readout = report.byId("matrix-readout");
  const figures = [...readout.querySelectorAll("figure")], value = readout.querySelector(".distance");
  const strip = 44;
  let row = 0, column = whole ? Math.min(1, columnCount - 1) : 0, least = Infinity;

  const cells = document.createElement("canvas");
  cells.width = columnCount;
  cells.height = rowCount;
  const field = cells.getContext("2d").createImageData(columnCount, rowCount);
  const pixels = new Uint32Array(field.data.buffer);
  const table = new Uint32Array(256);
  for (let n = 0; n < 256; n++) table[n] = 0xff000000 | colours[3 * n + 2] << 16 | colours[3 * n + 1] << 8 | colours[3 * n];
  for (let i = 0; i < rowCount; i++) {
    for (let j = whole ? i : 0; j < columnCount; j++) {
      const distance = between(order[i], wideOrder[j]), level = (distance - low) / (high - low) * 255;
      const colour = table[level < 0 ? 0 : level > 255 ? 255 : Math.round(level)];
      pixels[i * columnCount + j] = colour;
      if (whole) pixels[j * columnCount + i] = colour;
      else if (distance < least) [least, row, column] = [distance, i, j]; // the cursor begins there
    }
  }
  cells.getContext("2d").putImageData(field, 0, 0);

  const legend = report.byId("matrix-legend").getContext("2d");
  for (let n = 0; n < 256; n++) {
    legend.fillStyle = `rgb(${colours[3 * n]} ${colours[3 * n + 1]} ${colours[3 * n + 2]})`;
    legend.fillRect(n, 0, 1, 1);
  }

  // Width and height of a cell; those of unlike collections are not square.
  const cellOf = (view) => ({ x: view.size * view.scale / columnCount, y: view.size * view.scale * shape / rowCount });
  const numberAt = (i, j) => [down[order[i]], across[wideOrder[j]]];
  const distanceAt = (i, j) => between(order[i], wideOrder[j]);

  const zoomed = report.zoomable(canvas, {
    inset: strip,
    most: (view) => Math.max(1, Math.max(columnCount, rowCount / shape) * 64 / (view.size || 1)),
    aspect: () => shape,
    ratio: (width) => ((width - strip) * shape + strip) / width,
    draw,
    mark,
    cursor: (view) => [strip + view.x + (column + 0.5) * cellOf(view).x, strip + view.y + (row + 0.5) * cellOf(view).y],
    hover: (x, y) => {
      const { view } = zoomed, cell = cellOf(view);
      const i = Math.floor((y - strip - view.y) / cell.y), j = Math.floor((x - strip - view.x) / cell.x);
      if (x < strip || y < strip || i < 0 || j < 0 || i >= rowCount || j >= columnCount) return;
      choose(i, j);
    },
    click: () => report.showPair(...numberAt(row, column), distanceAt(row, column)),
    keys: (key) => {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
        PageUp: [-10, 0], PageDown: [10, 0], Home: [0, -columnCount], End: [0, columnCount] };
      if (!moves[key]) return false;
      const within = (n, count) => Math.max(0, Math.min(count - 1, n));
      choose(within(row + moves[key][0], rowCount), within(column + moves[key][1], columnCount));
      reveal();
      return true;
    },
  });

  function choose(i, j) {
    row = i;
    column = j;
    numberAt(row, column).forEach((number, side) => {
      report.showPicture(figures[side].querySelector("canvas"), number);
      figures[side].querySelector("figcaption").textContent = report.names[number];
    });
    value.textContent = whole && row === column ? "the same image" : report.shown(distanceAt(row, column));
    zoomed?.remark();
  }

  function reveal() {
    const { view } = zoomed, cell = cellOf(view);
    for (const [axis, n, room] of [["x", column, view.width - strip], ["y", row, view.height - strip]]) {
      const start = n * cell[axis] + view[axis];
      if (start < 0) view[axis] -= start;
      if (start + cell[axis] > room) view[axis] -= start + cell[axis] - room;
    }
    zoomed.keep();
    zoomed.redraw();
  }

  function draw(context, view) {
    const wide = view.size * view.scale, cell = cellOf(view);
    context.save();
    context.beginPath();
    context.rect(strip, strip, view.width - strip, view.height - strip);
    context.clip();
    context.imageSmoothingEnabled = Math.min(cell.x, cell.y) < 1;
    context.imageSmoothingQuality = "high";
    context.drawImage(cells, strip + view.x, strip + view.y, wide, wide * shape);
    context.restore();
    sides(context, view, cell);
  }

  // The cursor, its row and its column.
  function mark(context, view) {
    const cell = cellOf(view);
    context.save();
    context.beginPath();
    context.rect(strip, strip, view.width - strip, view.height - strip);
    context.clip();
    const x = strip + view.x + column * cell.x, y = strip + view.y + row * cell.y;
    context.strokeStyle = "#ffffff";
    context.globalAlpha = 0.55;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(strip, y + cell.y / 2); context.lineTo(x, y + cell.y / 2);
    context.moveTo(x + cell.x / 2, strip); context.lineTo(x + cell.x / 2, y);
    context.stroke();
    context.globalAlpha = 1;
    for (const [colour, width] of [["#ffffff", 5], ["#000000", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(x - 1, y - 1, Math.max(cell.x, 3) + 2, Math.max(cell.y, 3) + 2);
    }
    context.restore();
    context.fillStyle = report.colour("accent");
    if (x >= strip && x < view.width) context.fillRect(x, strip - 3, Math.max(cell.x, 2), 3);
    if (y >= strip && y < view.height) context.fillRect(strip - 3, y, 3, Math.max(cell.y, 2));
  }

  // The pictures along the sides: every one that has room, else some at equal steps.
  function sides(context, view, cells) {
    context.imageSmoothingEnabled = true;
    for (const [axis, room, count] of [["x", view.width, columnCount], ["y", view.height, rowCount]]) {
      const cell = cells[axis], side = Math.min(strip - 6, Math.max(30, cell - 2)), every = Math.max(1, Math.ceil((side + 2) / cell));
      context.save();
      context.beginPath();
      if (axis === "x") context.rect(strip, 0, room - strip, strip); else context.rect(0, strip, strip, room - strip);
      context.clip();
      const from = Math.max(0, Math.floor(-view[axis] / cell)), to = Math.min(count, Math.ceil((room - strip - view[axis]) / cell));
      for (let n = Math.ceil(from / every) * every - every; n < to; n += every) {
        const middle = Math.min(n + (every - 1) / 2, count - 1);
        if (n < 0 || n >= count || (n && middle < n + (every - 1) / 2)) continue;
        const at = strip + view[axis] + (middle + 0.5) * cell - side / 2;
        const number = axis === "x" ? across[wideOrder[Math.round(middle)]] : down[order[Math.round(middle)]];
        if (axis === "x") report.drawPicture(context, number, at, (strip - side) / 2, side, side);
        else report.drawPicture(context, number, (strip - side) / 2, at, side, side);
      }
      context.restore();
    }
  }

  report.on("select", (number) => {
    const i = order.indexOf(report.distances.rows.get(number)), j = wideOrder.indexOf(report.distances.columns.get(number));
    if (i >= 0) choose(i, column);
    else if (j >= 0) choose(row, j);
    else return;
    reveal();
  });
  choose(row, column);
});
