// Builds elements. Texts come in as text nodes only.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (typeof value === "boolean") made.toggleAttribute(key, value);
    else if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

/** Replace an element's content, unless it is the same: a press must not lose its button. */
export function fill(parent, signature, build) {
  const text = JSON.stringify(signature);
  if (parent.dataset.shows === text) return;
  parent.dataset.shows = text;
  parent.replaceChildren(...build());
}
