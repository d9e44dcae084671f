const list = element.querySelector(".portraits");
const LONGEST_WAIT_MS = 5000;
let dragged = null;
let outbox = [];
let answer = null; // fallback for the answer to the action on its way; null when none is

// One at a time: each action starts from the list that the one before it has left.
function send(action) {
  outbox.push(action);
  if (answer === null) sendFirst();
}
function sendFirst() {
  clearTimeout(answer);
  answer = null;
  if (outbox.length === 0) return;
  trigger("act", outbox.shift());
  answer = setTimeout(sendFirst, LONGEST_WAIT_MS);
}

const text = (tag, className, content) => {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = content;
  return node;
};

function button(label, title, act, disabled = false) {
  const node = text("button", "", label);
  node.type = "button";
  node.title = title;
  node.setAttribute("aria-label", title);
  node.disabled = disabled;
  node.addEventListener("click", act);
  return node;
}

// The square around a face, cut from the whole picture: nothing more than the portrait itself is stored.
function crop(portrait, box, scale) {
  const [left, top, right, bottom] = box;
  const side = Math.max(right - left, bottom - top) * scale;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `${(left + right - side) / 2} ${(top + bottom - side) / 2} ${side} ${side}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `face of ${portrait.name}`);
  const image = document.createElementNS("http://www.w3.org/2000/svg", "image");
  image.setAttribute("href", portrait.picture);
  image.setAttribute("width", portrait.width);
  image.setAttribute("height", portrait.height);
  svg.append(image);
  return svg;
}

function row(portrait, index, count) {
  const item = document.createElement("li");
  item.draggable = true;
  item.dataset.id = portrait.id;
  const name = document.createElement("input");
  name.value = portrait.name;
  name.maxLength = 60;
  name.setAttribute("aria-label", `name of person ${index + 1}`);
  name.addEventListener("change", () => send({ action: "rename", id: portrait.id, name: name.value }));
  const move = (to) => send({ action: "move", id: portrait.id, to });
  const tools = text("span", "tools", "");
  tools.append(
    button("↑", "move up", () => move(index - 1), index === 0),
    button("↓", "move down", () => move(index + 1), index === count - 1),
    button("×", `remove ${portrait.name}`, () => send({ action: "remove", id: portrait.id }))
  );
  const hints = text("span", "hints", portrait.hints.join(", "));
  const middle = text("span", "middle", "");
  middle.append(name, age(portrait));
  item.append(text("span", "number", `image ${index + 1}`), crop(portrait, portrait.boxes[portrait.chosen], 1.5), middle, tools, hints);
  if (portrait.boxes.length > 1) item.append(choice(portrait));
  return item;
}

// Shown for pictures of people at another age only.
function age(portrait) {
  const label = text("label", "age", "at age ");
  const years = document.createElement("input");
  Object.assign(years, { type: "number", min: 1, max: 90, placeholder: "8", value: portrait.age ?? "" });
  years.setAttribute("aria-label", `age of ${portrait.name} in the picture`);
  years.addEventListener("change", () => send({ action: "age", id: portrait.id, age: years.value }));
  label.append(years);
  return label;
}

function choice(portrait) {
  const faces = text("div", "choice", `This picture shows ${portrait.boxes.length} faces. Who is meant?`);
  const row = text("div", "choice-faces", "");
  portrait.boxes.forEach((box, face) => {
    const pick = button("", `face ${face + 1} from the left`, () => send({ action: "choose", id: portrait.id, face }));
    pick.setAttribute("aria-pressed", face === portrait.chosen);
    pick.append(crop(portrait, box, 1.4));
    row.append(pick);
  });
  faces.append(row);
  return faces;
}

function draw() {
  const portraits = props.value || [];
  const active = list.contains(document.activeElement) ? document.activeElement : null;
  const [id, field, typed] = active ? [active.closest("li").dataset.id, active.ariaLabel, active.value] : [];
  list.replaceChildren(...portraits.map((portrait, index) => row(portrait, index, portraits.length)));
  if (!active) return;
  // An answer must not take a field away from somebody who types.
  const again = [...list.querySelectorAll(`li[data-id="${id}"] :is(input, button)`)].find((one) => one.ariaLabel === field);
  if (again && typed !== undefined) again.value = typed;
  again?.focus();
}

list.addEventListener("dragstart", (event) => {
  dragged = event.target.closest("li")?.dataset.id ?? null;
  event.dataTransfer.effectAllowed = "move";
});
list.addEventListener("dragover", (event) => event.preventDefault());
list.addEventListener("drop", (event) => {
  const target = event.target.closest("li");
  if (!target || !dragged || target.dataset.id === dragged) return;
  event.preventDefault();
  send({ action: "move", id: dragged, to: [...list.children].indexOf(target) });
  dragged = null;
});

function onExample(event) {
  if (!element.isConnected) return document.removeEventListener("idglow-example", onExample);
  send({ action: "example", index: event.detail });
}

document.addEventListener("idglow-example", onExample);
watch("value", () => {
  draw();
  // Gradio hands the draft over together with this value; the next action must start from the new one.
  if (answer !== null) {
    clearTimeout(answer);
    answer = setTimeout(sendFirst, 30);
  }
});
draw();
