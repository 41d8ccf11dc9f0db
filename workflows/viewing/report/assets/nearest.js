report.section("nearest", (root, { first, count, headings, links, others }) => {
  const search = report.byId("nearest-search"), found = report.byId("nearest-found");
  const told = report.byId("nearest-count"), list = report.byId("nearest-list");
  const figure = report.byId("nearest-chosen"), elsewhere = report.byId("nearest-others");
  const note = report.byId("nearest-note"), heading = report.byId("nearest-heading");
  const most = 24, mostNamed = 12;
  const distances = links ? linked(links) : report.distances;
  const numbers = distances.images;
  const lower = Array.from(numbers, (number) => report.names[number].toLocaleLowerCase());
  const hidden = others ? others.names.map((name) => name.toLocaleLowerCase()) : [];
  const nearestOf = others && report.unpack(others.nearest), farOf = others && report.unpack(others.distances);

  // What answers as `report.distances` does, out of a list of neighbours.
  function linked({ images: packedImages, counts, listed, others: ends, distances: lengths }) {
    const images = report.unpack(packedImages), sizes = report.unpack(counts), whole = report.unpack(listed);
    const neighbours = report.unpack(ends), far = report.unpack(lengths);
    const rows = new Map(), starts = [];
    let start = 0;
    images.forEach((number, row) => { rows.set(number, row); starts.push(start); start += sizes[row]; });
    function nearest(number, k) {
      const row = rows.get(number);
      if (row === undefined) return [];
      return Array.from({ length: Math.min(k, sizes[row]) }, (_, n) =>
        [neighbours[starts[row] + n], lengths.low + lengths.step * far[starts[row] + n]]);
    }
    return { images, rows, nearest, listed: (number) => whole[rows.get(number)] };
  }

  function choose(number) {
    report.showPicture(figure.querySelector("canvas"), number);
    figure.querySelector("figcaption").textContent = report.names[number];
    heading.textContent = headings[distances.rows.has(number) ? 0 : headings.length - 1];
    const nearest = distances.nearest(number, count);
    list.replaceChildren(...nearest.map(([other, distance]) =>
      report.card(other, report.shown(distance), () => report.showPair(number, other, distance))));
    if (!nearest.length) list.append(Object.assign(document.createElement("li"), { className: "none", textContent: "No other image is listed for it." }));
    const missing = distances.listed ? Math.min(distances.listed(number) || 0, count) - nearest.length : 0;
    note.textContent = missing > 0 ? `${missing} more without pictures on this page.` : "";
  }

  // Images of the page first, then those that only have a name.
  function look() {
    const wanted = search.value.trim().toLocaleLowerCase();
    const hits = [], named = [];
    if (wanted) {
      lower.forEach((name, n) => { if (name.includes(wanted)) hits.push(numbers[n]); });
      hidden.forEach((name, n) => { if (name.includes(wanted)) named.push(n); });
    }
    found.replaceChildren(...hits.slice(0, most).map((number) => report.card(number, null, () => report.select(number))));
    elsewhere.replaceChildren(...named.slice(0, mostNamed).map(line));
    const total = hits.length + named.length, shown = Math.min(hits.length, most) + Math.min(named.length, mostNamed);
    const counted = `${total.toLocaleString("en")} ${total === 1 ? "image" : "images"}`;
    told.textContent = !wanted ? "" : total > shown ? `${counted}, ${shown} of them shown` : counted;
  }

  // An image without a picture: its name, and its nearest, which is chosen on a click if it has one.
  function line(n) {
    const item = document.createElement("li");
    const nearest = nearestOf[n], alone = nearest === others.from + n;
    item.append(others.names[n]);
    if (alone) { item.append(": nothing is listed for it"); return item; }
    const distance = report.shown(others.distances.low + others.distances.step * farOf[n]);
    item.append(`: nearest, at ${distance}, is `);
    const name = nearest < others.from ? report.names[nearest] : others.names[nearest - others.from];
    if (nearest >= others.from) { item.append(name); return item; }
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = name;
    button.addEventListener("click", () => report.select(nearest));
    item.append(button);
    return item;
  }

  search.addEventListener("input", look);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") (found.querySelector("button") || elsewhere.querySelector("button"))?.click();
    if (event.key === "Escape") { search.value = ""; look(); }
  });
  report.on("select", choose);
  choose(first);
  if (search.value) look();
});
