const cards = element.querySelector(".cards");

function cardOf(card, index, chosen) {
  const made = document.createElement("article");
  made.className = "card";
  made.classList.toggle("forming", card.forming);
  made.setAttribute("aria-current", index === chosen);
  const image = new Image();
  image.src = card.url;
  image.alt = card.label;
  image.className = card.forming ? "" : "zoomable";
  const label = document.createElement("button");
  label.type = "button";
  label.className = "card-label";
  label.textContent = card.label;
  label.disabled = card.forming;
  label.addEventListener("click", () => trigger("act", { index }));
  const below = document.createElement("div");
  below.innerHTML = card.below;
  made.append(image, label, below);
  // Before the click reaches the zoom: the first click on a picture chooses it, the next one looks closer.
  made.addEventListener("click", (event) => {
    if (card.forming || event.target !== image || index === chosen) return;
    event.stopPropagation();
    trigger("act", { index });
  });
  return made;
}

function draw() {
  const { cards: found = [], chosen = null } = props.value || {};
  cards.classList.toggle("single", found.length === 1);
  // Pictures that are on show already stay: previews would flicker otherwise.
  const shown = [...cards.querySelectorAll(".card.forming > img")];
  if (found.length && found.every((card) => card.forming) && shown.length === found.length && cards.children.length === found.length) {
    found.forEach((card, index) => (shown[index].src = card.url));
    return;
  }
  cards.replaceChildren(...found.map((card, index) => cardOf(card, index, chosen)));
}

watch("value", draw);
draw();
