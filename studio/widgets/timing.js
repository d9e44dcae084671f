// Denoising runs from pure noise (sigma 1, left) to the finished picture (sigma 0, right).
const MODES = [
  ["anneal", "Anneal", "Strong while the picture takes shape, released towards the end: for groups of people."],
  ["gate", "Gate", "Only inside the window: above it a child's build forms freely, below it skin and hair settle undisturbed."],
  ["constant", "Constant", "The portraits hold all the way: closest likeness, stiffest pictures."],
  ["off", "Off", "The portraits are not looked at: only the text decides."],
];
const PLOT = { left: 34, right: 392, top: 12, bottom: 118 };
const STEP = 0.01;
const DEFAULTS = { mode: "anneal", form: "hold", threshold: 0.4, start: 0.3, end: 0.6, strength: 1 };

const modes = element.querySelector(".timing-modes");
const curve = element.querySelector(".timing-curve");
const fields = element.querySelector(".timing-fields");
const words = element.querySelector(".timing-words");
const note = element.querySelector(".timing-note");
let timing = { ...DEFAULTS, ...(props.value || {}) };
let dragged = null;

const round = (x) => Math.round(x / STEP) * STEP;
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const shown = (x) => Number(x).toFixed(2);
const plotX = (sigma) => PLOT.right - sigma * (PLOT.right - PLOT.left);
const plotY = (weight) => PLOT.bottom - weight * (PLOT.bottom - PLOT.top);

function weight(sigma) {
  if (timing.mode === "off") return 0;
  if (timing.mode === "constant") return 1;
  if (timing.mode === "gate") return sigma >= timing.start && sigma <= timing.end ? 1 : 0;
  if (timing.form === "ramp") return Math.max(0, (sigma - timing.threshold) / (1 - timing.threshold));
  return Math.min(1, sigma / timing.threshold);
}

// What the sampler does with the references: 1 - strength * (1 - lambda).
const influence = (sigma) => 1 - timing.strength * (1 - weight(sigma));

function handlesOf(mode) {
  if (mode === "anneal") return ["threshold"];
  return mode === "gate" ? ["start", "end"] : [];
}

function limitsOf(name) {
  if (name === "threshold") return timing.form === "ramp" ? [0, 0.99] : [0.01, 1];
  return [0, 1];
}

function sigmasToDraw() {
  const edges = handlesOf(timing.mode).flatMap((name) => [timing[name] - 1e-6, timing[name], timing[name] + 1e-6]);
  const grid = Array.from({ length: 101 }, (_, i) => i / 100);
  return [...grid, ...edges].filter((s) => s >= 0 && s <= 1).sort((a, b) => b - a);
}

function drawCurve() {
  const points = sigmasToDraw().map((s) => `${plotX(s).toFixed(2)},${plotY(influence(s)).toFixed(2)}`);
  const area = `${PLOT.left},${PLOT.bottom} ${points.join(" ")} ${PLOT.right},${PLOT.bottom}`;
  const ticks = [1, 0.8, 0.6, 0.4, 0.2, 0].map(
    (s) => `<line class="grid" x1="${plotX(s)}" x2="${plotX(s)}" y1="${PLOT.top}" y2="${PLOT.bottom}"/>
            <text x="${plotX(s)}" y="${PLOT.bottom + 13}" text-anchor="middle">${s}</text>`
  );
  const handles = handlesOf(timing.mode).map(
    (name) => `<g class="handle" data-handle="${name}">
      <line x1="${plotX(timing[name])}" x2="${plotX(timing[name])}" y1="${PLOT.top}" y2="${PLOT.bottom}"/>
      <rect x="${plotX(timing[name]) - 14}" y="${PLOT.top}" width="28" height="${PLOT.bottom - PLOT.top}" fill="transparent"/>
      <circle cx="${plotX(timing[name])}" cy="${plotY(0.5)}" r="7"/></g>`
  );
  curve.innerHTML = `${ticks.join("")}
    <text x="${PLOT.left - 6}" y="${plotY(1) + 4}" text-anchor="end">full</text>
    <text x="${PLOT.left - 6}" y="${plotY(0) + 3}" text-anchor="end">none</text>
    <polygon class="area" points="${area}"/><polyline class="line" points="${points.join(" ")}"/>${handles.join("")}
    <text class="axis" x="${PLOT.left}" y="146">noise</text>
    <text class="axis" x="${(PLOT.left + PLOT.right) / 2}" y="146" text-anchor="middle">denoising time (sigma)</text>
    <text class="axis" x="${PLOT.right}" y="146" text-anchor="end">picture</text>`;
}

