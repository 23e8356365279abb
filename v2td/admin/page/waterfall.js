// A job's way as bars over time, and as a table.

import { el, svg } from "/page/dom.js";
import { DASH, duration } from "/page/format.js";

const NAMES = {
  queue: "waits for a decoder",
  fetch: "download",
  prepare: "decode and VAD",
  transcribe: "transcribe",
  write: "write the row",
  commit: "offset committed",
};
const ROW = 18;
const NARROW = 480;

const label = (bar) => (bar.name === "window" ? `window ${bar.window}` : (NAMES[bar.name] ?? bar.name));
const slot = (bar) => (bar.slot === null ? DASH : bar.slot < 0 ? "before a restart" : `slot ${bar.slot}`);
const flags = (bar) => bar.flags.join(", ") || DASH;

function drawn(drawing, bars) {
  const width = drawing.clientWidth || 600;
  const left = width < NARROW ? 128 : 150;
  const end = Math.max(...bars.map((bar) => bar.start + bar.seconds), 1e-3);
  const height = bars.length * ROW + 24;
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.setAttribute("height", height);
  const x = (seconds) => left + (seconds / end) * (width - left - 8);
  const parts = [svg("title", {}, "Waterfall"), svg("desc", {}, `${bars.length} steps in ${duration(end)}; the table has them all.`)];
  for (const share of [0, 0.5, 1]) {
    const anchor = { 0: "start", 1: "end" }[share] ?? "middle";
    parts.push(svg("line", { class: "grid", x1: x(end * share), x2: x(end * share), y1: 0, y2: height - 20 }));
    parts.push(svg("text", { x: x(end * share), y: height - 6, "text-anchor": anchor }, duration(end * share)));
  }
  bars.forEach((bar, row) => {
    const tone = bar.name === "window" ? (bar.flags.length ? "doubted" : "window") : bar.name;
    parts.push(svg("text", { x: left - 6, y: row * ROW + 13, "text-anchor": "end" }, label(bar)));
    parts.push(svg("rect", { class: `bar ${tone}`, x: x(bar.start), y: row * ROW + 3, width: Math.max(2, x(bar.start + bar.seconds) - x(bar.start)), height: ROW - 6, rx: 2 }));
  });
  drawing.replaceChildren(...parts);
}

function table(bars) {
  const heads = ["Step", "Begins", "Takes", "Attempt", "Slot", "Together", "Doubts"];
  const cells = (bar) => [label(bar), duration(bar.start), duration(bar.seconds), bar.attempt, slot(bar), bar.batch ?? DASH, flags(bar)];
  const row = (bar) => el("tr", { role: "row" }, cells(bar).map((cell, index) => el("td", { role: "cell", "data-label": heads[index] }, el("span", {}, cell))));
  return el(
    "table",
    { role: "table" },
    el("caption", { class: "unseen" }, "Steps of this job"),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads.map((head) => el("th", { scope: "col", role: "columnheader" }, head)))),
    el("tbody", { role: "rowgroup" }, bars.map(row)),
  );
}

/** The waterfall of a job, as the daemon tells it. */
export function waterfall({ bars, exact }) {
  if (!bars.length) return el("p", { class: "quiet" }, "Nothing of it is known.");
  const drawing = svg("svg", { role: "img", class: "chart", "aria-label": "Waterfall" });
  new ResizeObserver(() => drawn(drawing, bars)).observe(drawing);
  const remark = exact
    ? "From this daemon's memory."
    : "From its row, which tells how long each stage took, but not when it began: stages are laid end to end.";
  return el("div", {}, drawing, el("p", { class: "quiet" }, remark), el("details", {}, el("summary", {}, "Waterfall as a table"), table(bars)));
}
