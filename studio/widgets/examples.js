const strip = element.querySelector(".examples");

(props.value || []).forEach((example, index) => {
  const button = document.createElement("button");
  button.type = "button";
  button.title = button.ariaLabel = `add ${example.name}`;
  const image = new Image();
  image.src = example.picture;
  image.alt = "";
  image.loading = "lazy";
  button.append(image);
  button.addEventListener("click", () => document.dispatchEvent(new CustomEvent("idglow-example", { detail: index })));
  strip.append(button);
});
