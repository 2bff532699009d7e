// What a reader may ask of the page. Everything shown is text from the data beside this script; nothing is fetched.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg", KEY = `rewardshape ${location.pathname}`;
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const minus = (text) => text.replace(/-/g, "\u2212");
  const show = (value, digits = 3) => (value === null || value === undefined || !Number.isFinite(value) ? "" :
    minus(String(Number(value.toPrecision(digits)))));
  const signed = (value, digits = 3) => (value === null ? "\u2013" : (value > 0 ? "+" : "") + minus(value.toFixed(digits)));
  const nats = (thousandths) => (thousandths === null || thousandths === undefined ? null : thousandths / 1000);
  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  }
  function draw(tag, attributes, parent) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return parent.appendChild(made);
  }
  // Where the reader is; kept over the page's own refreshing, by name and number: a run that goes on adds runs, steps and sections.
  const LIMIT = 100;  // rows of pairs at first
  const state = { setting: null, step: null, run: data.deepest, sort: "change", up: true, query: "", only: "all", open: null, token: null, limit: LIMIT, samples: false, top: 0, below: null, focus: null, details: [], portrait: null };
  const nearest = (values, wanted) => {
    let low = 0, high = values.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (values[middle] <= wanted) low = middle; else high = middle; }
    return Math.abs(values[high] - wanted) < Math.abs(values[low] - wanted) ? high : low;
  };
  try { Object.assign(state, JSON.parse(sessionStorage.getItem(KEY)) || {}); } catch { /* no storage: begin anew */ }
  if (typeof state.run === "string") state.run = data.runs.findIndex((run) => run.label === state.run);
  if (!(state.run >= 0)) state.run = data.deepest;
  if (state.setting !== null) state.setting = data.settings.includes(state.setting) ? data.settings.indexOf(state.setting) : null;
  if (state.step !== null) state.step = nearest(data.steps, state.step);
  const places = () => all("a[href], button, input, select, summary, [tabindex]");
  const called = (one) => (one && one !== document.body ? `${one.tagName} ${one.getAttribute("aria-label") ?? one.textContent.slice(0, 80)}` : null);
  const unfolded = () => all("details").filter((one) => one.open).map((one) => find("summary", one).textContent);
  const headingAbove = () => all("h2").filter((one) => one.getBoundingClientRect().top <= 0).pop();
  const save = () => {
    const heading = headingAbove(), last = state.step === null || state.step >= data.steps.length - 1;  // at the end: goes on with the run
    const place = {
      ...state, run: data.runs[state.run].label, setting: state.setting === null ? null : data.settings[state.setting], step: last ? null : data.steps[state.step],
      top: heading ? -heading.getBoundingClientRect().top : scrollY, below: heading?.textContent ?? null,
      focus: called(document.activeElement), details: unfolded(),
    };
    try { sessionStorage.setItem(KEY, JSON.stringify(place)); } catch { /* nothing */ }
  };
  addEventListener("pagehide", save);
  history.scrollRestoration = "manual";  // the browser's own would come after ours, by pixels
  // A page of a run that goes on reads itself again, but not while the reader types, drags or marks text.
  const every = 1000 * Number(document.documentElement.dataset.refresh || 0), opened = Date.now();
  let held = false;
  for (const [name, value] of [["pointerdown", true], ["pointerup", false], ["pointercancel", false]]) addEventListener(name, () => { held = value; });
  const busy = () => held || document.hidden || document.activeElement?.type === "search" || !getSelection().isCollapsed;
  if (every) setInterval(() => { if (Date.now() - opened >= every && !busy()) location.reload(); }, 500);
  const color = (line) => (line.setting === null ? `var(--${line.color})` : `var(--setting-${line.setting})`);
  const dimmed = (setting) => state.setting !== null && setting !== null && setting !== undefined && Number(setting) !== state.setting;

  // Charts: values under the pointer, a mark at the step of the slider
  const charts = all("figure[data-chart]").map((figure) => {
    const chart = { ...data.charts[Number(figure.dataset.chart)], figure }, [width, height] = chart.size;
    if (chart.kind === "still") return chart;
    const holder = make("div", { class: "chart" }), picture = find("svg", figure);
    picture.replaceWith(holder);
    holder.append(picture);
    chart.over = draw("svg", { class: "over", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, holder);
    chart.tip = make("div", { class: "tip", role: "status", hidden: true });
    holder.append(chart.tip);
    figure.tabIndex = 0;
    figure.setAttribute("aria-label", find("figcaption", figure).textContent);
    chart.toX = (x) => width * (chart.box[0] + (chart.box[2] - chart.box[0]) * (x - chart.x[0]) / (chart.x[1] - chart.x[0]));
    chart.toY = (y) => height * (chart.box[3] - (chart.box[3] - chart.box[1]) * (y - chart.y[0]) / (chart.y[1] - chart.y[0]));
    chart.rule = draw("path", { class: "rule" }, chart.over);
    chart.dots = draw("g", {}, chart.over);
    holder.addEventListener("pointermove", (event) => point(chart, event));
    holder.addEventListener("pointerdown", (event) => point(chart, event));
    holder.addEventListener("pointerleave", () => { chart.tip.hidden = true; mark(chart); });
    figure.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (move && slider) { event.preventDefault(); slider.value = Number(slider.value) + move; setStep(Number(slider.value)); explain(chart); }
    });
    figure.addEventListener("blur", () => { chart.tip.hidden = true; });
    return chart;
  });
  const shown = (chart) => chart.lines.filter((line) => !dimmed(line.setting));
  // Where a line has its value nearest to a step; nowhere beyond its ends.
  const placeAt = (steps, step) => (steps?.length && step >= steps[0] && step <= steps.at(-1) ? nearest(steps, step) : -1);
  const valueAt = (line, i, step) => (line.y[i] === null ? "\u2013" : show(line.y[i], 4)) + (line.x[i] === step ? "" : ` (step ${show(line.x[i], 6)})`);
  function point(chart, event) {
    const box = chart.over.getBoundingClientRect(), [width, height] = chart.size;
    const px = (event.clientX - box.left) * width / box.width, py = (event.clientY - box.top) * height / box.height;
    const share = (px / width - chart.box[0]) / (chart.box[2] - chart.box[0]);
    if (share < -0.03 || share > 1.03) { chart.tip.hidden = true; return; }
    if (chart.kind === "time") { tell(chart, chart.x[0] + share * (chart.x[1] - chart.x[0])); return; }
    let best = null;
    for (const line of shown(chart)) line.x.forEach((x, i) => {
      if (x === null || line.y[i] === null) return;
      const far = Math.hypot(chart.toX(x) - px, chart.toY(line.y[i]) - py);
      if (!best || far < best.far) best = { far, line, i };
    });
    if (!best) return;
    const { line, i } = best;
    tip(chart, chart.toX(line.x[i]), [line.steps ? `step ${line.steps[i]}` : "", `across ${show(line.x[i])}`], [[line, show(line.y[i])]]);
    dots(chart, [[line, i]]);
  }
  function tell(chart, x) {
    const lines = shown(chart).filter((line) => line.x.length), steps = lines.map((line) => line.x[nearest(line.x, x)]);
    if (!steps.length) { chart.tip.hidden = true; return; }
    const where = steps.reduce((best, step) => (Math.abs(step - x) < Math.abs(best - x) ? step : best));
    const at = lines.map((line) => [line, placeAt(line.x, where)]).filter(([, i]) => i >= 0);
    chart.rule.setAttribute("d", `M${chart.toX(where)} ${chart.size[1] * chart.box[1]}V${chart.size[1] * chart.box[3]}`);
    dots(chart, at);
    tip(chart, chart.toX(where), [`step ${show(where, 6)}`], at.map(([line, i]) => [line, valueAt(line, i, where)]));
  }
  // What a chart says at the step of the slider, for who asks by key.
  function explain(chart) {
    const step = data.steps[state.step];
    if (chart.kind === "time") { tell(chart, step); return; }
    const at = shown(chart).map((line) => [line, placeAt(line.steps, step)]).filter(([, i]) => i >= 0);
    if (!at.length) { chart.tip.hidden = true; return; }
    tip(chart, chart.toX(at[0][0].x[at[0][1]]), [`step ${step}`], at.map(([line, i]) =>
      [line, `${show(line.y[i])} across ${show(line.x[i])}${line.steps[i] === step ? "" : ` (step ${line.steps[i]})`}`]));
  }
  function dots(chart, places) {
    chart.dots.replaceChildren();
    for (const [line, i] of places) {
      if (line.y[i] === null) continue;
      draw("circle", { cx: chart.toX(line.x[i]), cy: chart.toY(line.y[i]), r: 2.6 }, chart.dots).style.fill = color(line);
    }
  }
  function tip(chart, x, head, rows) {
    chart.tip.replaceChildren(make("b", {}, head.filter(Boolean).join(", ")), ...rows.map(([line, value]) => {
      const swatch = make("i", { class: "swatch" });
      swatch.style.background = color(line);
      return make("div", {}, swatch, `${line.name} `, make("span", {}, value));
    }));
    chart.tip.hidden = false;
    const right = x > chart.size[0] * 0.55;
    chart.tip.style.left = right ? "auto" : `${100 * x / chart.size[0] + 3}%`;
    chart.tip.style.right = right ? `${100 - 100 * x / chart.size[0] + 3}%` : "auto";
  }
  function mark(chart) {
    if (chart.kind === "still" || state.step === null) { chart.rule?.setAttribute("d", ""); chart.dots?.replaceChildren(); return; }
    const step = data.steps[state.step];
    if (chart.kind === "time") {
      chart.rule.setAttribute("d", `M${chart.toX(step)} ${chart.size[1] * chart.box[1]}V${chart.size[1] * chart.box[3]}`);
      dots(chart, shown(chart).map((line) => [line, placeAt(line.x, step)]).filter(([, i]) => i >= 0));
    } else dots(chart, shown(chart).map((line) => [line, placeAt(line.steps, step)]).filter(([, i]) => i >= 0));
  }

  // Settings and steps: one choice for all panels
  let slider = null;
  const tools = find("#tools"), values = make("div", { class: "values" });
  if (data.settings.length > 1) {
    const group = make("div", { class: "chips", role: "group", "aria-label": "Settings: press one to see it alone" });
    data.settings.forEach((name, i) => {
      const swatch = make("i", { class: "swatch" });
      swatch.style.background = `var(--setting-${i})`;
      group.append(make("button", { type: "button", "data-chip": i, "aria-pressed": "false", onclick: () => isolate(i) }, swatch, name));
    });
    tools.append(group);
  }
  if (data.steps.length > 1) {
    slider = make("input", { type: "range", min: 0, max: data.steps.length - 1, step: 1, value: state.step ?? data.steps.length - 1,
      "aria-label": "Step", oninput: () => setStep(Number(slider.value)) });
    tools.append(make("label", { class: "slider" }, "step ", slider, make("output", { id: "step" }, String(data.steps[data.steps.length - 1]))));
    const more = make("details", {}, make("summary", {}, "Values at this step"), values);
    more.addEventListener("toggle", tabulate);
    tools.append(more);
  }
  function isolate(setting) {
    state.setting = state.setting === setting ? null : setting;
    if (state.setting !== null) {
      const of = data.runs.findIndex((run) => run.setting === state.setting);
      if (data.runs[state.run].setting !== state.setting && of >= 0) state.run = of;
    }
    refresh();
  }
  function setStep(place) {
    state.step = Math.max(0, Math.min(data.steps.length - 1, place));
    find("#step").textContent = data.steps[state.step];
    slider.setAttribute("aria-valuetext", `step ${data.steps[state.step]}`);
    charts.forEach(mark);
    tabulate();
    fill();
  }
  function tabulate() {
    if (!slider || !values.parentElement.open) return;
    const step = data.steps[state.step ?? data.steps.length - 1], timed = charts.filter((chart) => chart.kind === "time");
    const key = (line) => `${line.setting} ${line.name}`, names = new Map(timed.flatMap((chart) => shown(chart).map((line) => [key(line), line.name])));
    const table = make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, `step ${step}`), ...timed.map((chart) => make("th", { scope: "col" }, chart.name)))));
    table.append(make("tbody", {}, ...[...names].map(([same, name]) => make("tr", {}, make("th", { scope: "row" }, name), ...timed.map((chart) => {
      const line = chart.lines.find((one) => key(one) === same), i = placeAt(line?.x, step);
      return make("td", { "data-label": chart.name }, i >= 0 ? valueAt(line, i, step) : "");
    })))));
    values.replaceChildren(table);
  }
  function refresh() {
    document.documentElement.classList.toggle("alone", state.setting !== null);
    for (const group of all("[data-setting]")) group.classList.toggle("dim", dimmed(group.dataset.setting));
    for (const chip of all("[data-chip]")) chip.setAttribute("aria-pressed", String(Number(chip.dataset.chip) === state.setting));
    charts.forEach(mark);
    tabulate();
    if (picker) picker.value = state.run;
    fill();
    speak();
  }

  // All pairs: sort, filter, search, open
  const pairs = data.pairs, place = find("#pairs");
  let picker = null, body = null, count = null;
  const COLUMNS = [["id", "pair"], ["change", "chosen"], ["rejected", "rejected"], ["margin", "gap"], ["chosen_tokens", "tokens"], ["similarity", "similarity"]]
    .filter(([name]) => !["chosen_tokens", "similarity"].includes(name) || pairs.facts[name]);
  const measuredAt = (run) => { const { steps } = pairs.runs[run]; return steps[nearest(steps, state.step === null ? steps.at(-1) : data.steps[state.step])]; };
  function rowsOf(run) {
    const of = pairs.runs[run];
    if (!of.steps.length) return [];
    const k = of.steps.indexOf(measuredAt(run));
    return of.pairs.map((pair, i) => {
      const change = nats(of.chosen[i][k]), rejected = nats(of.rejected[i][k]);
      return { pair, i, id: pairs.ids[pair], change, rejected, margin: change === null || rejected === null ? null : change - rejected,
        chosen_tokens: pairs.facts.chosen_tokens?.[pair] ?? null, similarity: pairs.facts.similarity?.[pair] ?? null };
    });
  }
  const words = (pair) => { const text = pairs.texts[pair]; return text ? `${text.prompt} ${text.chosen.join("")} ${text.rejected.join("")}` : ""; };
  const kinds = { all: () => true, fell: (row) => row.change < 0, rose: (row) => row.change > 0, shrank: (row) => row.margin < 0 };  // null is neither
  function build() {
    if (!place || !pairs.ids.length) return;
    const search = make("input", { type: "search", placeholder: "search texts", "aria-label": "Search the texts of the pairs", value: state.query,
      oninput: (event) => { state.query = event.target.value; state.limit = LIMIT; fill(); } });
    const only = make("select", { "aria-label": "Which pairs", onchange: (event) => { state.only = event.target.value; state.limit = LIMIT; fill(); } },
      ...[["all", "all pairs"], ["fell", "chosen fell"], ["rose", "chosen rose"], ["shrank", "gap shrank"]].map(([value, text]) => make("option", { value, selected: state.only === value }, text)));
    picker = make("select", { "aria-label": "Run", onchange: (event) => { state.run = Number(event.target.value); fill(); speak(); } },
      ...data.runs.map((run, i) => make("option", { value: i, selected: i === state.run }, run.label)));
    count = make("span", { class: "quiet", role: "status" });
    body = make("tbody");
    const head = make("tr", {}, ...COLUMNS.map(([name, text]) => make("th", { scope: "col", "data-column": name }, make("button", { type: "button",
      onclick: () => { state.up = state.sort === name ? !state.up : true; state.sort = name; fill(); } }, text))));
    place.append(make("div", { class: "filters" }, ...(data.runs.length > 1 ? [make("label", {}, "run ", picker)] : []), only, search, count),
      make("table", { class: "all" }, make("thead", {}, head), body));
    place.hidden = false;
  }
  function fill() {
    if (!body) return;
    const query = state.query.trim().toLowerCase();
    const rows = rowsOf(state.run).filter((row) => kinds[state.only](row) && (!query || row.id.toLowerCase().includes(query) || words(row.pair).toLowerCase().includes(query)));
    const way = state.up ? 1 : -1;
    rows.sort((a, b) => way * (state.sort === "id" ? a.id.localeCompare(b.id, undefined, { numeric: true }) : (a[state.sort] ?? Infinity) - (b[state.sort] ?? Infinity)) || a.pair - b.pair);
    for (const head of all("[data-column]", place)) head.setAttribute("aria-sort", head.dataset.column !== state.sort ? "none" : state.up ? "ascending" : "descending");
    const until = pairs.runs[state.run].steps.length ? ` to step ${measuredAt(state.run)}` : "";
    count.textContent = `${rows.length} of ${pairs.ids.length} pairs, change from step 0${until} in nats per token`;
    body.replaceChildren(...rows.slice(0, state.limit).flatMap((row) => {
      const open = state.open === row.pair;
      const button = make("button", { type: "button", "aria-expanded": String(open), onclick: () => { state.open = open ? null : row.pair; state.token = null; fill(); find(`[data-pair="${row.pair}"] button`, body)?.focus(); } }, make("bdi", {}, row.id));
      const cell = (text, label, kind = "") => make("td", { "data-label": label, class: kind }, text);
      const line = make("tr", { "data-pair": row.pair }, make("td", {}, button), ...COLUMNS.slice(1).map(([name, text]) =>
        cell(["change", "rejected", "margin"].includes(name) ? signed(row[name]) : show(row[name]), text)));
      return open ? [line, make("tr", { class: "open" }, make("td", { colspan: COLUMNS.length }, detail(row)))] : [line];
    }));
    if (rows.length > state.limit) body.append(make("tr", {}, make("td", { colspan: COLUMNS.length }, make("button", { type: "button", onclick: () => { state.limit += 400; fill(); } }, `show more of the ${rows.length}`))));
  }
  function detail(row) {
    const text = pairs.texts[row.pair], holder = make("div", { class: "detail" });
    if (text) {
      if (text.prompt) holder.append(make("p", { class: "text prompt" }, text.prompt));
      const now = pairs.tokens[state.run]?.[row.pair], then = pairs.own_start[state.run]?.[row.pair] ?? pairs.start[row.pair];
      ["chosen", "rejected"].forEach((name, k) => holder.append(response(name, text[name], text.more[name], then && now?.[k], then?.[k])));
    } else holder.append(make("p", { class: "quiet" }, "The texts of this pair are not on the page: they were not kept, or would have made it too large."));
    holder.append(course(row));
    const gained = pairs.gained?.[state.run]?.[row.pair];
    if (gained) holder.append(make("p", { class: "quiet" }, "At the positions of the chosen response most was gained by ", ...gained.flatMap(([token, change], i) =>
      [i ? ", " : "", make("b", {}, `\u201c${token}\u201d`), ` ${signed(change)}`]), " (probability, summed over positions)."));
    const pushed = pairs.pushed?.[state.run]?.[row.pair];
    if (pushed) holder.append(make("h4", {}, "Pushed down most by these training pairs"), ...pushed.map(([pusher, change]) => {
      const { id, text } = pairs.pushers[pusher], said = [make("bdi", {}, id), ` ${signed(change, 4)}`];
      return text ? make("details", { class: "pusher" }, make("summary", {}, ...said), make("p", { class: "text prompt" }, text.prompt),
        ...["chosen", "rejected"].flatMap((name) => [make("h4", { class: name }, name), make("p", { class: "text" }, text[name])])) : make("p", { class: "quiet" }, ...said);
    }), make("p", { class: "quiet" }, "By first order, nats per token of this pair\u2019s chosen log-prob, summed over their visits."));
    const geometry = data.geometry?.[state.run]?.[row.pair];
    if (geometry) holder.append(make("p", { class: "quiet" }, `At the first step measured: overlap b/a ${show(geometry[0])}, weight of chosen over that of rejected ${show(geometry[1])}: a plain gradient step on this pair alone ${geometry[2] ? "lowers" : "raises"} its chosen response. Training steps on batches, and by Adam, may do otherwise.`));
    return holder;
  }
  function response(name, tokens, more, now, then) {
    const section = make("div", {}, make("h4", { class: name }, name));
    const said = make("p", { class: "said", role: "status" }, now ? "Choose a token (arrow keys, or touch) for its log-prob now and before." : "");
    const scale = data.scale || 1, change = (i) => (now[i] === null || then[i] === null ? 0 : nats(now[i] - then[i]));
    const line = make("p", { class: "text tokens", tabindex: now ? 0 : null, "aria-label": `${name} response, token by token` });
    let at = -1;
    const items = tokens.map((token, i) => {
      const level = now && i < now.length ? Math.min(4, Math.floor(4 * Math.abs(change(i)) / scale)) : 0;
      return make("b", { class: level ? `${change(i) < 0 ? "f" : "r"}${level}` : null, onclick: () => pick(i) }, token);
    });
    function pick(i) {
      if (!now || i < 0 || i >= Math.min(tokens.length, now.length)) return;
      items[at]?.classList.remove("at");
      at = i;
      items[i].classList.add("at");
      state.token = [name, i];
      const [a, b] = [nats(then[i]), nats(now[i])], told = (one, when) => (one === null ? `no number ${when}` : `${minus(one.toFixed(2))}${when === "now" ? " nats" : ""} ${when} (p = ${show(Math.exp(one))})`);
      said.textContent = `\u201c${tokens[i]}\u201d: ${told(b, "now")}, ${told(a, "before")}: ${signed(a === null || b === null ? null : b - a, 2)}`;
    }
    line.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (move) { event.preventDefault(); pick(at + move); }
    });
    line.append(...items);
    if (more) line.append(make("span", { class: "quiet" }, ` \u2026 and ${more} more tokens`));
    section.append(line, said);
    if (state.token?.[0] === name) pick(state.token[1]);
    return section;
  }
  function course(row) {
    // The pair's chosen (solid) and rejected (dashed) response in every run that holds it.
    const lines = pairs.runs.flatMap((of, run) => {
      const i = of.pairs.indexOf(row.pair);
      return i < 0 || dimmed(data.runs[run].setting) ? [] : [["chosen", of.chosen[i]], ["rejected", of.rejected[i]]].map(([name, values]) =>
        ({ name, run, points: values.map((v, k) => [of.steps[k], nats(v)]).filter(([, v]) => v !== null) }));
    }).filter((line) => line.points.length);
    const levels = lines.flatMap((line) => line.points.map(([, v]) => v));
    const WIDTH = 420, HEIGHT = 150, LEFT = 46, last = Math.max(...lines.map((line) => line.points.at(-1)[0]), 1);
    const low = Math.min(0, ...levels), high = Math.max(0, ...levels), span = high - low || 1;
    const figure = make("figure", { class: "course" }), svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "Change of this pair's responses over the steps" }, figure);
    const x = (step) => LEFT + (WIDTH - LEFT - 6) * step / last, y = (value) => 6 + (HEIGHT - 28) * (high - value) / span;
    draw("path", { class: "zero", d: `M${LEFT} ${y(0)}H${WIDTH - 6}` }, svg);
    for (const value of new Set([low, 0, high])) if (value === 0 || Math.abs(value) > 0.1 * span) draw("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, svg).textContent = minus(value.toFixed(2));
    for (const step of [0, last]) draw("text", { x: x(step), y: HEIGHT - 6, "text-anchor": step ? "end" : "start" }, svg).textContent = step ? `step ${step}` : "0";
    for (const line of lines) {
      const path = draw("path", { class: line.name, d: line.points.map(([step, v], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(v).toFixed(1)}`).join("") }, svg);
      if (data.settings.length > 1) path.style.stroke = `var(--setting-${data.runs[line.run].setting})`;
      draw("title", {}, path).textContent = `${data.runs[line.run].label}, ${line.name}`;
    }
    figure.append(make("figcaption", {}, data.runs.length > 1 ? "This pair in every setting: chosen solid, rejected dashed (nats per token since step 0)." : "This pair: chosen solid, rejected dashed (nats per token since step 0)."));
    return figure;
  }

  // Samples, then and now
  const samples = find("#samples");
  function speak() {
    if (!samples || !data.samples.prompts.length) return;
    const of = data.samples.runs[state.run];
    samples.replaceChildren();
    if (!of) { samples.append(make("p", { class: "quiet" }, `No samples were drawn in ${data.runs[state.run].label}.`)); return; }
    samples.append(make("p", { class: "quiet" }, `${data.runs[state.run].label}: one answer to each prompt at step ${of.steps.join(" and at step ")}.`));
    const side = (sample, step) => make("div", {}, make("h4", {}, `step ${step}${sample?.gold ? `, gold ${sample.gold}` : ""}${sample?.cut ? ", cut off" : ""}`), make("p", { class: "text" }, sample ? sample.text : "none"));
    const prompts = state.samples ? data.samples.prompts : data.samples.prompts.slice(0, 3);
    prompts.forEach((prompt, i) => samples.append(make("article", { class: "sample" }, make("h3", {}, make("bdi", {}, prompt)),
      ...(data.samples.asked[i] ? [make("p", { class: "text prompt" }, data.samples.asked[i])] : []),
      make("div", { class: "sides" }, ...of.steps.map((step, k) => side(of.texts[i][k], step))))));
    if (prompts.length < data.samples.prompts.length) samples.append(make("button", { type: "button", onclick: () => { state.samples = true; speak(); } }, `show all ${data.samples.prompts.length} answers`));
  }

  document.documentElement.classList.add("js");
  build();
  const portrait = find("#portrait");
  if (portrait && data.portrait) {
    portrait.hidden = false;
    state.portrait = phasePortrait(find(".stage", portrait), { ...data.portrait.start, ...state.portrait }, data.portrait.paths);
  }
  if (state.step !== null && slider) setStep(state.step);
  refresh();
  for (const one of all("details")) one.open = state.details.includes(find("summary", one).textContent);
  tabulate();
  if (state.focus) places().find((one) => called(one) === state.focus)?.focus({ preventScroll: true });
  const above = all("h2").find((one) => one.textContent === state.below);
  if (state.top) scrollTo(0, state.top + (above ? scrollY + above.getBoundingClientRect().top : 0));
})();
