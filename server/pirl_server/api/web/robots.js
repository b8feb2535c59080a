// Robots: what each one sees and does, and its emergency stop.
import { html, useState } from "./vendor/htm-preact.js";
import { call } from "./api.js";
import { LiveImage } from "./images.js";
import { StopButton } from "./stop.js";
import { Ago, Badge, clock, Empty, Facts, Failure, percent, short, usePoll } from "./ui.js";

const POLL_MS = 1000;
const SAFETY = {
  clear: ["good", "clear", "its last steps were played as sampled, within all limits"],
  limited: ["warn", "limited", "its governor slowed or shortened some of its last 20 steps"],
  holding: ["warn", "holding", "its last step held: no chunk to play, or one that was stale or not finite"],
  stop_sent: ["bad", "stop sent", "it was notified of a stop and has reported nothing since: watch the arm"],
  stopped: ["bad", "stopped", "its software stop is latched; it is cleared at the robot"],
  unknown: ["quiet", "unknown", "it has reported no step: a robot does so within an episode only"],
};
const SOURCES = { policy: "policy", human: "human", hold: "nobody, it holds" };

const ms = (value) => `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`;

function latency(robot) {
  if (!robot.latency) return robot.latency_ms === null ? "no result yet" : ms(robot.latency_ms);
  const { p50_ms: p50, p99_ms: p99, results } = robot.latency;
  return html`<span title=${`of the last ${results} results, within the server`}>${ms(p50)} · p99 ${ms(p99)}</span>`;
}

function altered(steps) {
  if (!steps || !steps.count) return "no step reported";
  if (!steps.altered) return `none of the last ${steps.count} steps`;
  const kinds = Object.entries(steps.alterations).sort((a, b) => b[1] - a[1]);
  return html`${percent(steps.altered, steps.count)} of the last ${steps.count} steps
    <ul class="kinds">${kinds.map(([kind, count]) => html`<li>${kind.replaceAll("_", " ")} ${count}</li>`)}</ul>`;
}

function Robot({ robot, report }) {
  const [tone, word, why] = SAFETY[robot.safety] || ["quiet", robot.safety, ""];
  const reach = robot.connected ? ["good", "connected", "it has a session, and is notified of a stop"]
    : robot.reachable ? ["warn", "no session", "a stop withholds its chunks, it can't be notified"]
    : ["quiet", "not connected", "a stop from here has no effect"];
  return html`<article class="card robot" aria-label=${`Robot ${robot.id}`}>
    <h2><span>${robot.id}</span><span class="badges">
      <${Badge} tone=${reach[0]} title=${reach[2]}>${reach[1]}<//>
      <${Badge} tone=${tone} title=${why}>${word}<//></span></h2>
    ${robot.cameras && robot.cameras.length ? html`<div class="cameras">${robot.cameras.map((camera) =>
      html`<${LiveImage} key=${camera.name} robot=${robot.id} camera=${camera.name} width=${camera.width} height=${camera.height} />`)}</div>`
      : html`<div class="cameras"><div class="no-image">no image yet</div></div>`}
    <${Facts} rows=${[
      ["Instruction", robot.instruction || "none yet"],
      ["Version", html`<code title=${robot.policy_version}>${short(robot.policy_version)}</code>`],
      ["Driven by", robot.control_source ? SOURCES[robot.control_source] : "unknown"],
      ["Latency", latency(robot)],
      ["Altered", altered(robot.steps)],
      ["Safety", html`${why}${robot.stop_sent ? html` <em>Stop sent at ${clock(new Date(robot.stop_sent))}.</em>` : null}`],
      ["Last request", html`<${Ago} iso=${robot.last_seen} />`],
    ]} />
    <${StopButton} robot=${robot.id} id=${`stop-${robot.id}`} report=${report} />
  </article>`;
}

export function Robots({ report }) {
  const [words, setWords] = useState("");
  const { data, error } = usePoll(async () => (await call("/v1/robots")).data, POLL_MS);
  const found = (data || []).filter((robot) => robot.id.includes(words)).sort((a, b) => b.reachable - a.reachable);
  const connected = (data || []).filter((robot) => robot.connected).length;
  return html`<div class="head"><h1>Robots</h1>
      ${data && html`<p>${connected} of ${data.length} connected</p>`}
      ${data && data.length > 6 ? html`<input type="search" aria-label="Find a robot" placeholder="Find a robot"
        value=${words} onInput=${(event) => setWords(event.target.value)} />` : null}</div>
    <${Failure} text=${error} />
    ${data && !data.length ? html`<${Empty}>No robot has asked this server for anything since it started.
      <code>ros2 launch pirl_ros policy.launch.py</code> connects one.<//>` : null}
    <div class="cards">${found.map((robot) => html`<${Robot} key=${robot.id} robot=${robot} report=${report} />`)}</div>`;
}
