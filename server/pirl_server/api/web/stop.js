// Emergency stop: one press sends it, at once. The port that takes nothing else is tried first.
import { html, useState } from "./vendor/htm-preact.js";
import { authorization, call, token } from "./api.js";
import { clock } from "./ui.js";

const HURRY_MS = 600; // without an answer of that port the REST port is tried too; a robot that gets two stops has one
let port = 0;

/** Learn which port takes stops only. */
export async function findStopPort() {
  port = (await call("/v1/info")).stop_port || 0;
}

async function post(base, path) {
  const reply = await fetch(base + path, {
    method: "POST", cache: "no-store", keepalive: true,
    headers: { ...authorization(), "Content-Type": "application/json" },
    body: JSON.stringify({ reason: "pressed in the dashboard" }),
  });
  return { status: reply.status, body: await reply.json() };
}

const wait = (ms) => new Promise((resolve) => setTimeout(() => resolve(null), ms));
const settled = (answer) => answer && [202, 404].includes(answer.status); // notified, or nothing there to notify

async function notify(path) {
  if (!port) return post("", path);
  const first = post(`${location.protocol}//${location.hostname}:${port}`, path).catch(() => null);
  const early = await Promise.race([first, wait(HURRY_MS)]);
  if (settled(early)) return early;
  const second = post("", path);
  const answers = [first, second].map(async (each) => {
    const answer = await each;
    if (!settled(answer)) throw new Error("no");
    return answer;
  });
  return Promise.any(answers).catch(() => second);
}

/** Send a stop to one robot, "" for all. Returns {ok, text}: what is known, which is never that an arm stands still. */
export async function stop(robot) {
  const path = robot ? `/v1/robots/${encodeURIComponent(robot)}/emergency-stop` : "/v1/emergency-stop";
  const at = clock(new Date());
  try {
    const { status, body } = await notify(path);
    if (status === 202) {
      return { ok: true, text: `${at} Notified: ${body.notified.join(", ")}. Watch the arm: this does not prove that it stands still.` };
    }
    if (status === 404) return { ok: false, text: `${at} NOT SENT: ${body.detail}. Use the stop at the robot.` };
    const why = status === 401 ? (token() ? "this token is not valid" : "the server asks for a token") : body.detail || body.title;
    return { ok: false, text: `${at} NOT SENT: ${why}. Use the stop at the robot.` };
  } catch {
    return { ok: false, text: `${at} NOT SENT: the server can't be reached. Use the stop at the robot.` };
  }
}

/** The button. It is never disabled: each press sends a stop. `robot` "" stops all; `report(result)` gets what came of it. */
export function StopButton({ robot = "", id, report }) {
  const [sending, setSending] = useState(0);
  const press = async () => {
    setSending((number) => number + 1);
    report(await stop(robot));
    setSending((number) => number - 1);
  };
  const words = sending ? "SENDING…" : robot ? "STOP" : "STOP ALL";
  const name = `${words}: emergency stop of ${robot ? `robot ${robot}` : "all robots"}`;
  return html`<button type="button" id=${id} class="stop" aria-label=${name} onClick=${press}>
    <span class="mushroom" aria-hidden="true"></span>${words}</button>`;
}

/** What came of the last press, until it is put away. */
export function StopReport({ result, close }) {
  return html`<div role="alert" class=${result ? `stop-report ${result.ok ? "sent" : "unsent"}` : "stop-report"}>
    ${result && html`<p>${result.text}</p><button type="button" class="plain" onClick=${close}>Close</button>`}</div>`;
}
