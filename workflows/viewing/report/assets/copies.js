report.section("copies", (root, { left: packedLeft, right: packedRight, distances, page }) => {
  const left = report.unpack(packedLeft), right = report.unpack(packedRight), count = left.length;
  const list = report.byId("copies-list"), where = report.byId("copies-where");
  const order = report.byId("copies-order");
  const turns = [...root.querySelectorAll("[data-turn]")];
  let from = 0;

  function show() {
    const to = Math.min(count, from + page);
    const places = Array.from({ length: to - from }, (_, n) => (order?.value === "farthest" ? count - 1 - from - n : from + n));
    list.replaceChildren(...places.map((n) => report.pairCard(left[n], right[n], distances[n])));
    if (where) where.textContent = `${(from + 1).toLocaleString("en")} to ${to.toLocaleString("en")} of ${count.toLocaleString("en")}`;
    for (const button of turns) button.disabled = button.dataset.turn === "1" ? to === count : from === 0;
  }

  for (const button of turns) {
    button.addEventListener("click", () => {
      from += page * Number(button.dataset.turn);
      show();
      if (button.closest(".again")) root.querySelector(".pager").scrollIntoView({ block: "start" });
    });
  }
  order?.addEventListener("change", () => { from = 0; show(); });
  show();
});
