// The frame: which view is shown, the live numbers, and what stands at the top of each.

import { pause, resume } from "/page/acts.js";
import { announce, setText } from "/page/dom.js";
import { Audit } from "/page/audit.js";
import { duration } from "/page/format.js";
import { Failures } from "/page/failures.js";
import { JobView } from "/page/job.js";
import { Jobs } from "/page/jobs.js";
import { enterToken, forgetToken, hasToken, listen } from "/page/net.js";
import { Overview } from "/page/overview.js";
import { Search } from "/page/search.js";

const HOUR_MS = 3_600_000;
const MOST_POINTS = 720;
const main = document.getElementById("main");
const at = (id) => document.getElementById(id);

let view = null;
let sample = null;
let history = [];

function viewOf(hash) {
  const [, name = "", rest = ""] = /^#\/([a-z]*)(?:\/(.*))?$/s.exec(hash) ?? [];
  let argument = rest;
  try {
    argument = decodeURIComponent(rest);
  } catch {
    // what is no encoding stands for itself
  }
  if (name === "jobs") return argument ? new JobView(argument) : new Jobs();
  if (name === "failures") return new Failures();
  if (name === "search") return new Search();
  if (name === "audit") return new Audit();
  return name === "" ? new Overview() : null;
}

function show(moved) {
  view?.leave?.();
  view = viewOf(location.hash) ?? new Overview();
  document.title = `${view.title} · v2td`;
  main.replaceChildren(view.element);
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === (location.hash || "#/") || (link.hash === "#/jobs" && location.hash.startsWith("#/jobs/"));
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (sample) view.update(sample, history);
  if (moved) {
    main.focus();
    scrollTo(0, 0);
  }
}

function pill(element, text, tone) {
  element.hidden = false;
  element.className = `pill ${tone}`;
  if (element.textContent === text) return;
  setText(element, text);
  announce(text);
}

function told(name, content) {
  if (name === "history") {
    history = content.points.map((point) => Object.fromEntries(content.fields.map((field, index) => [field, point[index]])));
    for (const point of history) point.at *= 1000;
    return;
  }
  sample = content;
  const { records, audio_seconds } = sample.backlog;
  history.push({ at: sample.at * 1000, ...sample.throughput, backlog_records: records, backlog_audio_seconds: audio_seconds });
  const from = Date.now() - HOUR_MS;
  history = history.filter((point) => point.at >= from);
  if (history.length > MOST_POINTS) history = history.filter((_, index) => index % 2 === 1);
  pill(at("ready"), sample.ready ? "ready" : `not ready: ${sample.not_ready_because}`, sample.ready ? "good" : "bad");
  setText(at("about"), `v2td ${sample.version}, model ${sample.model}, process ${sample.pid}, up ${duration(Math.round(sample.uptime_seconds))}`);
  at("intake").hidden = false;
  setText(at("intake"), sample.paused ? "Resume intake" : "Pause intake");
  view?.update(sample, history);
}

at("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part behind # says which view is shown
  main.focus();
});
at("intake").addEventListener("click", () => (sample?.paused ? resume() : pause()));
at("token").addEventListener("click", async () => {
  if (hasToken()) forgetToken();
  else await enterToken("What writes, or shows what was said, takes it.");
  setText(at("token"), hasToken() ? "Forget token" : "Token");
});
addEventListener("token", () => setText(at("token"), hasToken() ? "Forget token" : "Token"));
addEventListener("hashchange", () => show(true));
show(false);
listen(told, (trouble) => pill(at("live"), trouble ?? "live", trouble ? "bad" : "good"));
