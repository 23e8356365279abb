// Questions to the person who looks: modal, so that the keyboard stays in them, and Escape means no.

import { el } from "/page/dom.js";

const USUAL_PRIORITY = 5; // of a message that says nothing

function opened(title, text, fields, verb, dangerous) {
  return new Promise((resolve) => {
    const heading = el("h2", { id: "dialog-title" }, title);
    const no = el("button", { type: "button", value: "no" }, "Back");
    const yes = el("button", { type: "submit", class: dangerous ? "danger" : "main" }, verb);
    const form = el("form", { method: "dialog" }, heading, text && el("p", { id: "dialog-text" }, text), fields, el("p", { class: "buttons" }, no, yes));
    const labels = { "aria-labelledby": "dialog-title", "aria-describedby": text ? "dialog-text" : null };
    const dialog = el("dialog", labels, form);
    let answer = null;
    no.addEventListener("click", () => dialog.close());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      answer = Object.fromEntries(new FormData(form));
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal(); // gives the focus back to where it was, when it closes
  });
}

/** Whether something is really to be done: what was filled in, or null. */
export function confirmed(title, text, verb, { fields = [], dangerous = false } = {}) {
  return opened(title, text, fields, verb, dangerous);
}

/** The token as it was typed; null when there is none. */
export async function askForToken(why) {
  const input = el("input", {
    id: "token-input",
    name: "token",
    type: "password",
    autocomplete: "current-password",
    required: true,
    autofocus: true,
  });
  const field = el("p", { class: "field" }, el("label", { for: "token-input" }, "Token"), input);
  const answer = await opened("Token", `${why} It stays in this page until it is closed or loaded again.`, [field], "Use it", false);
  return answer?.token || null;
}

/** A choice of a priority, as fields of a dialog. */
export function priorityField(present = USUAL_PRIORITY) {
  const options = Array.from({ length: 10 }, (_, value) => {
    const said = { 0: "0, most urgent", 9: "9, least urgent" }[value] ?? String(value);
    return el("option", { value, selected: value === present }, said);
  });
  const select = el("select", { id: "priority", name: "priority", autofocus: true }, options);
  return el("p", { class: "field" }, el("label", { for: "priority" }, "Priority"), select);
}
