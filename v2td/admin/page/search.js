// Search over what was said.

import { el, jobLink } from "/page/dom.js";
import { DASH, clock, duration, moment } from "/page/format.js";
import { askJson } from "/page/net.js";

/** A passage with what was looked for marked; `marks` count characters as Python does, not as JavaScript. */
function passage({ start, text, marks }) {
  const letters = [...text];
  const parts = [];
  let from = 0;
  for (const [first, behind] of marks) {
    parts.push(letters.slice(from, first).join(""), el("mark", {}, letters.slice(first, behind).join("")));
    from = behind;
  }
  parts.push(letters.slice(from).join(""));
  return el("p", { class: "said" }, el("span", { class: "quiet" }, `${clock(start)} `), parts);
}

function line(found) {
  const facts = [moment(found.created_at), duration(found.audio_seconds), found.language ?? DASH].join(", ");
  return el("li", {}, el("p", {}, jobLink(found.id), ` ${facts}`), found.passages.map(passage), found.beginning && el("p", { class: "said" }, found.beginning));
}

export class Search {
  title = "Search";

  constructor() {
    this.cursor = null;
    this.words = "";
    const input = el("input", { id: "words", name: "words", type: "search", required: true, autocomplete: "off" });
    const form = el("form", { class: "row", role: "search" }, el("label", { for: "words" }, "Words"), input, el("button", { type: "submit", class: "main" }, "Search"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.words = input.value;
      this.cursor = null;
      this.list.replaceChildren();
      this.load();
    });
    this.list = el("ul", { class: "examples" });
    this.said = el("p", { class: "quiet", role: "status" });
    this.more = el("button", { type: "button", hidden: true, on: { click: () => this.load() } }, "More");
    this.element = el("div", {}, el("h1", {}, "Search"), form, this.said, this.list, el("p", { class: "buttons" }, this.more));
  }

  update() {}

  async load() {
    const asked = (this.asked = Symbol("asked"));
    this.said.textContent = "Searching…";
    const cursor = this.cursor ? `&cursor=${encodeURIComponent(this.cursor)}` : "";
    try {
      const found = await askJson("GET", `/v1/transcripts?query=${encodeURIComponent(this.words)}${cursor}`);
      if (this.asked !== asked) return; // something else was asked for meanwhile
      this.list.append(...found.data.map(line));
      this.cursor = found.next;
      this.more.hidden = !this.cursor;
      this.said.textContent = this.list.childElementCount ? `${this.list.childElementCount} found${this.cursor ? ", and there are more" : ""}.` : "Nothing was found.";
    } catch (error) {
      this.said.textContent = error.message;
    }
  }
}
