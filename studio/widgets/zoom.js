// Wheel, pinch, double click and + / - zoom; dragging moves; arrows turn to the next picture at the same place.
const dialog = element.querySelector("dialog");
const LARGEST = 16;

let pictures = []; // {url, label}
let index = 0;
let view = { scale: 1, x: 0, y: 0 };
const pointers = new Map();

const image = new Image();
image.draggable = false;
const label = document.createElement("span");
label.className = "zoom-label";
const bar = document.createElement("div");
bar.className = "zoom-bar";

function button(text, title, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.title = made.ariaLabel = title;
  made.addEventListener("click", act);
  return made;
}
const previous = button("←", "previous picture", () => turn(-1));
const next = button("→", "next picture", () => turn(1));
bar.append(
  label,
  previous,
  next,
  button("−", "smaller", () => zoomBy(1 / 1.5)),
  button("+", "larger", () => zoomBy(1.5)),
  button("×", "close", () => dialog.close())
);
dialog.append(image, bar);

function place() {
  image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  image.classList.toggle("pixels", view.scale > 3);
}

function zoomBy(factor, x = innerWidth / 2, y = innerHeight / 2) {
  const scale = Math.min(LARGEST, Math.max(1, view.scale * factor));
  const change = scale / view.scale;
  // The point under the pointer stays where it is.
  const [cx, cy] = [x - innerWidth / 2, y - innerHeight / 2];
  view = scale === 1 ? { scale: 1, x: 0, y: 0 } : { scale, x: cx - (cx - view.x) * change, y: cy - (cy - view.y) * change };
  place();
}

function turn(by) {
  index = (index + by + pictures.length) % pictures.length;
  image.src = pictures[index].url;
  image.alt = label.textContent = pictures[index].label;
}

function open(found, at = 0) {
  if (found.length === 0) return;
  pictures = found;
  index = at;
  view = { scale: 1, x: 0, y: 0 };
  previous.hidden = next.hidden = found.length < 2;
  turn(0);
  place();
  dialog.showModal();
}

function openFrom(clicked) {
  const group = clicked.closest("[data-zoom-group]");
  const images = group ? [...group.querySelectorAll("img.zoomable")] : [clicked];
  open(images.map((one) => ({ url: one.src, label: one.alt })), images.indexOf(clicked));
}

dialog.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
}, { passive: false });
image.addEventListener("dblclick", (event) => zoomBy(view.scale > 1 ? 1 / LARGEST : 3, event.clientX, event.clientY));

const spread = () => {
  const [a, b] = [...pointers.values()];
  return Math.hypot(a.x - b.x, a.y - b.y);
};
image.addEventListener("pointerdown", (event) => {
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  image.setPointerCapture(event.pointerId);
});
image.addEventListener("pointermove", (event) => {
  const last = pointers.get(event.pointerId);
  if (!last) return;
  const before = pointers.size === 2 ? spread() : 0;
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  if (pointers.size === 2) return zoomBy(spread() / before, event.clientX, event.clientY);
  if (view.scale === 1) return;
  view.x += event.clientX - last.x;
  view.y += event.clientY - last.y;
  place();
});
for (const end of ["pointerup", "pointercancel"]) image.addEventListener(end, (event) => pointers.delete(event.pointerId));

dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("keydown", (event) => {
  const act = { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), "+": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), z: () => dialog.close() }[event.key];
  // The stage behind listens too: what is pressed here is not a decision.
  event.stopPropagation();
  if (!act) return;
  event.preventDefault();
  act();
});

document.addEventListener("click", (event) => {
  const clicked = event.target.closest?.("img.zoomable");
  if (clicked && element.isConnected) openFrom(clicked);
});
window.idglowZoom = open;
