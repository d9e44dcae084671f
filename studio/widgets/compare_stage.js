const stage = element.querySelector(".stage");
const RETRY_AFTER_MS = 8000;
const LETTERS = ["A", "B", "C", "D"];

let outbox = []; // actions not yet answered by the server; the first one is on its way
let onItsWay = null;
let retry = null;
let skippedPast = new Set(); // questions answered here and perhaps still in the server's list
let question = null;
let places = []; // candidate ids in the order they were ranked
let reasons = new Set();
let reasonsOpen = false;
let problem = "";
let said = "";
let clock = { running: null, spent: 0, ready: false };
let line = null;

function node(tag, className, content = "", attributes = {}) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = content;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function action(label, key, act, className = "") {
  const button = node("button", className, label, { type: "button" });
  button.append(node("kbd", "", key));
  button.addEventListener("click", act);
  return button;
}

const keyOf = (one) => one.lease || one.comparison;
const newRequest = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const isPair = () => question.pictures.length === 2;

// Time only counts while the pictures are there and somebody can see them.
function startClock() {
  clock = { running: document.hidden ? null : performance.now(), spent: 0, ready: true };
}
function pauseClock() {
  if (clock.running !== null) clock.spent += performance.now() - clock.running;
  clock.running = null;
}
function spentMs() {
  return Math.round(clock.spent + (clock.running === null ? 0 : performance.now() - clock.running));
}
function onVisibility() {
  if (!element.isConnected) return document.removeEventListener("visibilitychange", onVisibility);
  if (document.hidden) pauseClock();
  else if (clock.ready && clock.running === null) clock.running = performance.now();
}

// One action at a time: what the server hands out next depends on what it has kept.
function send(message) {
  outbox.push({ ...message, request: newRequest() });
  if (onItsWay === null) sendFirst();
}
function sendFirst() {
  clearTimeout(retry);
  onItsWay = outbox[0] ?? null;
  if (onItsWay === null) return;
  trigger("act", onItsWay);
  // Deciding and skipping twice is the same as once, so they may be sent again; undoing is not.
  retry = setTimeout(() => {
    say("The server has not answered. Your choice is not saved yet; trying again …", true);
    if (onItsWay && onItsWay.action !== "undo") sendFirst();
    else {
      outbox.shift();
      sendFirst();
    }
  }, RETRY_AFTER_MS);
}

function decide(outcome, ranking = null) {
  const note = stage.querySelector(".stage-note")?.value ?? "";
  send({
    action: "decide",
    comparison: question.comparison,
    lease: question.lease,
    shown: question.pictures.map((picture) => picture.id),
    outcome,
    ranking,
    reasons: [...reasons],
    note,
    latency: clock.ready ? spentMs() : null,
  });
  leave("Saving …");
}
function skip() {
  send({ action: "skip", comparison: question.comparison, lease: question.lease });
  leave("Skipped.");
}
function undo() {
  send({ action: "undo" });
  said = "Taking the last one back …";
  say(said);
}
function leave(words) {
  skippedPast.add(keyOf(question));
  said = words;
  show();
}

function choose(index) {
  const picture = question.pictures[index];
  if (!picture) return;
  if (isPair()) {
    if (!reasonsOpen) return decide(index === 0 ? "left" : "right");
    places = [picture.id];
  } else if (places.includes(picture.id)) {
    places = places.slice(0, places.indexOf(picture.id));
  } else {
    places = [...places, picture.id];
  }
  mark();
}
function confirm() {
  if (places.length === 0) return say(isPair() ? "Pick a picture first." : "Pick the best picture first.");
  if (isPair()) return decide(places[0] === question.pictures[0].id ? "left" : "right");
  const rest = question.pictures.map((picture) => picture.id).filter((id) => !places.includes(id));
  return decide("ranking", [...places.map((id) => [id]), ...(rest.length ? [rest] : [])]);
}

function mark() {
  question.pictures.forEach((picture, index) => {
    const button = stage.querySelectorAll(".stage-picture")[index];
    const place = places.indexOf(picture.id);
    button.setAttribute("aria-pressed", place >= 0);
    button.querySelector(".stage-place").textContent = place < 0 ? "" : isPair() ? "better" : `${place + 1}`;
  });
  stage.querySelector(".stage-confirm")?.toggleAttribute("disabled", places.length === 0);
}

