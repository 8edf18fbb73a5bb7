"use strict";

// The page of a scene: switching, comparing and measuring its images.
(async () => {
  const { element, number, text, gain } = kpac;
  const get = (id) => document.getElementById(id);
  const index = await kpac.load("data/index");
  const count = index.scenes.length;

  let scene = null; // the entry of data/index.js, with its number
  let layers = []; // { name, title, image }, in the order of keys 1 to 9
  let maps = new Map(); // of the scene, by name
  let shown = 0;
  let box = null;
  let visit = 0; // increases with every scene: images that arrive for an earlier scene are dropped
  const overlayImages = new Map(); // URLs of coloured maps
  let brightest = 0;

  const viewer = new kpac.Viewer(get("viewer"), showPixel);

  function titles() {
    const named = { input: "input", target: "target" };
    return scene.pictures.map((name) => ({ name, title: named[name] ?? index.methods[methodOf(name)] }));
  }

  function methodOf(name) {
    return Number(name.split("-")[1]);
  }

  function note(name) {
    const scores = name === "input" ? scene.input : name === "target" ? {} : scene.scores[methodOf(name)];
    const parts = index.metrics.filter(({ key }) => key in scores && key !== "mae").map(({ key, title, digits }) =>
      key === "psnr" ? `${text(scores.psnr, digits)} dB` : `${title} ${text(scores[key], digits)}`);
    if (name.startsWith("method") && "psnr" in scores) parts.splice(1, 0, `${text(gain(scores, scene.input), 2, true)} dB`);
    return parts.join(", ");
  }

  // Goes to a scene; loads its images one by one, starting with the visible one.
  async function open(wanted) {
    visit += 1;
    const mine = visit;
    release();
    scene = { ...index.scenes[wanted - 1], number: wanted };
    document.title = get("name").textContent = scene.name;
    get("place").textContent = `${wanted} of ${count}`;
    for (const [id, place] of [["previous", wanted - 1], ["next", wanted + 1]]) {
      const there = place >= 1 && place <= count;
      there ? get(id).setAttribute("href", `#scene=${place}`) : get(id).removeAttribute("href");
      get(id).setAttribute("aria-disabled", String(!there));
    }
    layers = titles().map((layer) => ({ ...layer, image: null }));
    drawLayers();
    drawChoices();
    if (!layers.length) {
      kpac.problem(new Error(`scene ${scene.name}: its images are no longer in the data set`));
      return;
    }
    shown = Math.min(shown, layers.length - 1);
    const order = [shown, ...layers.keys()].filter((place, at, all) => all.indexOf(place) === at);
    for (const place of order) {
      const layer = layers[place];
      const image = await kpac.images.load(`images/${scene.number}/${layer.name}`);
      if (mine !== visit) { kpac.images.free(image); return; }
      layer.image = image;
      await viewer.add(layer.name, image.url);
      if (mine !== visit) return;
      if (place === shown) show(shown);
    }
    show(shown);
    document.body.dataset.ready = String(scene.number);
    for (const name of scene.maps) {
      const map = await kpac.images.load(`images/${scene.number}/${name}`);
      if (mine !== visit) { kpac.images.free(map); return; }
      maps.set(name, map);
    }
    document.body.dataset.maps = String(scene.number);
  }

  function release() {
    viewer.clear();
    for (const layer of layers) if (layer.image) kpac.images.free(layer.image);
    for (const map of maps.values()) kpac.images.free(map);
    for (const url of overlayImages.values()) URL.revokeObjectURL(url);
    overlayImages.clear();
    maps = new Map();
    layers = [];
    box = null;
    brightest = 0;
    get("box-result").hidden = get("problem").hidden = true;
    get("split").checked = false;
    get("overlay").value = "";
    get("legend").hidden = true;
    drawDivider();
    delete document.body.dataset.ready;
    delete document.body.dataset.maps;
  }

  function drawLayers() {
    get("layers").replaceChildren(...layers.map(({ name, title }, place) => element(
      "button", { type: "button", "aria-pressed": "false", click: () => show(place), "data-layer": name },
      `${place < 9 ? `${place + 1} ` : ""}${title}`, element("small", {}, note(name)))));
  }

  function drawChoices() {
    for (const [id, chosen] of [["split-left", "input"], ["split-right", layers.at(layers.length > 2 ? 1 : -1)?.name]]) {
      get(id).replaceChildren(...layers.map(({ name, title }) => element("option", { value: name, selected: name === chosen }, title)));
    }
    const options = [["", "none"]];
    if (layers.some(({ name }) => name === "target")) options.push(["error", "absolute error of the visible image"]);
    for (const name of scene.maps) {
      const [kind, method, block] = name.split("-");
      options.push([name, kind === "blur" ? "true radius of the blur" : `scale attention of ${index.methods[method]}, block ${block}`]);
    }
    get("overlay").replaceChildren(...options.map(([value, title]) => element("option", { value }, title)));
  }

  function show(place) {
    if (place < 0 || place >= layers.length) return;
    shown = place;
    const { name, title, image } = layers[place];
    viewer.show(name);
    get("shown").textContent = [title, note(name)].filter(Boolean).join(": ");
    [...get("layers").children].forEach((button, at) => button.setAttribute("aria-pressed", String(at === place)));
    if (image) {
      get("save").href = image.url;
      get("save").download = fileName(`${scene.name} ${title}.${image.blob.type.split("/")[1]}`);
    }
    if (get("overlay").value === "error") drawOverlay();
  }

  // A file name without characters that file systems refuse.
  function fileName(name) {
    return name.replace(/[\\/:*?"<>|\u0000-\u001f]/g, "_");
  }

  function showPixel(point) {
    if (!point || !scene) return;
    get("pixel-place").textContent = `row ${point.y}, column ${point.x}: red, green, blue from 0 to 255`;
    const rows = layers.filter(({ image }) => image).map(({ title, image }) => {
      const values = [...kpac.images.pixels(image, point.x, point.y, 1, 1)].slice(0, 3);
      return element("tr", {}, element("th", { scope: "row" }, title), ...values.map((value) => element("td", {}, String(value))));
    });
    const map = maps.get(get("overlay").value);
    if (map) {
      const value = kpac.maps.valueAt(map, point.x, point.y).toFixed(2);
      rows.push(element("tr", {}, element("th", { scope: "row" }, unitOf(get("overlay").value)), element("td", { colspan: 3 }, value)));
    }
    get("pixel").tBodies[0].replaceChildren(...rows);
  }

  function unitOf(name) {
    return name === "blur" ? "blur radius [pixels]" : "expected dilation";
  }

  async function drawOverlay() {
    const name = get("overlay").value;
    const mine = visit;
    const isError = name === "error";
    const colors = index.colors[isError ? "error" : "map"];
    const target = layers.find((layer) => layer.name === "target")?.image;
    const image = layers[shown].image;
    if (name === "" || (isError && !(target && image)) || (!isError && !maps.has(name))) {
      get("legend").hidden = true;
      await viewer.overlay(null);
      return;
    }
    if (isError && !brightest) brightest = kpac.maps.brightest(layers.find((layer) => layer.name === "input").image, target);
    const key = isError ? `error ${shown}` : name;
    if (!overlayImages.has(key)) {
      const canvas = isError ? kpac.maps.errorMap(image, target, brightest, colors) : kpac.maps.storedMap(maps.get(name), colors);
      const blob = await kpac.images.blobOf(canvas);
      if (mine !== visit) return;
      overlayImages.set(key, URL.createObjectURL(blob));
    }
    const { facts, width } = isError ? { facts: { low: 0, high: brightest / 255, factor: 1 }, width: image.width } : maps.get(name);
    await viewer.overlay(overlayImages.get(key), (width * facts.factor) / layers[0].image.width, get("overlay-opacity").value / 100);
    const unit = isError ? "" : ` ${unitOf(name)}`;
    get("legend-low").textContent = number(facts.low).toFixed(isError ? 0 : 1);
    get("legend-high").textContent = `${number(facts.high).toFixed(isError ? 3 : 1)}${isError ? " and more" : ""}${unit}`;
    kpac.maps.legend(get("legend-colors"), colors);
    get("legend").hidden = false;
    document.body.dataset.overlay = key;
  }

  function drawDivider() {
    const on = get("split").checked;
    const fraction = get("split-at").value / 100;
    get("divider").hidden = !on;
    get("divider").style.left = `${fraction * 100}%`;
    viewer.split(on ? { left: get("split-left").value, right: get("split-right").value, fraction } : null);
    if (on) {
      const [left, right] = ["split-left", "split-right"].map((id) => get(id).selectedOptions[0]?.textContent);
      get("shown").textContent = `${left} | ${right}`;
    } else if (scene && layers.length) show(shown);
  }

  function setBox(wanted) {
    const first = layers.find(({ image }) => image)?.image;
    box = wanted && first ? kpac.box.inside(wanted, first) : null;
    draw(false);
    get("box-result").hidden = !box;
    if (!box) return;
    for (const key of ["top", "left", "height", "width"]) get(`box-${key}`).value = box[key];
    viewer.mark(box);
    const results = index.sets[scene.set].results.filter((file, place) => file && scene.scores[place]);
    get("command").value = kpac.box.command(results, scene.name, box);
    drawStrip();
  }

  async function drawStrip() {
    const there = layers.filter(({ image }) => image);
    const scale = Number(get("magnify").value);
    kpac.box.strip(get("strip"), there.map(({ image }) => image), box, scale);
    const order = there.map(({ title }) => title).join(", ");
    get("strip").setAttribute("aria-label", `Crops of ${order}`);
    get("strip-order").textContent = `From the left: ${order}.`;
    const blob = await kpac.images.blobOf(get("strip"));
    URL.revokeObjectURL(get("save-strip").href);
    get("save-strip").href = URL.createObjectURL(blob);
    get("save-strip").download = fileName(`${scene.name} ${box.top},${box.left},${box.height},${box.width}.png`);
    document.body.dataset.strip = `${box.top},${box.left},${box.height},${box.width}`;
  }

  function draw(on) {
    get("drawing").hidden = !on;
    get("draw").setAttribute("aria-pressed", String(on));
  }

  const step = (places) => {
    const wanted = scene.number + places;
    if (wanted >= 1 && wanted <= count) location.hash = `scene=${wanted}`;
  };
  const toggle = (id) => { get(id).checked = !get(id).checked; get(id).dispatchEvent(new Event("change")); };
  const KEYS = {
    "[": () => show((shown + layers.length - 1) % layers.length),
    "]": () => show((shown + 1) % layers.length),
    p: () => step(-1),
    n: () => step(1),
    d: () => toggle("split"),
    e: () => {
      get("overlay").value = get("overlay").value === "error" ? "" : "error";
      get("overlay").dispatchEvent(new Event("change"));
    },
    b: () => draw(get("drawing").hidden),
    Escape: () => draw(false),
    s: () => get("save").click(),
    a: () => viewer.actualSize(),
    0: () => viewer.fit(),
    "+": () => viewer.zoomBy(1.5),
    "=": () => viewer.zoomBy(1.5),
    "-": () => viewer.zoomBy(1 / 1.5),
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || (typing && event.key !== "Escape")) return;
    const action = /^[1-9]$/.test(event.key) ? () => show(Number(event.key) - 1) : KEYS[event.key];
    if (!action || !scene) return;
    event.preventDefault();
    action();
  });
  // With Shift the mouse draws a box at once.
  get("viewer").addEventListener("pointerdown", (event) => {
    if (!event.shiftKey || !get("drawing").hidden) return;
    draw(true);
    event.stopPropagation();
    get("drawing").dispatchEvent(new PointerEvent("pointerdown", event));
  }, true);

  kpac.box.drawable(get("drawing"), viewer, () => layers.find(({ image }) => image).image, setBox);
  get("fit").addEventListener("click", KEYS[0]);
  get("actual").addEventListener("click", KEYS.a);
  get("zoom-in").addEventListener("click", KEYS["+"]);
  get("zoom-out").addEventListener("click", KEYS["-"]);
  get("draw").addEventListener("click", KEYS.b);
  for (const id of ["split", "split-left", "split-right"]) get(id).addEventListener("change", drawDivider);
  get("split-at").addEventListener("input", drawDivider);
  get("overlay").addEventListener("change", () => {
    get("overlay-opacity").value = get("overlay").value === "error" ? 100 : 65; // percent; below maps, the image stays visible
    drawOverlay();
  });
  get("overlay-opacity").addEventListener("input", () => viewer.overlayLayer?.setOpacity(get("overlay-opacity").value / 100));
  get("magnify").addEventListener("change", drawStrip);
  get("copy").addEventListener("click", () => { get("command").select(); navigator.clipboard?.writeText(get("command").value).catch(() => {}); });
  get("box-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setBox(Object.fromEntries(["top", "left", "height", "width"].map((key) => [key, Number(get(`box-${key}`).value)])));
  });

  function go() {
    const wanted = Number(new URLSearchParams(location.hash.slice(1)).get("scene") ?? 1);
    if (!(Number.isInteger(wanted) && wanted >= 1 && wanted <= count)) {
      kpac.problem(new Error(`There is no scene ${wanted}: expected 1 to ${count}`));
      return;
    }
    open(wanted).catch(kpac.problem);
  }
  addEventListener("hashchange", go);
  kpac.view = { viewer, layers: () => layers, shown: () => shown }; // for tests and the console
  go();
})().catch(kpac.problem);
