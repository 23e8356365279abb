// Who changed what.

import { el, jobLink } from "/page/dom.js";
import { moment } from "/page/format.js";
import { askJson } from "/page/net.js";
import { Table } from "/page/table.js";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const COLUMNS = [
  { label: "When", text: (act) => moment(act.at) },
  { label: "Who", text: (act) => act.actor },
  { label: "What", text: (act) => act.action },
  { label: "Of", make: (act) => (UUID.test(act.target ?? "") ? jobLink(act.target) : el("span", {}, act.target ?? "all")) },
  { label: "Details", text: (act) => Object.entries(act.details).map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ") },
  { label: "Outcome", text: (act) => act.error ?? "done", tone: (act) => (act.error === null ? "good" : "bad") },
];

export class Audit {
  title = "Audit log";

  constructor() {
    this.acts = [];
    this.table = new Table("Acts", COLUMNS, (act) => act.id, "Nothing was changed yet.");
    this.said = el("p", { role: "status" });
    this.more = el("button", { type: "button", hidden: true, on: { click: () => this.load() } }, "More");
    this.element = el("div", {}, el("h1", {}, "Audit log"), this.said, el("section", { "aria-label": "Acts" }, this.table.element), el("p", { class: "buttons" }, this.more));
    this.load();
  }

  update() {}

  async load() {
    const asked = (this.asked = Symbol("asked"));
    try {
      const found = await askJson("GET", `/v1/audit${this.next ? `?cursor=${encodeURIComponent(this.next)}` : ""}`);
      if (this.asked !== asked) return; // the same was asked for again
      this.acts.push(...found.data);
      this.next = found.next;
      this.more.hidden = !this.next;
      this.table.update(this.acts);
    } catch (error) {
      this.said.textContent = `It cannot be shown: ${error.message}`;
    }
  }
}
