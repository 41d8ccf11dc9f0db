report.section("nearest", (root, { first, count, headings }) => {
  const search = report.byId("nearest-search"), found = report.byId("nearest-found");
  const told = report.byId("nearest-count"), list = report.byId("nearest-list");
  const figure = report.byId("nearest-chosen"), heading = report.byId("nearest-heading");
  const most = 24;
  const numbers = report.distances.images;
  const lower = Array.from(numbers, (number) => report.names[number].toLocaleLowerCase());

  function choose(number) {
    report.showPicture(figure.querySelector("canvas"), number);
    figure.querySelector("figcaption").textContent = report.names[number];
    heading.textContent = headings[report.distances.rows.has(number) ? 0 : headings.length - 1];
    list.replaceChildren(...report.distances.nearest(number, count).map(([other, distance]) =>
      report.card(other, report.shown(distance), () => report.showPair(number, other, distance))));
    if (!list.children.length) list.append(Object.assign(document.createElement("li"), { textContent: "There is no other image." }));
  }

  function look() {
    const wanted = search.value.trim().toLocaleLowerCase();
    if (!wanted) { found.replaceChildren(); told.textContent = ""; return; }
    const hits = [];
    lower.forEach((name, n) => { if (name.includes(wanted)) hits.push(numbers[n]); });
    found.replaceChildren(...hits.slice(0, most).map((number) => report.card(number, null, () => report.select(number))));
    told.textContent = hits.length > most ? `${hits.length.toLocaleString("en")} images, the first ${most} shown`
      : hits.length === 1 ? "1 image" : `${hits.length} images`;
  }

  search.addEventListener("input", look);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") found.querySelector("button")?.click();
    if (event.key === "Escape") { search.value = ""; look(); }
  });
  report.on("select", choose);
  choose(first);
  if (search.value) look();
});
