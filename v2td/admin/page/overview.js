// What the daemon does now and did in the last hour.

import { Chart } from "/page/chart.js";
import { el, jobLink, section, setText, short } from "/page/dom.js";
import { DASH, bytes, duration, hours, number, percent } from "/page/format.js";
import { Table } from "/page/table.js";

const NAMES = { queue: "wait for a decoder", prepare: "decode and VAD", retry: "wait to be tried again" };
const WAITS = { fetch: "for a connection", transcribe: "windows, for a slot" };

function tile(label, hint) {
  const value = el("dd", {}, DASH);
  return { value, element: el("div", { class: "tile" }, el("dt", {}, label), value, el("dd", { class: "quiet" }, hint)) };
}

const TILES = [
  ["Throughput", "jobs a minute", (s) => number(s.throughput.jobs_per_minute)],
  ["Audio", "seconds of audio a second", (s) => number(s.throughput.audio_per_second)],
  ["Real-time factor", "seconds of a slot for a second of audio", (s) => number(s.throughput.real_time_factor)],
  ["Failures", "jobs a minute", (s) => number(s.throughput.failed_per_minute)],
  ["Backlog", "messages in this instance's partitions", (s) => number(s.backlog.records)],
  ["Backlog in audio", "at the mean length of recent recordings", (s) => (s.backlog.records && !s.backlog.audio_seconds ? DASH : hours(s.backlog.audio_seconds))],
  ["Time to drain", "at the present speed", (s) => duration(s.backlog.drain_seconds)],
  ["Cores to drain in an hour", "busy ones", (s) => number(s.backlog.cores_needed)],
];

const batchOf = (slot) => slot.batch.map(({ job, window }) => `${job ? short(job) : "by HTTP"} #${window}`);

function slotTable() {
  const columns = [
    { label: "Slot", text: (slot) => String(slot.slot) },
    { label: "State", text: (slot) => slot.state, tone: (slot) => `state ${slot.state}` },
    { label: "Job and window", text: (slot) => batchOf(slot).join(", ") || DASH },
    { label: "CPU", right: true, text: (slot) => percent(slot.cpu_share) },
    { label: "Memory", right: true, text: (slot) => bytes(slot.rss_bytes) },
    { label: "Windows", right: true, text: (slot) => number(slot.windows) },
    { label: "Restarts", right: true, text: (slot) => number(slot.restarts) },
  ];
  return new Table("Slots", columns, (slot) => slot.slot, "There is none.");
}

function stageTable() {
  const columns = [
    { label: "Stage", text: (row) => NAMES[row.stage] ?? row.stage },
    { label: "In flight", right: true, text: (row) => number(row.in_flight) },
    { label: "Waiting", text: (row) => (row.waiting === null ? DASH : `${number(row.waiting)} ${WAITS[row.stage] ?? ""}`) },
    { label: "p50", right: true, text: (row) => duration(row.p50) },
    { label: "p95", right: true, text: (row) => duration(row.p95) },
  ];
  return new Table("Stages", columns, (row) => row.stage, "There is none.");
}

function partitionTable() {
  const columns = [
    { label: "Partition", text: (row) => `${row.topic}/${row.partition}` },
    { label: "Lag", right: true, text: (row) => number(row.lag) },
    { label: "In flight", right: true, text: (row) => number(row.in_flight) },
    { label: "Oldest unfinished", right: true, text: (row) => duration(row.oldest_unfinished_seconds) },
    { label: "Committed", right: true, text: (row) => number(row.committed) },
    { label: "Epoch", right: true, text: (row) => number(row.epoch) },
  ];
  return new Table("Partitions", columns, (row) => `${row.topic}/${row.partition}`, "None is this instance's now.");
}

function providerTable() {
  const breaker = (row) => (row.open_seconds === null ? "closed" : `open for ${duration(row.open_seconds)}`);
  const columns = [
    { label: "Provider", text: (row) => row.name },
    { label: "Model", text: (row) => row.model ?? DASH },
    { label: "Group", text: (row) => row.group ?? DASH },
    { label: "In flight", right: true, text: (row) => `${row.in_flight}${row.concurrency ? ` of ${row.concurrency}` : ""}` },
    { label: "Waiting", right: true, text: (row) => number(row.waiting) },
    { label: "Breaker", text: breaker, tone: (row) => (row.open_seconds === null ? "good" : "bad") },
    { label: "Health", text: (row) => row.trouble ?? "well", tone: (row) => (row.trouble === null ? "good" : "bad") },
  ];
  return new Table("Providers", columns, (row) => row.name, "There is none.");
}

function failureTable() {
  const columns = [
    { label: "Class", text: (row) => row.name },
    { label: "Jobs", right: true, text: (row) => number(row.count) },
  ];
  return new Table("Failures by class", columns, (row) => row.name, "None since this daemon began.");
}

const byClass = (failed) =>
  Object.entries(failed)
    .map(([name, count]) => ({ name, count }))
    .sort((one, other) => other.count - one.count);

export class Overview {
  title = "Overview";

  constructor() {
    this.tiles = TILES.map(([label, hint]) => tile(label, hint));
    this.rate = el("p", { class: "quiet" }, "Rates are those of the last minute, charts those of the last hour.");
    this.charts = [
      new Chart("Jobs", "a minute", [
        { label: "ended", field: "jobs_per_minute", tone: "one" },
        { label: "failed", field: "failed_per_minute", tone: "two" },
      ]),
      new Chart("Audio", "seconds a second", [{ label: "transcribed", field: "audio_per_second", tone: "one" }]),
      new Chart("Real-time factor", "slot seconds for each of audio", [{ label: "factor", field: "real_time_factor", tone: "one" }]),
      new Chart("Backlog", "messages", [{ label: "behind", field: "backlog_records", tone: "one" }]),
    ];
    this.tables = { slots: slotTable(), stages: stageTable(), partitions: partitionTable(), providers: providerTable(), failures: failureTable() };
    this.busy = el("p", { class: "links" });
    const more = el("p", {}, el("a", { href: "#/failures" }, "The last ones of each class"));
    this.element = el(
      "div",
      {},
      el("h1", {}, "Overview"),
      section("Now", el("dl", { class: "tiles" }, this.tiles.map((each) => each.element)), this.rate),
      section("The last hour", el("div", { class: "charts" }, this.charts.map((each) => each.element))),
      section("Slots", this.tables.slots.element, this.busy),
      section("Stages", this.tables.stages.element),
      section("Partitions", this.tables.partitions.element),
      section("Providers", this.tables.providers.element),
      section("Failures", this.tables.failures.element, more),
    );
  }

  update(sample, history) {
    TILES.forEach(([, , text], index) => setText(this.tiles[index].value, text(sample)));
    for (const chart of this.charts) chart.update(history);
    for (const name of ["slots", "stages", "partitions", "providers"]) this.tables[name].update(sample[name]);
    this.tables.failures.update(byClass(sample.failed));
    const jobs = [...new Set(sample.slots.flatMap((slot) => slot.batch.map(({ job }) => job)).filter(Boolean))].slice(0, 8);
    if (this.busy.dataset.jobs !== jobs.join()) {
      this.busy.dataset.jobs = jobs.join();
      this.busy.replaceChildren(...(jobs.length ? ["Under way in slots: ", ...jobs.map((job) => jobLink(job))] : []));
    }
  }
}
