// The last failures by class, with examples; a failure can be replayed.

import { replay } from "/page/acts.js";
import { el, jobLink, section, short } from "/page/dom.js";
import { moment } from "/page/format.js";
import { askJson } from "/page/net.js";

const REPLAYS = { requested: "replay under way", dropped: "given up" };

export const state = (failure) => REPLAYS[failure.replay_state] ?? (failure.error_class === "cancelled" ? "cancelled" : "failed");

function example(failure) {
  const again = el("button", { type: "button", "aria-label": `Replay job ${short(failure.id)}`, on: { click: () => replay(failure.id) } }, "Replay");
  return el(
    "li",
    {},
    el("p", {}, jobLink(failure.id), ` ${moment(failure.created_at)}, ${state(failure)}`, failure.replay_state ? null : [" ", again]),
    el("p", { class: "said" }, failure.reason),
    el("p", { class: "quiet said" }, failure.audio_url ?? "No URL.", failure.job_id === null ? "" : ` (${failure.job_id})`),
  );
}

export class Failures {
  title = "Failures";

  constructor() {
    this.found = el("div", { "aria-live": "off" });
    const again = el("button", { type: "button", on: { click: () => this.load() } }, "Look again");
    this.element = el("div", {}, el("h1", {}, "Failures"), el("p", { class: "buttons" }, again), this.found);
    this.load();
  }

  async load() {
    this.found.setAttribute("aria-busy", "true");
    try {
      const { looked_at, classes } = await askJson("GET", "/page/failures");
      this.found.replaceChildren(
        el("p", { class: "quiet" }, looked_at ? `Of the last ${looked_at} failures of all instances.` : "There is none."),
        ...classes.map(({ error_class, count, examples }) => section(`${error_class} (${count})`, el("ul", { class: "examples" }, examples.map(example)))),
      );
    } catch (error) {
      this.found.replaceChildren(el("p", { class: "bad", role: "alert" }, `They cannot be shown: ${error.message}`));
    }
    this.found.removeAttribute("aria-busy");
  }

  update() {}
}
