"use strict";
// What all sections share: numbers, pictures, the dialog of a pair, the theme, views that zoom.
const report = (() => {
  const byId = (id) => document.getElementById(id);
  const parsed = new Map();

  function data(name) {
    if (!parsed.has(name)) {
      const block = byId("data-" + name);
      parsed.set(name, block ? JSON.parse(block.textContent) : null);
    }
    return parsed.get(name);
  }

  // Integers as the page packs them; of quantised numbers use `value`.
  function unpack(packed) {
    const text = atob(packed.data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return packed.type === "u1" ? bytes : new Uint16Array(bytes.buffer);
  }

  const shown = (distance) => distance.toFixed(4);

  // --- events between sections -----------------------------------------------------------------
  const listeners = new Map();
  function on(event, listener) {
    if (!listeners.has(event)) listeners.set(event, []);
    listeners.get(event).push(listener);
  }
  function emit(event, ...values) {
    for (const listener of listeners.get(event) || []) listener(...values);
  }

  // --- pictures --------------------------------------------------------------------------------
  const pictures = data("pictures");
  const images = [...document.querySelectorAll("#sheets img")];
  const ready = new Map(); // bitmaps of the sheets that are decoded
  function place(set, first) {
    const numbers = unpack(set.numbers), widths = unpack(set.widths), heights = unpack(set.heights);
    const places = new Map();
    const per = set.columns * set.columns;
    numbers.forEach((number, n) => {
      const within = n % per;
      places.set(number, {
        sheet: first + Math.floor(n / per),
        x: (within % set.columns) * set.side,
        y: Math.floor(within / set.columns) * set.side,
        width: widths[n],
        height: heights[n],
      });
    });
    return places;
  }
  const small = place(pictures.small, 0);
  const large = place(pictures.large, pictures.small.sheets);

  // Draw a picture into a box; a grey field with a cross stands for one that is missing.
  function drawPicture(context, number, x, y, width, height) {
    const tile = small.get(number);
    if (!tile || !tile.width) {
      context.fillStyle = "#8a9099";
      context.fillRect(x, y, width, height);
      context.strokeStyle = "#d5d8dc";
      context.beginPath();
      context.moveTo(x, y); context.lineTo(x + width, y + height);
      context.moveTo(x + width, y); context.lineTo(x, y + height);
      context.stroke();
      return;
    }
    if (!ready.has(tile.sheet)) return;
    const scale = Math.min(width / tile.width, height / tile.height);
    const w = tile.width * scale, h = tile.height * scale;
    context.drawImage(ready.get(tile.sheet), tile.x, tile.y, tile.width, tile.height,
      x + (width - w) / 2, y + (height - h) / 2, w, h);
  }

  // Show a picture in a canvas of its own, as large as the page has it.
  function showPicture(canvas, number) {
    canvas.dataset.picture = number;
    const why = pictures.missing[number];
    canvas.setAttribute("aria-label", pictures.names[number] + (why ? " (missing: " + why + ")" : ""));
    paint(canvas);
  }
  function paint(canvas) {
    const number = Number(canvas.dataset.picture);
    const big = large.get(number);
    const tile = big && big.width && ready.has(big.sheet) ? big : small.get(number);
    if (!tile || !tile.width) {
      canvas.width = canvas.height = 64;
      drawPicture(canvas.getContext("2d"), -1, 0, 0, 64, 64);
      canvas.title = "missing: " + (pictures.missing[number] || "unknown");
      return;
    }
    canvas.removeAttribute("title");
    if (!ready.has(tile.sheet)) return;
    canvas.width = tile.width;
    canvas.height = tile.height;
    canvas.getContext("2d").drawImage(ready.get(tile.sheet), tile.x, tile.y, tile.width, tile.height,
      0, 0, tile.width, tile.height);
  }
  function paintAll() {
    for (const canvas of document.querySelectorAll("canvas[data-picture]")) paint(canvas);
    emit("pictures");
  }
  const loaded = Promise.all(images.map((image, sheet) =>
    image.decode().then(() => createImageBitmap(image)).then((bitmap) => {
      ready.set(sheet, bitmap);
      image.remove();
      paintAll();
    })));

  // Where the picture of a number lies on a sheet that is decoded; null where there is none.
  function tile(number) {
    const big = large.get(number);
    const found = big && big.width && ready.has(big.sheet) ? big : small.get(number);
    return found && found.width && ready.has(found.sheet) ? { ...found, bitmap: ready.get(found.sheet) } : null;
  }

  // A button with a picture, as strips have it.
  function card(number, value, click) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "card";
    const canvas = document.createElement("canvas");
    canvas.className = "picture";
    canvas.setAttribute("role", "img");
    const caption = document.createElement("span");
    caption.className = "caption";
    caption.textContent = caption.title = pictures.names[number];
    button.append(canvas);
    if (value !== null) {
      const label = document.createElement("span");
      label.className = "value distance";
      label.textContent = value;
      button.append(label);
    }
    button.append(caption);
    button.addEventListener("click", click);
    item.append(button);
    showPicture(canvas, number);
    return item;
  }

  // A button with two pictures, as the macro `pair` writes it.
  function pairCard(left, right, distance) {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.className = "card";
    button.dataset.pair = `${left} ${right}`;
    button.dataset.distance = distance;
    const two = document.createElement("span"), value = document.createElement("span");
    two.className = "two";
    value.className = "value distance";
    value.textContent = shown(distance);
    button.append(two, value);
    for (const number of [left, right]) {
      const canvas = document.createElement("canvas"), caption = document.createElement("span");
      canvas.className = "picture";
      canvas.setAttribute("role", "img");
      caption.className = "caption";
      caption.textContent = caption.title = pictures.names[number];
      two.append(canvas);
      button.append(caption);
      showPicture(canvas, number);
    }
    item.append(button);
    return item;
  }

  // --- the dialog of a pair --------------------------------------------------------------------
  const dialog = byId("pair");
  const sides = [...dialog.querySelectorAll("figure")];
  function showPair(left, right, distance) {
    [left, right].forEach((number, n) => {
      showPicture(sides[n].querySelector("canvas"), number);
      sides[n].querySelector("figcaption").textContent = pictures.names[number];
      sides[n].querySelector("button").onclick = () => { dialog.close(); select(number, true); };
      sides[n].querySelector("button").hidden = !data("nearest");
    });
    byId("pair-title").textContent = distance === null ? "Pair" : "Distance " + shown(distance);
    dialog.querySelector(".dialog-note").textContent = distance === null
      ? "These two are in one group by way of others." : "";
    dialog.showModal();
  }
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // --- the chosen image ------------------------------------------------------------------------
  function select(number, go = false) {
    emit("begin-nearest");
    emit("select", number);
    if (go && byId("nearest")) byId("nearest").scrollIntoView();
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-pair], [data-image]");
    if (!button) return;
    if (button.dataset.pair) {
      const [left, right] = button.dataset.pair.split(" ").map(Number);
      showPair(left, right, button.dataset.distance ? Number(button.dataset.distance) : null);
    } else {
      select(Number(button.dataset.image), true);
    }
  });

  // --- the theme -------------------------------------------------------------------------------
  const themes = ["auto", "light", "dark"];
  const toggle = byId("theme");
  function kept() { try { return localStorage.getItem("lpipstore-theme"); } catch { return null; } }
  function setTheme(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    toggle.textContent = "Theme: " + theme;
    emit("theme");
  }
  toggle.hidden = false;
  let theme = themes.includes(kept()) ? kept() : "auto";
  toggle.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem("lpipstore-theme", theme); } catch { /* a page from disk may keep nothing */ }
    setTheme(theme);
  });
  setTheme(theme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => emit("theme"));
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  // --- a canvas that zooms and moves -----------------------------------------------------------
  // `draw(context, view)` gets a view with width, height (CSS pixels), scale and x, y: the content
  // is `view.size` wide at scale 1 and `aspect()` times as high; it begins at (x, y) + inset.
  // It is drawn when the view changes; `mark` draws the cursor over it and `cursor` says where it is.
  function zoomable(canvas, { inset, most, ratio, aspect = () => 1, draw, mark, cursor, hover, click, keys }) {
    const view = { width: 0, height: 0, size: 0, scale: 1, x: 0, y: 0 };
    const layer = document.createElement("canvas");
    let queued = false, stale = true;
    function sharpened(target) {
      const context = target.getContext("2d"), sharp = devicePixelRatio || 1;
      context.setTransform(sharp, 0, 0, sharp, 0, 0);
      context.clearRect(0, 0, view.width, view.height);
      return context;
    }
    function remark() {
      if (queued) return;
      queued = true;
      requestAnimationFrame(() => {
        queued = false;
        if (!view.width) return;
        if (stale) {
          layer.width = canvas.width;
          layer.height = canvas.height;
          draw(sharpened(layer), view);
          stale = false;
        }
        const context = sharpened(canvas);
        context.drawImage(layer, 0, 0, view.width, view.height);
        mark(context, view);
      });
    }
    function redraw() {
      stale = true;
      remark();
    }
    function resize() {
      const width = canvas.clientWidth;
      if (!width || width === view.width) return;
      const before = view.size || 1;
      view.width = width;
      view.height = Math.round(width * ratio(width));
      view.size = Math.min(view.width - inset, (view.height - inset) / aspect());
      view.x *= view.size / before;
      view.y *= view.size / before;
      canvas.style.height = view.height + "px";
      const sharp = devicePixelRatio || 1;
      canvas.width = Math.round(view.width * sharp);
      canvas.height = Math.round(view.height * sharp);
      keep();
      redraw();
    }
    function keep() {
      const across = view.width - inset, down = view.height - inset;
      view.scale = Math.min(most(view), Math.max(1, view.scale));
      const wide = view.size * view.scale, high = wide * aspect();
      view.x = wide <= across ? (across - wide) / 2 : Math.min(0, Math.max(across - wide, view.x));
      view.y = high <= down ? (down - high) / 2 : Math.min(0, Math.max(down - high, view.y));
      canvas.style.touchAction = view.scale > 1 ? "none" : "pan-y";
    }
    function zoom(factor, x = (view.width + inset) / 2, y = (view.height + inset) / 2) {
      if (!factor) view.scale = 1;
      const before = view.scale;
      view.scale = Math.min(most(view), Math.max(1, before * (factor || 1)));
      const change = view.scale / before;
      view.x = x - inset - (x - inset - view.x) * change;
      view.y = y - inset - (y - inset - view.y) * change;
      keep();
      redraw();
    }
    const pointers = new Map();
    let moved = 0, spread = 0;
    const at = (event) => [event.offsetX, event.offsetY];
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, at(event));
      moved = pointers.size > 1 ? 99 : 0;
      spread = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      const before = pointers.get(event.pointerId);
      if (!before) { hover(x, y); return; }
      pointers.set(event.pointerId, [x, y]);
      if (pointers.size === 2) {
        const [[ax, ay], [bx, by]] = [...pointers.values()];
        const now = Math.hypot(ax - bx, ay - by);
        if (spread) zoom(now / spread, (ax + bx) / 2, (ay + by) / 2);
        spread = now;
        return;
      }
      moved += Math.hypot(x - before[0], y - before[1]);
      if (moved > 4) {
        if (view.scale > 1) canvas.setPointerCapture(event.pointerId);
        view.x += x - before[0];
        view.y += y - before[1];
        keep();
        redraw();
      }
    });
    const away = (event) => {
      if (event.type === "pointerup" && pointers.has(event.pointerId) && moved <= 4) {
        hover(...at(event));
        click();
      }
      pointers.delete(event.pointerId);
      spread = 0;
    };
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) canvas.addEventListener(end, away);
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 300), ...at(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const used = event.key === "+" || event.key === "=" ? (zoom(2, ...cursor(view)), true)
        : event.key === "-" ? (zoom(0.5, ...cursor(view)), true)
        : event.key === "0" ? (zoom(0), true)
        : event.key === "Enter" || event.key === " " ? (click(), true)
        : keys(event.key);
      if (used) event.preventDefault();
    });
    for (const button of canvas.closest(".view").querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
    }
    new ResizeObserver(resize).observe(canvas);
    on("theme", redraw);
    on("pictures", redraw);
    resize();
    return { view, redraw, remark, keep };
  }

  // --- sections --------------------------------------------------------------------------------
  // Start a section when it comes near the screen, or when the page is printed.
  function section(name, start) {
    const root = byId(name);
    const payload = data(name);
    if (!root || !payload) return;
    let begun = false;
    const begin = () => { if (!begun) { begun = true; start(root, payload); } };
    const watcher = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) { watcher.disconnect(); begin(); }
    }, { rootMargin: "600px" });
    watcher.observe(root);
    addEventListener("beforeprint", begin);
    on("begin-" + name, begin);
  }

  return { loaded, byId, data, unpack, shown, on, emit, names: pictures.names, drawPicture, showPicture, tile, card, pairCard,
    showPair, select, colour, zoomable, section };
})();
