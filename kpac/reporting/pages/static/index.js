"use strict";

// The table of scenes: sorting by any column, filters, and rows added on scrolling.
(async () => {
  const { element, number, text, gain } = kpac;
  const CHUNK = 60; // rows that are added at a time
  const index = await kpac.load("data/index");
  const { methods, metrics, scenes, sets } = index;
  scenes.forEach((scene, place) => { scene.number = place + 1; });

  const GAIN = { key: "gain", title: "gain [dB]", digits: 2, better: "higher" };
  const groups = [...new Set(scenes.map((scene) => scene.group).filter(Boolean))];
  const shownMetrics = new Set([...metrics.map((metric) => metric.key), "gain"]);
  let order = { key: "number", down: false };
  let rows = scenes;
  let made = 0;

  const head = document.querySelector("#scene-table thead");
  const body = document.querySelector("#scene-table tbody");
  const filters = {
    name: document.getElementById("filter-name"),
    group: document.getElementById("filter-group"),
    set: document.getElementById("filter-set"),
  };

  function columns() {
    const shown = metrics.filter((metric) => shownMetrics.has(metric.key));
    const column = (over, metric, value) => ({ over, metric, value, key: `${over}/${metric.key}` });
    const all = shown.map((metric) => column("input", metric, (scene) => number(scene.input[metric.key])));
    methods.forEach((label, place) => {
      for (const metric of shown) {
        all.push({ ...column(label, metric, (scene) => number(scene.scores[place]?.[metric.key])), method: place });
      }
      if (metrics.some((metric) => metric.key === "psnr") && shownMetrics.has("gain")) {
        all.push({ ...column(label, GAIN, (scene) => gain(scene.scores[place], scene.input)), method: place });
      }
    });
    return all;
  }

  function sorted(list) {
    const column = columns().find((one) => one.key === order.key);
    const value = column ? column.value : (scene) => scene[order.key];
    const direction = order.down ? -1 : 1;
    const compare = (a, b) => {
      const [first, second] = [value(a), value(b)];
      if (typeof first === "string") return direction * first.localeCompare(second, undefined, { numeric: true });
      // Scenes without a value come last in either order.
      if (Number.isNaN(first) || Number.isNaN(second)) return Number.isNaN(first) - Number.isNaN(second);
      return first === second ? 0 : direction * (first < second ? -1 : 1);
    };
    return [...list].sort((a, b) => compare(a, b) || a.number - b.number);
  }

  function heading(title, key, first = false) {
    const active = order.key === key;
    const arrow = active ? (order.down ? " ▾" : " ▴") : "";
    const button = element("button", { type: "button", click: () => sortBy(key) }, title + arrow);
    const sort = active ? (order.down ? "descending" : "ascending") : "none";
    return element("th", { scope: "col", "aria-sort": sort, class: first ? "first" : null }, button);
  }

  function drawHead() {
    const all = columns();
    const over = [];
    for (const column of all) {
      if (over.length && over.at(-1).title === column.over) over.at(-1).count += 1;
      else over.push({ title: column.over, count: 1 });
    }
    const upper = element("tr", {}, element("th", { colspan: groups.length ? 2 : 1 }, ""));
    upper.append(...over.map(({ title, count }) => element("th", { colspan: count, scope: "colgroup", class: "first" }, title)));
    const lower = element("tr", {}, heading("scene", "name"));
    if (groups.length) lower.append(heading("group", "group"));
    let last = "";
    for (const column of all) {
      lower.append(heading(column.metric.title, column.key, column.over !== last));
      last = column.over;
    }
    head.replaceChildren(upper, lower);
  }

  function row(scene) {
    const all = columns();
    const link = element("a", { href: `scene.html#scene=${scene.number}` });
    const image = element("img", { src: `thumbnails/${scene.number}.webp`, alt: "", loading: "lazy", width: 80, height: 54 });
    image.addEventListener("error", () => { image.style.visibility = "hidden"; });
    const set = sets.length > 1 ? ` (${sets[scene.set].title})` : "";
    link.append(image, scene.name + set);
    const line = element("tr", {}, element("th", { scope: "row" }, link));
    if (groups.length) line.append(element("td", {}, scene.group || ""));
    let last = "";
    for (const column of all) {
      const value = column.value(scene);
      const { metric } = column;
      const isGain = metric === GAIN;
      const cell = element("td", {}, text(value, metric.digits, isGain));
      if (column.over !== last) cell.classList.add("first");
      if (isGain && value < 0) cell.classList.add("loss");
      if (isGain && value > 0) cell.classList.add("win");
      if (column.method !== undefined && methods.length > 1 && isBest(scene, metric, value)) cell.classList.add("best");
      last = column.over;
      line.append(cell);
    }
    return line;
  }

  function isBest(scene, metric, value) {
    const of = (scores) => (metric === GAIN ? gain(scores, scene.input) : number(scores?.[metric.key]));
    const values = scene.scores.map(of).filter((one) => !Number.isNaN(one));
    const best = metric.better === "higher" ? Math.max(...values) : Math.min(...values);
    return values.length > 1 && value === best;
  }

  function more() {
    const next = rows.slice(made, made + CHUNK);
    made += next.length;
    body.append(...next.map(row));
  }

  function draw() {
    const wanted = filters.name.value.trim().toLowerCase();
    rows = sorted(scenes.filter((scene) =>
      scene.name.toLowerCase().includes(wanted) &&
      (!filters.group.value || scene.group === filters.group.value) &&
      (!filters.set.value || scene.set === Number(filters.set.value))));
    made = 0;
    body.replaceChildren();
    drawHead();
    more();
    const count = rows.length === scenes.length ? `${rows.length}` : `${rows.length} of ${scenes.length}`;
    document.getElementById("count").textContent = `${count} scenes`;
  }

  function sortBy(key) {
    order = { key, down: order.key === key ? !order.down : key !== "name" && key !== "group" };
    draw();
    const place = [...head.querySelectorAll("th[aria-sort]")].find((th) => th.getAttribute("aria-sort") !== "none");
    place?.querySelector("button").focus();
  }

  function choices(select, label, options) {
    select.append(element("option", { value: "" }, "all"));
    select.append(...options.map(([value, title]) => element("option", { value }, title)));
    label.hidden = options.length < 2;
  }

  choices(filters.group, document.getElementById("filter-group-label"), groups.map((group) => [group, group]));
  choices(filters.set, document.getElementById("filter-set-label"), sets.map((set, place) => [String(place), set.title]));
  for (const metric of [...metrics, GAIN]) {
    const box = element("input", { type: "checkbox", checked: true, change: () => {
      box.checked ? shownMetrics.add(metric.key) : shownMetrics.delete(metric.key);
      draw();
    } });
    document.getElementById("columns").append(element("label", {}, box, ` ${metric.title}`));
  }
  for (const input of Object.values(filters)) input.addEventListener("input", draw);
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  const scroller = document.querySelector(".scroll.scenes");
  scroller.addEventListener("scroll", () => {
    if (scroller.scrollTop + scroller.clientHeight > scroller.scrollHeight - 800) more();
  });
  draw();
  document.body.dataset.ready = "yes";
})().catch(kpac.problem);