function slider(name, label, help) {
  const [low, high] = limitsOf(name);
  return `<label class="timing-field" title="${help}"><span>${label}</span>
    <input type="range" class="${name === "strength" ? "" : "noise-level"}" data-field="${name}" min="${low}" max="${high}" step="${STEP}" value="${timing[name]}" aria-label="${label}">
    <output data-output="${name}">${shown(timing[name])}</output></label>`;
}

function drawFields() {
  const rows = [];
  if (timing.mode === "anneal") {
    rows.push(slider("threshold", "Threshold", "Where the release begins (hold) or ends (ramp), as a noise level."));
    rows.push(`<div class="timing-field"><span>Release</span><span class="timing-forms" role="radiogroup" aria-label="Release">
      ${[["hold", "below the threshold"], ["ramp", "down to the threshold"]].map(
        ([form, label]) => `<button type="button" role="radio" data-form="${form}" aria-checked="${timing.form === form}">${label}</button>`
      ).join("")}</span></div>`);
  }
  if (timing.mode === "gate") {
    rows.push(slider("start", "Gate start", "The cleanest noise level of the window."));
    rows.push(slider("end", "Gate end", "The noisiest level of the window."));
  }
  if (timing.mode !== "constant") {
    rows.push(slider("strength", "Strength", "How much of the schedule is applied: 0 leaves the model as it is, 1 follows the curve fully."));
  }
  fields.innerHTML = rows.join("");
}

function drawModes() {
  modes.innerHTML = MODES.map(
    ([mode, label]) => `<button type="button" role="radio" data-mode="${mode}" aria-checked="${timing.mode === mode}"
      tabindex="${timing.mode === mode ? 0 : -1}">${label}</button>`
  ).join("");
  words.textContent = MODES.find(([mode]) => mode === timing.mode)[2];
}

function draw() {
  drawModes();
  drawFields();
  drawCurve();
}

function refreshFields() {
  for (const input of fields.querySelectorAll("input")) {
    input.value = timing[input.dataset.field];
    fields.querySelector(`[data-output="${input.dataset.field}"]`).textContent = shown(timing[input.dataset.field]);
  }
}

// A window cannot start above its end: the other edge is pushed along, and the page says so.
function move(name, value) {
  const [low, high] = limitsOf(name);
  timing[name] = Number(round(clamp(value, low, high)).toFixed(2));
  note.textContent = "";
  if (name === "start" && timing.start > timing.end) {
    timing.end = timing.start;
    note.textContent = `Gate end moved along to ${shown(timing.end)}: the window cannot end before it starts.`;
  }
  if (name === "end" && timing.end < timing.start) {
    timing.start = timing.end;
    note.textContent = `Gate start moved along to ${shown(timing.start)}: the window cannot start after it ends.`;
  }
  drawCurve();
  refreshFields();
}

function commit() {
  props.value = { ...timing };
  trigger("change");
}

function choose(change) {
  timing = { ...timing, ...change };
  note.textContent = "";
  const [low, high] = limitsOf("threshold");
  const threshold = clamp(timing.threshold, low, high);
  if (threshold !== timing.threshold) {
    timing.threshold = threshold;
    note.textContent = `Threshold moved to ${shown(threshold)}, the nearest value this release can use.`;
  }
  draw();
  commit();
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.mode) choose({ mode: button.dataset.mode });
  if (button?.dataset.form) choose({ form: button.dataset.form });
});

modes.addEventListener("keydown", (event) => {
  const turn = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!turn) return;
  event.preventDefault();
  const names = MODES.map(([mode]) => mode);
  choose({ mode: names[(names.indexOf(timing.mode) + turn + names.length) % names.length] });
  modes.querySelector('[aria-checked="true"]').focus();
});

fields.addEventListener("input", (event) => move(event.target.dataset.field, Number(event.target.value)));
fields.addEventListener("change", commit);

function sigmaAt(event) {
  const box = curve.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * 400;
  return (PLOT.right - x) / (PLOT.right - PLOT.left);
}

curve.addEventListener("pointerdown", (event) => {
  dragged = event.target.closest("[data-handle]")?.dataset.handle ?? null;
  if (dragged) curve.setPointerCapture(event.pointerId);
});
curve.addEventListener("pointermove", (event) => dragged && move(dragged, sigmaAt(event)));
for (const end of ["pointerup", "pointercancel"]) {
  curve.addEventListener(end, () => {
    if (dragged) commit();
    dragged = null;
  });
}

watch("value", () => {
  const incoming = { ...DEFAULTS, ...(props.value || {}) };
  if (JSON.stringify(incoming) === JSON.stringify(timing)) return;
  timing = incoming;
  note.textContent = "";
  draw();
});

draw();