function openReasons(open) {
  reasonsOpen = open;
  stage.querySelector(".stage-reasons").hidden = !open;
  stage.querySelector(".stage-open-reasons").setAttribute("aria-expanded", open);
  stage.classList.toggle("with-reasons", open);
  if (!open) stage.focus({ preventScroll: true });
}
function toggleReason(index) {
  const found = props.reasons[index];
  if (!found) return;
  const [name] = found;
  if (reasons.has(name)) reasons.delete(name);
  else reasons.add(name);
  stage.querySelectorAll(".stage-chip")[index].setAttribute("aria-pressed", reasons.has(name));
  stage.querySelector(".stage-note").hidden = !reasons.has("other");
}

function say(words, alarming = false) {
  if (!line) return;
  line.textContent = words;
  line.classList.toggle("problem", alarming);
}

function pictureButton(picture, index) {
  const button = node("button", "stage-picture", "", { type: "button", "aria-pressed": "false" });
  const image = new Image();
  image.alt = `picture ${LETTERS[index]}`;
  image.draggable = false;
  image.src = picture.url;
  image.addEventListener("error", () => button.classList.add("unreadable"));
  button.append(image, node("span", "stage-letter", LETTERS[index]), node("span", "stage-place"));
  button.addEventListener("click", () => choose(index));
  return button;
}

function reasonsPanel() {
  const panel = node("div", "stage-reasons");
  panel.hidden = !reasonsOpen;
  const chips = node("div", "stage-chips", "", { role: "group", "aria-label": "What is wrong with the others" });
  props.reasons.forEach(([name, label], index) => {
    const chip = action(label, `⇧${index + 1}`, () => toggleReason(index), "stage-chip");
    chip.setAttribute("aria-pressed", reasons.has(name));
    chips.append(chip);
  });
  const note = node("input", "stage-note", "", {
    type: "text",
    maxlength: props.longest_note,
    placeholder: "What else?",
    "aria-label": "note",
  });
  note.hidden = true;
  const hint = isPair() ? "What is wrong with the other one? Then pick a picture and confirm." : "What is wrong with the worse ones?";
  panel.append(node("p", "stage-hint", hint), chips, note);
  return panel;
}

function actions() {
  const row = node("div", "stage-actions");
  const pair = isPair();
  if (pair) row.append(action("A is better", "← 1", () => choose(0), "stage-side"));
  row.append(
    action(pair ? "Tie" : "All equal", "T", () => decide("tie")),
    action(pair ? "Both bad" : "All bad", "B", () => decide("both_bad"))
  );
  if (pair) row.append(action("B is better", "2 →", () => choose(1), "stage-side"));
  const confirming = action(pair ? "Confirm" : "Confirm ranking", "Enter", confirm, "stage-confirm");
  const more = node("div", "stage-actions stage-more");
  const open = action("Reasons", "R", () => openReasons(!reasonsOpen), "stage-open-reasons");
  open.setAttribute("aria-expanded", reasonsOpen);
  more.append(confirming, open, action("Look closer", "Z", zoom), action("Skip", "S", skip), undoButton());
  return [row, more];
}

// Side by side in time: the arrows turn from one picture to the next at the same place and size.
function zoom() {
  window.idglowZoom(question.pictures.map((picture, index) => ({ url: picture.url, label: LETTERS[index] })));
}

function undoButton() {
  const button = action("Undo", "U", undo, "stage-undo");
  button.disabled = !(props.value || {}).can_undo && outbox.length === 0;
  return button;
}

function prefetch(questions) {
  for (const picture of questions.flatMap((one) => one.pictures)) {
    const image = new Image();
    image.src = picture.url;
    image.decode().catch(() => {});
  }
}

// Otherwise Enter would press the button that led here once more.
function takeFocus() {
  const active = document.activeElement;
  if (active?.matches("body, button:not([role=tab])") && element.offsetParent !== null) stage.focus({ preventScroll: true });
}

