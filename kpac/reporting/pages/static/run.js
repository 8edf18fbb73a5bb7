"use strict";

// The page of training runs; reloads its data during a training.
(() => {
  const { element, text } = kpac;
  const get = (id) => document.getElementById(id);
  let data = null;
  let drawn = []; // charts
  let followsLast = true; // the slider stays at the newest validation until it is moved

  const TITLES = { loss: "loss", learning_rate: "learning rate", images_per_second: "images/s", data_wait: "share of time spent waiting for data", gradient_norm: "norm of the gradient" };

  function title(column) {
    const [kind, name] = [column.split("/")[0], column.split("/").slice(1).join("/")];
    const shown = data.titles[name]?.title ?? TITLES[name] ?? name.replaceAll("_", " ");
    return kind === "val" ? `validation: ${shown}` : shown;
  }

  function columns() {
    const all = [...new Set(data.runs.flatMap((run) => Object.keys(run.columns)))].filter((name) => name.includes("/"));
    const rank = (name) => (name.startsWith("val/") ? 1 : name === "train/loss" ? 0 : 2);
    return all.sort((a, b) => rank(a) - rank(b));
  }

  function drawCharts() {
    for (const chart of drawn) chart.destroy();
    drawn = [];
    const parts = columns().map((name) => {
      const place = element("div", {});
      return { name, place, box: element("div", { class: "chart" }, element("h3", {}, title(name)), place) };
    });
    const isMain = ({ name }) => name === "train/loss" || name.startsWith("val/");
    get("charts").replaceChildren(...parts.filter(isMain).map(({ box }) => box));
    get("more-charts").replaceChildren(...parts.filter((part) => !isMain(part)).map(({ box }) => box));
    for (const { name, place } of parts) {
      const curves = data.runs.filter((run) => run.columns[name]).map((run) => ({ label: run.name, x: run.columns[name.split("/")[0]], y: run.columns[name] }));
      const positive = curves.every(({ y }) => y.every((value) => value === null || value > 0));
      drawn.push(kpac.charts.chart(place, title(name), curves, get("logarithmic").checked && name.includes("loss") && positive));
    }
  }

  function drawState() {
    const parts = data.runs.map((run) => `${data.runs.length > 1 ? `${run.name}: ` : ""}iteration ${run.done}${run.planned ? ` of ${run.planned}` : ""}`);
    get("state").textContent = parts.join(", ") + (data.refresh ? `; reloaded every ${data.refresh} s` : "");
  }

  function tags() {
    return [...new Set(data.runs.flatMap((run) => run.pictures.map(({ tag }) => tag)))];
  }

  function steps() {
    const of = data.runs.flatMap((run) => run.pictures.filter(({ tag }) => tag === get("tag").value).flatMap((one) => one.steps));
    return [...new Set(of.map(([step]) => step))].sort((a, b) => a - b);
  }

  function drawTags() {
    const all = tags();
    get("pictures-section").hidden = !all.length;
    const chosen = get("tag").value;
    get("tag").replaceChildren(...all.map((tag) => element("option", { value: tag, selected: tag === chosen }, tag)));
    drawPictures();
  }

  function drawPictures() {
    const all = steps();
    const slider = get("step");
    slider.max = Math.max(0, all.length - 1);
    slider.disabled = all.length < 2;
    if (followsLast) slider.value = slider.max;
    const step = all[Number(slider.value)];
    get("step-text").textContent = step === undefined ? "" : `iteration ${step}`;
    const tag = get("tag").value;
    const what = tag.startsWith("val/") ? "input, output and target" : "weights of the branches, smallest dilation first";
    const figures = data.runs.flatMap((run) => {
      const file = run.pictures.find((one) => one.tag === tag)?.steps.find(([at]) => at === step)?.[1];
      if (!file) return [];
      const image = element("img", { src: file, alt: `${tag} of ${run.name} at iteration ${step}: ${what}` });
      return [element("figure", {}, image, element("figcaption", {}, `${run.name}, iteration ${step}: ${what}`))];
    });
    get("pictures").replaceChildren(...figures);
  }

  function drawLast() {
    const names = columns().filter((name) => name.startsWith("val/"));
    get("last").tHead.replaceChildren(element("tr", {}, ...["run", "iteration", ...names.map(title)].map((one) => element("th", { scope: "col" }, one))));
    get("last").tBodies[0].replaceChildren(...data.runs.map((run) => {
      const cells = names.map((name) => text(run.columns[name]?.at(-1), data.titles[name.slice(4)]?.digits ?? 4));
      return element("tr", {}, element("th", { scope: "row" }, run.name), ...[String(run.columns.val?.at(-1) ?? "-"), ...cells].map((one) => element("td", {}, one)));
    }));
  }

  async function draw(fresh) {
    data = await kpac.load("data/runs", fresh);
    drawState();
    drawCharts();
    drawTags();
    drawLast();
    document.body.dataset.ready = String(data.runs.map((run) => run.done));
    if (data.refresh) setTimeout(() => draw(true).catch(kpac.problem), 1000 * data.refresh);
  }

  get("logarithmic").addEventListener("change", drawCharts);
  get("tag").addEventListener("change", drawPictures);
  get("step").addEventListener("input", () => { followsLast = get("step").value === get("step").max; drawPictures(); });
  addEventListener("resize", () => drawn.forEach((chart) => chart.setSize({ width: chart.root.parentElement.clientWidth, height: kpac.charts.HEIGHT })));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => data && drawCharts());
  draw(false).catch(kpac.problem);
})();
