report.section("map", (root, { images: packedImages, layouts }) => {
  const canvas = report.byId("map-canvas"), readout = report.byId("map-readout");
  const images = report.unpack(packedImages), count = images.length;
  const side = Math.max(14, Math.min(44, 640 / Math.sqrt(count)));
  let points = [], chosen = -1, aspect = 1;

  function lay(layout) {
    const [x, y] = [layout.x, layout.y].map((axis) => Float64Array.from(report.unpack(axis), (n) => axis.low + axis.step * n));
    const [[left, right], [low, high]] = [x, y].map((axis) => [Math.min(...axis), Math.max(...axis)]);
    const span = Math.max(right - left, high - low) || 1;
    aspect = Math.max(0.4, Math.min(1, (high - low) / span));
    const across = Math.max(0, (span - (right - left)) / 2), down = (aspect * span - (high - low)) / 2;
    points = Array.from(images, (_, n) => [(x[n] - left + across) / span, (high - y[n] + down) / span]);
  }
  lay(layouts[0]);

  const grown = (view) => side * Math.min(3, Math.sqrt(view.scale));
  const place = (n, view) => {
    const pad = side, wide = view.size * view.scale - 2 * pad;
    return [view.x + pad + points[n][0] * wide, view.y + pad + points[n][1] * wide];
  };

  const zoomed = report.zoomable(canvas, {
    inset: 0,
    most: () => 24,
    aspect: () => Math.min(1, aspect + 0.04),
    ratio: (width) => (width > 640 ? Math.min(0.75, aspect + 0.04) : Math.max(0.9, aspect)),
    draw: (context, view) => {
      const size = grown(view);
      for (let n = 0; n < count; n++) {
        const [x, y] = place(n, view);
        if (x < -size || y < -size || x > view.width + size || y > view.height + size) continue;
        report.drawPicture(context, images[n], x - size / 2, y - size / 2, size, size);
      }
    },
    mark: (context, view) => {
      if (chosen < 0) return;
      const [x, y] = place(chosen, view), big = Math.max(72, grown(view) * 1.5);
      context.fillStyle = report.colour("surface");
      context.fillRect(x - big / 2 - 3, y - big / 2 - 3, big + 6, big + 6);
      report.drawPicture(context, images[chosen], x - big / 2, y - big / 2, big, big);
      context.strokeStyle = report.colour("accent");
      context.lineWidth = 2;
      context.strokeRect(x - big / 2 - 3, y - big / 2 - 3, big + 6, big + 6);
    },
    cursor: (view) => (chosen < 0 ? [view.width / 2, view.height / 2] : place(chosen, view)),
    hover: (x, y) => {
      let best = -1, least = grown(zoomed.view);
      for (let n = 0; n < count; n++) {
        const [px, py] = place(n, zoomed.view), apart = Math.max(Math.abs(px - x), Math.abs(py - y));
        if (apart <= least) { least = apart; best = n; }
      }
      if (best >= 0 && best !== chosen) choose(best);
    },
    click: () => { if (chosen >= 0) report.select(images[chosen], true); },
    keys: (key) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
      if (!way) return false;
      if (chosen < 0) { choose(0); return true; }
      let best = -1, least = Infinity;
      for (let n = 0; n < count; n++) {
        const dx = points[n][0] - points[chosen][0], dy = points[n][1] - points[chosen][1];
        const along = dx * way[0] + dy * way[1], aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
        const cost = along + 2 * aside;
        if (n !== chosen && along > 0 && aside <= along && cost < least) { least = cost; best = n; }
      }
      if (best >= 0) choose(best);
      return true;
    },
  });

  function choose(n) {
    chosen = n;
    readout.textContent = report.names[images[n]];
    zoomed.remark();
  }
  for (const button of root.querySelectorAll("input[name=map-layout]")) {
    button.addEventListener("change", () => { lay(layouts[Number(button.value)]); zoomed.redraw(); });
  }
  report.on("select", (number) => {
    const n = images.indexOf(number);
    if (n >= 0) choose(n);
  });
});
