// Creates elements, and fills them.

/** Create an element. Children are text or nodes; nothing is parsed as HTML. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "color") element.style.setProperty("--color", value);
    else if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replace an element's content, unless it is the same: a press must not lose its button. */
export function fill(parent, signature, build) {
  const text = JSON.stringify(signature);
  if (parent.dataset.shows === text) return;
  parent.dataset.shows = text;
  parent.replaceChildren(...build());
}
