/* Building elements. Text always goes in as text, so that no product can bring markup. */

export const $ = (id) => document.getElementById(id);

/** Return an element: `make("td", { class: "number" }, "4", child)`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Set the text of an element, touching the page only if it differs. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setLevel(element, level) {
  if (element.dataset.level !== level) element.dataset.level = level;
}

/** Call `draw` at most once per `milliseconds`, in a frame, however often it is asked. */
export function throttled(milliseconds, draw) {
  let isAsked = false;
  return () => {
    if (isAsked) return;
    isAsked = true;
    setTimeout(() => requestAnimationFrame(() => { isAsked = false; draw(); }), milliseconds);
  };
}
