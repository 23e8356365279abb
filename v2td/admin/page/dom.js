// Makes elements. What is text stays text: nothing here, or anywhere on this page, turns a string into HTML.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** An element: its attributes (`on` holds handlers), and its children, which are elements or text. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same of SVG. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** A part of the page with a heading. */
export function section(title, ...children) {
  const id = `h-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
  return el("section", { "aria-labelledby": id }, el("h2", { id }, title), ...children);
}

/** Say something to who cannot see what changed. */
export function announce(text) {
  document.getElementById("said").textContent = text;
}

/** Set text, where it is another one: what does not change is not told again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The end of a job's id, in which it differs from others of the same time. */
export const short = (job) => `…${job.slice(-8)}`;

/** A link to a job's page. */
export function jobLink(job, text = short(job)) {
  return el("a", { href: `#/jobs/${encodeURIComponent(job)}`, title: job }, text);
}