function show() {
  const value = props.value || {};
  const waiting = (value.questions || []).filter((one) => !skippedPast.has(keyOf(one)));
  const next = waiting[0] ?? null;
  prefetch(waiting.slice(1));
  if (next && question && keyOf(next) === keyOf(question) && stage.querySelector(".stage-picture")) {
    say(problem || said, Boolean(problem));
    stage.querySelector(".stage-undo").disabled = !value.can_undo && outbox.length === 0;
    return;
  }
  question = next;
  places = [];
  reasons = new Set();
  clock = { running: null, spent: 0, ready: false };
  line = node("p", "stage-line", "", { role: "status", "aria-live": "polite" });
  stage.classList.toggle("with-reasons", reasonsOpen && question !== null);
  if (question === null) {
    const loading = outbox.some((one) => one.action !== "skip") || onItsWay !== null;
    const empty = node("div", "nothing-yet");
    const title = loading ? "Fetching the next one …" : value.title || "Nothing to compare yet";
    empty.append(node("p", "nothing-yet-title", title), node("p", "", loading ? "" : value.empty || ""));
    if (value.can_undo && !loading) empty.append(undoButton());
    stage.replaceChildren(empty, line);
  } else {
    const pictures = node("div", `stage-pictures of-${question.pictures.length}`);
    pictures.append(...question.pictures.map(pictureButton));
    const hint = isPair()
      ? "Which is better?"
      : "Choose from best to worst, then confirm. Those you leave out share the last place.";
    const top = node("div", "stage-top");
    top.append(node("p", "stage-hint", hint), line);
    stage.replaceChildren(top, pictures, ...actions(), reasonsPanel());
    const shown = question;
    const images = [...pictures.querySelectorAll("img")];
    Promise.allSettled(images.map((image) => image.decode())).then(() => {
      const upright = images.every((image) => image.naturalWidth <= 1.25 * image.naturalHeight);
      pictures.classList.toggle("upright", upright);
      if (question === shown) startClock();
    });
    mark();
    takeFocus();
  }
  say(problem || said, Boolean(problem));
}

function onValue() {
  const value = props.value || {};
  if (onItsWay !== null && value.answered === onItsWay.request) {
    const ended = outbox.shift();
    onItsWay = null;
    clearTimeout(retry);
    problem = value.problem || "";
    if (problem) skippedPast.clear();
    else if (ended.action === "decide") said = "Saved.";
    else if (ended.action === "undo") said = value.undone ? "Taken back." : "There is nothing to take back.";
    if (outbox.length === 0) skippedPast.clear();
    // Gradio hands the state over together with this value; the next event must read the new one.
    if (outbox.length) setTimeout(sendFirst, 30);
  } else if (onItsWay === null) {
    problem = value.problem || "";
    said = "";
  }
  show();
}

const KEYS = {
  t: () => decide("tie"),
  b: () => decide("both_bad"),
  s: skip,
  z: zoom,
  u: undo,
  r: () => openReasons(!reasonsOpen),
  enter: confirm,
  escape: () => reasonsOpen && openReasons(false),
  arrowleft: () => isPair() && choose(0),
  arrowright: () => isPair() && choose(1),
};

function onKey(event) {
  if (!element.isConnected) return document.removeEventListener("keydown", onKey);
  if (element.offsetParent === null || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const typing = event.target.closest?.("input, textarea, select, [contenteditable=true]");
  if (typing) {
    if (typing.classList.contains("stage-note") && event.key === "Enter") confirm();
    return;
  }
  const key = event.key.toLowerCase();
  // Arrows move between tabs, options and along sliders; the tab just clicked keeps the focus, so letters pass.
  if (event.target.closest?.("[role=listbox], [role=slider]")) return;
  if (key.startsWith("arrow") && event.target.closest?.("[role=tab]")) return;
  // Enter on a focused button is that button's click; on a picture it confirms what was marked.
  const focused = key === "enter" ? event.target.closest?.("button") : null;
  if (focused && !(focused.classList.contains("stage-picture") && places.length)) return;
  if (question === null && key !== "u") return;
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  const act = digit ? () => (event.shiftKey ? toggleReason(digit[1] - 1) : choose(digit[1] - 1)) : KEYS[key];
  if (!act) return;
  if (digit && event.shiftKey && !reasonsOpen) openReasons(true);
  event.preventDefault();
  act();
}

document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", onVisibility);
watch("value", onValue);
show();
