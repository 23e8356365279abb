// What changes something: each is confirmed first, takes the token, and is written to the daemon's audit log.

import { confirmed, priorityField } from "/page/dialogs.js";
import { announce, el } from "/page/dom.js";
import { askJson } from "/page/net.js";

const path = (job) => `/v1/jobs/${encodeURIComponent(job)}`;

/** Show for a while how an act went, to everybody. */
export function tell(text, tone) {
  announce(text);
  document.querySelector(".toast")?.remove();
  const toast = el("p", { class: `toast ${tone}` }, text);
  document.body.append(toast);
  setTimeout(() => toast.remove(), 8000);
}

async function act(method, where, body) {
  try {
    const { told } = await askJson(method, where, { body });
    tell(`Done: ${told}.`, "good");
    return true;
  } catch (error) {
    tell(`Not done: ${error.message}`, "bad");
    return false;
  }
}

export async function cancel(job) {
  const text = `Job ${job} ends as cancelled, wherever it is worked on. Its dead letter can be replayed.`;
  if (!(await confirmed("Cancel this job?", text, "Cancel the job", { dangerous: true }))) return false;
  return act("DELETE", path(job));
}

export async function setPriority(job, present) {
  const answer = await confirmed("Change its priority?", `Job ${job}.`, "Change it", { fields: [priorityField(present)] });
  if (!answer) return false;
  const priority = Number(answer.priority);
  return act("PATCH", path(job), { priority });
}

export async function replay(job) {
  const text = `The record of job ${job} is sent to Kafka once more. Its failure is replaced by what comes of it.`;
  if (!(await confirmed("Replay this failure?", text, "Replay it"))) return false;
  return act("POST", `${path(job)}/replay`);
}

export async function pause() {
  const text = "No instance of the group takes new records until it is resumed; what is under way ends as usual.";
  if (!(await confirmed("Pause intake?", text, "Pause intake", { dangerous: true }))) return false;
  return act("POST", "/v1/intake/pause");
}

export async function resume() {
  if (!(await confirmed("Resume intake?", "All instances of the group take records again.", "Resume intake"))) return false;
  return act("POST", "/v1/intake/resume");
}
