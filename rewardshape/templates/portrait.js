// The phase portrait of one pair: where its two log-probs go under the AlphaPO loss, for any α, β, γ and gradient overlap.
// ds_w = w_w·a − w_l·b, ds_l = w_w·b − w_l·c, with w = β σ(−z) e^(−αs) and z = β(φ(s_w) − φ(s_l)) − γ; a is 1.
function phasePortrait(root, start, paths) {
  const SVG = "http://www.w3.org/2000/svg", SIZE = 360, PAD = 44, LOW = start.low;
  const state = { alpha: start.alpha, beta: start.beta, gamma: start.gamma, b: start.b, c: start.c, w: start.w, l: start.l };
  const shape = (s, alpha) => (Math.abs(alpha) < 1e-9 ? s : -Math.expm1(-alpha * s) / alpha);
  const margin = (w, l) => state.beta * (shape(w, state.alpha) - shape(l, state.alpha)) - state.gamma;
  function flow(w, l) {
    const pull = 1 / (1 + Math.exp(Math.min(margin(w, l), 700)));
    const up = pull * Math.exp(-state.alpha * w), down = pull * Math.exp(-state.alpha * l);
    return [up - down * state.b, up * state.b - down * state.c];
  }
  function path(w, l) {
    // Along the line at equal lengths (second-order midpoint steps), until the margin is met or a log-prob reaches 0.
    const points = [[w, l]], length = 0.01;
    for (let i = 0; i < 1500 && margin(w, l) < 0 && w < -0.01 && l < -0.01 && l > 3 * LOW && w > 3 * LOW; i++) {
      const step = (x, y, size) => { const [u, v] = flow(x, y), n = Math.hypot(u, v) || 1; return [size * u / n, size * v / n]; };
      const half = step(w, l, length / 2), whole = step(w + half[0], l + half[1], length);
      w += whole[0]; l += whole[1];
      points.push([w, l]);
    }
    return points;
  }
  const toX = (s) => PAD + (SIZE - PAD - 8) * (1 - s / LOW), toY = (s) => 8 + (SIZE - PAD - 8) * (s / LOW);
  const fromX = (x) => LOW * (1 - (x - PAD) / (SIZE - PAD - 8)), fromY = (y) => LOW * (y - 8) / (SIZE - PAD - 8);
  const clamp = (s) => Math.min(-0.02, Math.max(LOW, s));
  const minus = (v, digits) => v.toFixed(digits).replace("-", "\u2212");
  function draw(tag, attributes, parent) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return parent.appendChild(made);
  }
  const svg = draw("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, class: "portrait", tabindex: 0, role: "application",
    "aria-label": "Phase portrait. Arrow keys move the start of the path." }, root);
  const field = draw("g", { class: "field" }, svg), axes = draw("g", { class: "axes" }, svg);
  const level = draw("path", { class: "level" }, svg), measured = draw("g", {}, svg);
  const line = draw("path", { class: "line" }, svg), end = draw("circle", { class: "end", r: 4 }, svg);
  const knob = draw("circle", { class: "knob", r: 8 }, svg);
  for (let s = 0; s >= LOW; s -= LOW < -5 ? 2 : 1) {
    draw("text", { x: toX(s), y: SIZE - 28, "text-anchor": "middle" }, axes).textContent = minus(s, 0);
    draw("text", { x: PAD - 6, y: toY(s) + 4, "text-anchor": "end" }, axes).textContent = minus(s, 0);
  }
  draw("text", { x: (SIZE + PAD) / 2, y: SIZE - 8, "text-anchor": "middle" }, axes).textContent = "chosen (nats per token)";
  draw("text", { x: 12, y: SIZE / 2 - 16, "text-anchor": "middle", transform: `rotate(-90 12 ${SIZE / 2 - 16})` }, axes)
    .textContent = "rejected (nats per token)";
  draw("path", { class: "frame", d: `M${toX(LOW)} ${toY(0)}V${toY(LOW)}H${toX(0)}` }, axes);
  draw("path", { class: "diagonal", d: `M${toX(LOW)} ${toY(LOW)}L${toX(0)} ${toY(0)}` }, axes);
  for (const one of paths) {
    const d = one.points.map(([w, l], i) => `${i ? "L" : "M"}${toX(w).toFixed(1)} ${toY(l).toFixed(1)}`).join("");
    const drawn = draw("path", { class: "measured", d, "data-setting": one.setting }, measured);
    drawn.style.stroke = `var(--setting-${one.setting})`;
    draw("title", {}, drawn).textContent = one.name;
  }
  const said = document.createElement("p");
  said.className = "said"; said.setAttribute("aria-live", "polite");
  const controls = document.createElement("div");
  controls.className = "controls";
  for (const [name, label, low, high] of [["alpha", "α", -2, 2], ["beta", "β", 0.1, 10], ["gamma", "γ", 0, 5],
    ["b", "overlap b/a", -1, 2], ["c", "rejected c/a", 0.2, 4]]) {
    const row = document.createElement("label"), input = document.createElement("input"), value = document.createElement("output");
    Object.assign(input, { type: "range", min: low, max: high, step: 0.05, value: state[name] });
    value.textContent = minus(state[name], 2);
    input.addEventListener("input", () => { state[name] = Number(input.value); value.textContent = minus(state[name], 2); show(); });
    row.append(label, input, value);
    controls.append(row);
  }
  root.append(controls, said);
  function show() {
    field.replaceChildren();
    for (let i = 1; i < 12; i++) for (let k = 1; k < 12; k++) {
      const w = LOW * i / 12, l = LOW * k / 12, [u, v] = flow(w, l), n = Math.hypot(u, v);
      if (!(n > 0)) continue;
      const size = Math.min(11, 4 + 7 * n ** 0.25), x = toX(w), y = toY(l), dx = size * u / n, dy = -size * v / n;
      draw("path", { d: `M${x} ${y}l${dx} ${dy}l${-0.35 * dx - 0.2 * dy} ${-0.35 * dy + 0.2 * dx}m${0.35 * dx + 0.2 * dy} ${0.35 * dy - 0.2 * dx}l${-0.35 * dx + 0.2 * dy} ${-0.35 * dy - 0.2 * dx}` }, field);
    }
    let d = "";
    for (let w = LOW; w < -0.01; w += -LOW / 150) {  // the margin is met where φ(s_l) = φ(s_w) − γ/β
      const reward = shape(w, state.alpha) - state.gamma / state.beta, inner = 1 - state.alpha * reward;
      const l = Math.abs(state.alpha) < 1e-9 ? reward : inner > 0 ? -Math.log(inner) / state.alpha : NaN;
      d += l > LOW && l < 0 ? `${d && !d.endsWith(" ") ? "L" : "M"}${toX(w).toFixed(1)} ${toY(l).toFixed(1)}` : "";
    }
    level.setAttribute("d", d);
    const points = path(state.w, state.l), last = points[points.length - 1];
    line.setAttribute("d", points.filter(([w, l]) => w >= LOW && l >= LOW)
      .map(([w, l], i) => `${i ? "L" : "M"}${toX(w).toFixed(1)} ${toY(l).toFixed(1)}`).join(""));
    knob.setAttribute("cx", toX(state.w)); knob.setAttribute("cy", toY(state.l));
    end.setAttribute("cx", toX(clamp(last[0]))); end.setAttribute("cy", toY(clamp(last[1])));
    const moved = last[0] - state.w, met = margin(...last) >= -1e-6;
    said.textContent = `From ${minus(state.w, 2)} and ${minus(state.l, 2)}: the chosen response ${moved < 0 ? "falls" : "rises"} by ` +
      `${Math.abs(moved).toFixed(2)} nats per token ${met ? "until the margin is met" : "and the margin is not met within this picture"}. ` +
      `At the start the chosen response is pulled ${Math.exp(-state.alpha * (state.w - state.l)).toFixed(2)} times as hard as the rejected one ` +
      `is pushed, against an overlap b/a of ${minus(state.b, 2)}.`;
  }
  function place(event) {
    const box = svg.getBoundingClientRect();
    state.w = clamp(fromX((event.clientX - box.left) * SIZE / box.width));
    state.l = clamp(fromY((event.clientY - box.top) * SIZE / box.height));
    show();
  }
  svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); place(event); });
  svg.addEventListener("pointermove", (event) => { if (svg.hasPointerCapture(event.pointerId)) place(event); });
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!move) return;
    event.preventDefault();
    state.w = clamp(state.w + 0.05 * move[0]); state.l = clamp(state.l + 0.05 * move[1]);
    show();
  });
  show();
  return state;
}
