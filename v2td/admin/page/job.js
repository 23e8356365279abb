// All about one job.

import { cancel, replay, setPriority } from "/page/acts.js";
import { el, jobLink, section } from "/page/dom.js";
import { DASH, bytes, duration, moment, number, percent } from "/page/format.js";
import { state } from "/page/failures.js";
import { ask, askJson } from "/page/net.js";
import { Player } from "/page/player.js";
import { waterfall } from "/page/waterfall.js";

const RELOAD_MS = 2000;
const UNDER_WAY = new Set(["under_way", "queued_or_elsewhere"]);

const FACTS = [
  ["Message's id", (job) => job.job_id],
  ["Record", (job) => `${job.topic}/${job.kafka_partition}/${job.kafka_offset}${job.record_index ? ` #${job.record_index}` : ""}`],
  ["URL", (job) => job.audio_url],
  ["Tenant", (job) => job.tenant],
  ["Priority", (job) => job.priority],
  ["Stage", (job) => (job.state === "under_way" ? (job.stage ?? "between two") : null)],
  ["Windows", (job) => (job.windows_known ? `${job.windows_heard} of ${job.windows_known}` : null)],
  ["Class", (job) => job.error_class],
  ["Reason", (job) => job.reason],
  ["Attempts", (job) => job.attempts],
  ["Audio", (job) => (job.audio_seconds === undefined ? null : `${duration(job.audio_seconds)}, ${duration(job.speech_seconds)} of speech, ${bytes(job.audio_bytes)}`)],
  ["Language", (job) => (job.language ? `${job.language} (${percent(job.language_probability)})` : null)],
  ["Provider", (job) => (job.provider ? `${job.provider}, model ${job.model}` : null)],
  ["Processing", (job) => (job.duration === undefined ? null : duration(job.duration))],
  ["Speech with text", (job) => (job.state === "transcribed" ? percent(job.speech_coverage_ratio) : null)],
  ["Doubted windows", (job) => (job.state === "transcribed" ? `${number(job.redone_windows)} heard again; ${job.flags.join(", ") || "no flags"}` : null)],
  ["Truncated", (job) => (job.truncated ? "yes" : null)],
  ["Revision", (job) => job.revision],
  ["Cost", (job) => job.cost],
  ["Text of", (job) => job.cached_from],
  ["Metadata", (job) => (job.metadata && Object.keys(job.metadata).length ? JSON.stringify(job.metadata) : null)],
  ["Handed in", (job) => (job.submitted_at ? moment(job.submitted_at) : null)],
  ["Ended", (job) => (job.created_at ? moment(job.created_at) : null)],
];

export class JobView {
  constructor(name) {
    this.name = name;
    this.title = `Job ${name.slice(0, 40)}`;
    this.found = el("div", {}, el("p", { class: "quiet" }, "It is being looked up…"));
    this.element = el("div", {}, el("h1", { class: "said" }, `Job ${name}`), this.found);
    this.load();
  }

  leave() {
    clearTimeout(this.timer);
    this.left = true;
    this.player?.leave();
  }

  update() {}

  async load() {
    clearTimeout(this.timer);
    try {
      const { jobs } = await askJson("GET", `/page/job?id=${encodeURIComponent(this.name)}`);
      if (this.left) return;
      this.found.replaceChildren(...(jobs.length > 1 ? this.#several(jobs) : this.#one(jobs[0])));
    } catch (error) {
      this.found.replaceChildren(el("p", { class: "bad", role: "alert" }, error.message));
    }
  }

  #several(jobs) {
    const line = (job) => el("li", {}, jobLink(job.id, job.id), ` ${job.state.replaceAll("_", " ")}${job.created_at ? `, ${moment(job.created_at)}` : ""}`);
    return [el("p", {}, "Several messages have this id:"), el("ul", {}, jobs.map(line))];
  }

  #one(job) {
    const facts = FACTS.map(([label, text]) => [label, text(job)]).filter(([, text]) => text !== null && text !== undefined);
    const parts = [
      el("p", {}, el("span", { class: `pill ${{ transcribed: "good", failed: "bad" }[job.state] ?? ""}` }, job.state === "failed" ? state(job) : job.state.replaceAll("_", " "))),
      this.#acts(job),
      section("Facts", el("dl", { class: "facts" }, facts.map(([label, text]) => el("div", {}, el("dt", {}, label), el("dd", { class: "said" }, text))))),
      section("Waterfall", waterfall(job)),
    ];
    if (job.state === "transcribed") {
      this.player = new Player(job.id, job.segments);
      parts.push(section("Download", el("p", { class: "buttons" }, job.formats.map((format) => this.#download(job.id, format)))));
      parts.push(section("Text", job.segments.length ? this.player.element : el("p", { class: "quiet" }, "No speech was heard.")));
    }
    if (UNDER_WAY.has(job.state)) this.#reloadLater();
    return parts.filter((part) => part !== null);
  }

  #acts(job) {
    const button = (text, done, danger) => el("button", { type: "button", class: danger ? "danger" : null, on: { click: done } }, text);
    const again = () => setTimeout(() => this.load(), 500);
    const running = UNDER_WAY.has(job.state) ? job : job.under_way;
    const buttons = [];
    if (running) {
      buttons.push(button("Change priority", () => setPriority(job.id, running.priority).then(again)));
      buttons.push(button("Cancel", () => cancel(job.id).then(again), true));
    }
    if (job.state === "failed" && !job.replay_state) buttons.push(button("Replay", () => replay(job.id).then(again)));
    return buttons.length ? el("p", { class: "buttons" }, buttons) : null;
  }

  #download(job, format) {
    const save = async () => {
      try {
        const answer = await ask("GET", `/v1/transcripts/${encodeURIComponent(job)}?format=${encodeURIComponent(format)}`);
        const url = URL.createObjectURL(await answer.blob());
        el("a", { href: url, download: `${job}.${format}` }).click();
        setTimeout(() => URL.revokeObjectURL(url), 10_000);
      } catch (error) {
        this.found.prepend(el("p", { class: "bad", role: "alert" }, error.message));
      }
    };
    return el("button", { type: "button", on: { click: save } }, format);
  }

  #reloadLater() {
    // Not while a person is at one of its buttons, which would be gone then.
    this.timer = setTimeout(() => (this.found.contains(document.activeElement) || document.querySelector("dialog") ? this.#reloadLater() : this.load()), RELOAD_MS);
  }
}
