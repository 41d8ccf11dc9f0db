report.section("differences", (root, { maps, low, high, colours: packedColours }) => {
  const over = report.byId("differences-over"), readout = report.byId("differences-readout");
  const colours = report.unpack(packedColours);
  const canvases = [...root.querySelectorAll("[data-map]")];
  const levels = maps.map((map) => map && report.unpack(map.levels));
  const zero = low < 0 ? 127.5 : 0; // the level of no difference

  const legend = report.byId("differences-legend").getContext("2d");
  for (let n = 0; n < 256; n++) {
    legend.fillStyle = `rgb(${colours[3 * n]} ${colours[3 * n + 1]} ${colours[3 * n + 2]})`;
    legend.fillRect(n, 0, 1, 1);
  }

  // The map in its colours; over a picture it lets that through where there is no difference.
  function coloured(n) {
    const layer = document.createElement("canvas");
    layer.width = maps[n].width;
    layer.height = maps[n].height;
    const field = layer.getContext("2d").createImageData(layer.width, layer.height);
    levels[n].forEach((level, at) => {
      field.data.set(colours.subarray(3 * level, 3 * level + 3), 4 * at);
      field.data[4 * at + 3] = over.checked ? 255 * (0.1 + 0.75 * Math.sqrt(Math.abs(level - zero) / (255 - zero))) : 255;
    });
    layer.getContext("2d").putImageData(field, 0, 0);
    return layer;
  }

  function draw(canvas) {
    const n = Number(canvas.dataset.map), picture = report.tile(Number(canvas.dataset.of));
    const [x, y, width, height] = maps[n].frame;
    canvas.width = picture ? picture.width : maps[n].width * 4;
    canvas.height = picture ? picture.height : maps[n].height * 4;
    const context = canvas.getContext("2d");
    if (over.checked && picture) {
      context.filter = "grayscale(1)";
      context.drawImage(picture.bitmap, picture.x, picture.y, picture.width, picture.height, 0, 0, canvas.width, canvas.height);
      context.filter = "none";
    }
    context.imageSmoothingQuality = "high";
    context.drawImage(coloured(n), x * canvas.width, y * canvas.height, width * canvas.width, height * canvas.height);
  }

  // Where the pointer is on a map that its canvas shows whole, in the middle: the distance there.
  function read(canvas, event) {
    const n = Number(canvas.dataset.map), { width, height, frame } = maps[n];
    const box = canvas.getBoundingClientRect();
    const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
    const along = (event.clientX - box.left - (box.width - canvas.width * scale) / 2) / (canvas.width * scale);
    const down = (event.clientY - box.top - (box.height - canvas.height * scale) / 2) / (canvas.height * scale);
    const column = Math.floor((along - frame[0]) / frame[2] * width), row = Math.floor((down - frame[1]) / frame[3] * height);
    if (column < 0 || row < 0 || column >= width || row >= height) return;
    const level = levels[n][row * width + column], value = low + (high - low) * level / 255;
    readout.textContent = `Distance here: ${level === 255 ? "at least " : ""}${value.toFixed(3)}`;
  }

  for (const canvas of canvases) canvas.addEventListener("pointermove", (event) => read(canvas, event));
  const all = () => canvases.forEach(draw);
  over.addEventListener("change", all);
  report.on("pictures", all);
  all();
});
