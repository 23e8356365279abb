// Jobs under way, with what can be done to them, and the last ones that ended.

import { cancel, setPriority } from "/page/acts.js";
import { el, jobLink, section, short } from "/page/dom.js";
import { DASH, duration, number } from "/page/format.js";
import { Table } from "/page/table.js";

const record = (row) => `${row.topic}/${row.partition}/${row.offset}`;
const windows = (row) => (row.windows_known ? `${row.windows_heard} of ${row.windows_known}${row.windows_cut ? "" : "+"}` : DASH);

function acts(row, priority) {
  const named = (what) => `${what} job ${short(row.job)}`;
  return el(
    "span",
    { class: "buttons" },
    el("button", { type: "button", "aria-label": named("Change the priority of"), on: { click: () => setPriority(row.job, priority()) } }, "Priority"),
    el("button", { type: "button", class: "danger", "aria-label": named("Cancel"), on: { click: () => cancel(row.job) } }, "Cancel"),
  );
}

export class Jobs {
  title = "Jobs";

  constructor() {
    const job = { label: "Job", make: (row) => jobLink(row.job) };
    const from = { label: "Record", text: record };
    const priority = { label: "Priority", right: true, text: (row) => number(row.priority) };
    this.underWay = new Table(
      "Jobs under way",
      [
        job,
        from,
        { label: "Stage", text: (row) => row.stage ?? "between two" },
        { label: "Windows", text: windows },
        { label: "For", right: true, text: (row) => duration(row.seconds) },
        { label: "Attempt", right: true, text: (row) => number(row.attempt) },
        priority,
        { label: "Acts", make: (row) => acts(row, () => this.priorities.get(row.job)) },
      ],
      (row) => row.job,
      "None.",
    );
    this.recent = new Table(
      "The last that ended",
      [
        job,
        from,
        { label: "Outcome", text: (row) => row.error_class ?? "transcribed", tone: (row) => (row.error_class ? "bad" : "good") },
        { label: "Audio", right: true, text: (row) => duration(row.audio_seconds) },
        { label: "Took", right: true, text: (row) => duration(row.seconds) },
        { label: "Ago", right: true, text: (row) => duration(Math.round(row.ago)) },
        { label: "Provider", text: (row) => row.provider ?? DASH },
        { label: "Committed", text: (row) => (row.committed ? "yes" : "not yet") },
      ],
      (row) => row.job,
      "None since this daemon began.",
    );
    const input = el("input", { id: "find", name: "job", required: true, autocomplete: "off", spellcheck: "false" });
    const find = el("form", { class: "row", role: "search" }, el("label", { for: "find" }, "Job (a row's id, or a message's own)"), input, el("button", { type: "submit", class: "main" }, "Show it"));
    find.addEventListener("submit", (event) => {
      event.preventDefault();
      location.hash = `#/jobs/${encodeURIComponent(input.value.trim())}`;
    });
    this.element = el(
      "div",
      {},
      el("h1", {}, "Jobs"),
      section("Find a job", find),
      section("Under way", el("p", { class: "quiet" }, "The oldest 20 of this instance."), this.underWay.element),
      section("Ended", el("p", { class: "quiet" }, "The last 20 of this instance."), this.recent.element),
    );
  }

  update(sample) {
    this.priorities = new Map(sample.under_way.map((row) => [row.job, row.priority]));
    this.underWay.update(sample.under_way);
    this.recent.update(sample.recent);
  }
}
