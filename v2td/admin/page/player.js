// The text with its times, and the recording, where it can be had, which the text follows.

import { announce, el } from "/page/dom.js";
import { clock } from "/page/format.js";
import { ask } from "/page/net.js";

const DOUBTFUL_LOGPROB = -1;
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function doubts(segment) {
  const said = [`log-probability ${segment.avg_logprob.toFixed(2)}`, `compression ${segment.compression_ratio.toFixed(1)}`];
  if (segment.temperature > 0) said.push(`temperature ${segment.temperature}`);
  return said.join(", ");
}

const who = (segment) => segment.speaker ?? (segment.channel === null ? null : `channel ${segment.channel}`);

export class Player {
  constructor(job, segments) {
    this.job = job;
    this.segments = segments;
    this.url = null;
    this.audio = null;
    this.current = null;
    this.lines = segments.map((segment) => this.#line(segment));
    this.place = el("div", {}, el("p", { class: "buttons" }, el("button", { type: "button", on: { click: () => this.#load() } }, "Load the recording")));
    this.element = el("div", {}, this.place, el("ol", { class: "segments" }, this.lines));
  }

  /** Give the recording's memory back. */
  leave() {
    this.audio?.pause();
    if (this.url) URL.revokeObjectURL(this.url);
  }

  #line(segment) {
    const go = el("button", { type: "button", class: "time", disabled: true, on: { click: () => this.#seek(segment.start_seconds) } }, clock(segment.start_seconds));
    const doubtful = segment.temperature > 0 || segment.avg_logprob < DOUBTFUL_LOGPROB;
    const span = `${clock(segment.start_seconds)} to ${clock(segment.end_seconds)}`;
    go.setAttribute("aria-label", `Play from ${clock(segment.start_seconds)}`);
    return el(
      "li",
      { class: doubtful ? "doubted" : null },
      go,
      el("span", { class: "text" }, who(segment) && el("b", {}, `${who(segment)}: `), segment.text.trim()),
      el("span", { class: "quiet" }, `${span}; ${doubts(segment)}`),
    );
  }

  async #load() {
    this.place.replaceChildren(el("p", { class: "quiet", role: "status" }, "It is being fetched…"));
    try {
      // As a blob, since an <audio> could not show the token, and a URL must not hold it.
      const answer = await ask("GET", `/page/jobs/${encodeURIComponent(this.job)}/audio`);
      this.url = URL.createObjectURL(await answer.blob());
    } catch (error) {
      this.place.replaceChildren(el("p", { class: "bad", role: "alert" }, error.message));
      return;
    }
    this.audio = el("audio", { controls: true, src: this.url, "aria-label": "The recording" });
    this.audio.addEventListener("timeupdate", () => this.#follow());
    this.audio.addEventListener("error", () => announce("This browser cannot play it."));
    const follow = el("input", { type: "checkbox", id: "follow", checked: true });
    this.following = () => follow.checked;
    this.place.replaceChildren(this.audio, el("p", {}, follow, " ", el("label", { for: "follow" }, "The text follows it")));
    for (const line of this.lines) line.firstElementChild.disabled = false;
    this.audio.focus();
  }

  #seek(seconds) {
    this.audio.currentTime = seconds;
    this.audio.play();
  }

  #follow() {
    const now = this.audio.currentTime;
    const index = this.segments.findIndex(({ start_seconds, end_seconds }) => start_seconds <= now && now < end_seconds);
    const line = this.lines[index] ?? null;
    if (line === this.current) return;
    this.current?.removeAttribute("aria-current");
    this.current = line;
    line?.setAttribute("aria-current", "true");
    if (line && this.following()) line.scrollIntoView({ block: "nearest", behavior: calm() ? "instant" : "smooth" });
  }
}
