// What is asked of the daemon. The token is kept in this variable and nowhere else: it goes with the page. A browser
// writes sessionStorage to its disk, to open the page again after a crash, and a URL goes into histories and logs.

import { askForToken } from "/page/dialogs.js";

const SILENCE_MS = 40_000; // longer than the daemon is ever silent
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 15_000;

let token = null;
let asking = null;

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Ask a person for the token; false when none was given. */
export async function enterToken(why) {
  asking ??= askForToken(why).finally(() => {
    asking = null;
  });
  const given = await asking;
  if (given !== null) keep(given);
  return given !== null;
}

function keep(value) {
  token = value;
  dispatchEvent(new Event("token"));
}

export function forgetToken() {
  keep(null);
}

export function hasToken() {
  return token !== null;
}

async function problemOf(answer) {
  try {
    const said = await answer.json();
    return said.detail ?? said.error?.message ?? answer.statusText;
  } catch {
    return answer.statusText || `status ${answer.status}`;
  }
}

async function send(method, path, { body, headers = {}, signal } = {}) {
  for (;;) {
    const used = token;
    const answer = await fetch(path, {
      method,
      signal,
      credentials: "omit",
      redirect: "error",
      cache: "no-store",
      headers: {
        ...headers,
        ...(used === null ? {} : { Authorization: `Bearer ${used}` }),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (answer.status !== 401) return answer;
    if (used === token) {
      const why = used === null ? "This needs the token (admin.token)." : "That is not the token.";
      keep(null);
      if (!(await enterToken(why))) throw new Refused(401, "no token was given");
    }
  }
}

/** An answer that is fine; raises Refused with what the daemon said. Asks for the token when it is needed. */
export async function ask(method, path, options) {
  const answer = await send(method, path, options);
  if (!answer.ok) throw new Refused(answer.status, await problemOf(answer));
  return answer;
}

/** The JSON of such an answer; null where it has none. */
export async function askJson(method, path, options) {
  const answer = await ask(method, path, options);
  return answer.status === 204 ? null : answer.json();
}

/** Pass on the daemon's events, for ever: `onEvent(name, content)`; `onState(text)` is null while it is connected.
 *
 *  EventSource could send no token, and one in a URL would be in logs.
 */
export async function listen(onEvent, onState) {
  let pause = FIRST_PAUSE_MS;
  for (;;) {
    try {
      await listenOnce(onEvent, () => {
        pause = FIRST_PAUSE_MS;
        onState(null);
      });
      onState("disconnected");
    } catch (error) {
      onState(error instanceof Refused ? error.message : "disconnected");
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

async function listenOnce(onEvent, onOpen) {
  const given_up = new AbortController();
  let timer = setTimeout(() => given_up.abort(), SILENCE_MS);
  try {
    const answer = await ask("GET", "/page/events", { signal: given_up.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    onOpen();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => given_up.abort(), SILENCE_MS);
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) pass(event, onEvent);
    }
  } finally {
    clearTimeout(timer);
    given_up.abort();
  }
}

function pass(event, onEvent) {
  const fields = { event: "message", data: "" };
  for (const line of event.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  if (fields.data) onEvent(fields.event, JSON.parse(fields.data));
}
