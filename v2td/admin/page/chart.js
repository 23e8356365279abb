// A line over time, drawn with elements of SVG, and the same as a table for who does not see it.

import { el, svg } from "/page/dom.js";
import { number, time } from "/page/format.js";
import { Table } from "/page/table.js";

const HEIGHT = 150;
const LEFT = 54;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 22;
const TABLE_ROWS = 12;

function niceMaximum(values) {
  const most = Math.max(0, ...values);
  if (most === 0) return 1;
  const scale = 10 ** Math.floor(Math.log10(most));
  return [1, 1.5, 2, 3, 4, 5, 7.5, 10].map((step) => step * scale).find((step) => step >= most) ?? most;
}

/** A chart of one or two series: `series` are {label, field, tone}; points are objects with `at` in milliseconds. */
export class Chart {
  constructor(title, unit, series) {
    this.title = title;
    this.unit = unit;
    this.series = series;
    this.points = [];
    this.drawing = svg("svg", { role: "img", class: "chart", height: HEIGHT, "aria-label": title });
    const columns = [
      { label: "Time", text: (point) => time(point.at) },
      ...series.map(({ label, field }) => ({ label, right: true, text: (point) => number(point[field]) })),
    ];
    this.table = new Table(title, columns, (point) => point.at, "Nothing yet.");
    this.details = el("details", {}, el("summary", {}, `${title} as a table`), this.table.element);
    this.details.addEventListener("toggle", () => this.#tabulate());
    const legend = series.length < 2 ? null : el("p", { class: "legend" }, series.map(({ label, tone }) => el("span", { class: tone }, label)));
    this.element = el("figure", {}, el("figcaption", {}, el("h3", {}, title), el("span", { class: "quiet" }, unit)), legend, this.drawing, this.details);
    new ResizeObserver(() => this.#draw()).observe(this.drawing);
  }

  update(points) {
    this.points = points;
    this.#draw();
    this.#tabulate();
  }

  #tabulate() {
    if (!this.details.open) return;
    const step = Math.max(1, Math.ceil(this.points.length / TABLE_ROWS));
    this.table.update(this.points.filter((_, index) => (this.points.length - 1 - index) % step === 0));
  }

  #draw() {
    const width = this.drawing.clientWidth;
    if (!width) return;
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const values = this.points.flatMap((point) => this.series.map(({ field }) => point[field])).filter((value) => value !== null);
    const most = niceMaximum(values);
    const first = this.points[0]?.at ?? 0;
    const last = this.points.at(-1)?.at ?? 1;
    const x = (at) => LEFT + ((at - first) / Math.max(last - first, 1)) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);
    const drawn = [svg("title", {}, this.title), svg("desc", {}, this.#said())];
    for (const value of [0, most / 2, most]) {
      drawn.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
      drawn.push(svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)));
    }
    if (this.points.length > 1) {
      drawn.push(svg("text", { x: LEFT, y: HEIGHT - 6 }, time(first)));
      drawn.push(svg("text", { x: width - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, time(last)));
    }
    for (const { field, tone } of this.series) {
      drawn.push(svg("path", { class: `line ${tone}`, d: this.#path(field, x, y) }));
    }
    this.drawing.replaceChildren(...drawn);
  }

  #path(field, x, y) {
    let pen = "M";
    const steps = [];
    for (const point of this.points) {
      if (point[field] === null) {
        pen = "M";
        continue;
      }
      steps.push(`${pen}${x(point.at).toFixed(1)} ${y(point[field]).toFixed(1)}`);
      pen = "L";
    }
    return steps.join("");
  }

  #said() {
    const last = this.points.at(-1);
    if (!last) return "Nothing yet.";
    return this.series.map(({ label, field }) => `${label}: ${number(last[field])} ${this.unit} now`).join("; ");
  }
}
