// Blinded comparisons of two versions on robots: how far they are, what they said, and the form that begins one.
import { html, useState } from "./vendor/htm-preact.js";
import { call, maybe } from "./api.js";
import { Ago, Badge, Choice, Empty, Facts, Failure, short, Sure, useAction, usePoll } from "./ui.js";

const POLL_MS = 5000, SHOWN = 10;
const TONES = { running: "busy", decided: "good", undecided: "quiet", stopped: "warn" };

function verdict({ first, second, result }) {
  if (!result) return "hidden while it runs, so that labels stay blind";
  const rates = `${result.first} against ${result.second} successes in ${result.pairs} pairs`;
  const said = { first: `${short(first)} is better`, second: `${short(second)} is better`, equal: "equal within the margin" };
  return `${said[result.verdict] || "no verdict"}: ${rates}`;
}

function Trial({ trial, changed }) {
  const { error, busy, act } = useAction();
  const [reason, setReason] = useState("");
  const stop = () => act(async () => {
    await call(`/v1/ab-trials/${trial.id}/stop`, { method: "POST", body: { reason } });
    await changed();
  });
  const running = trial.status === "running";
  return html`<li id=${trial.id}><p class="trial"><${Badge} tone=${TONES[trial.status] || "quiet"}>${trial.status}<//>
      <span><code title=${trial.first}>${short(trial.first)}</code> and <code title=${trial.second}>${short(trial.second)}</code> on ${trial.robots.join(", ")}</span>
      <span class="quiet-text"><${Ago} iso=${trial.created} /> by ${trial.actor}</span></p>
    <${Facts} rows=${[
      ["Pairs", `${trial.pairs} of at most ${trial.max_pairs}; ${trial.labelled} labelled episodes`],
      ["Verdict", verdict(trial)],
      trial.note && ["Ended", trial.note],
    ]} />
    ${running ? html`<div class="actions">
      <input aria-label="Reason to end the comparison" placeholder="Reason, for the audit log" maxlength="1000" value=${reason} onInput=${(event) => setReason(event.target.value)} />
      <${Sure} id=${`stop-${trial.id}`} question="End it before it decides?" disabled=${busy} onSure=${stop}>End comparison<//></div>` : null}
    <${Failure} text=${error} /></li>`;
}

function Begin({ models, changed }) {
  const { error, busy, act } = useAction();
  const [form, setForm] = useState({ first: "", second: "", robots: "", reason: "", force: false });
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const versions = [["", "choose"], ...models.map((model) => [model.version, `${short(model.version)} ${model.aliases.join(", ")}`])];
  const begin = () => act(async () => {
    const robots = form.robots.split(/[\s,]+/).filter(Boolean);
    await call("/v1/ab-trials", { method: "POST", body: { ...form, robots } });
    setForm({ ...form, reason: "", force: false });
    await changed();
  });
  return html`<details><summary>Compare two versions</summary>
    <p class="hint">The robots get both in turn, in random order, from their next episodes on; people label without knowing which it was, until the labels decide.</p>
    <label class="field">First version <${Choice} id="trial-first" value=${form.first} choices=${versions} change=${set("first")} /></label>
    <label class="field">Second version <${Choice} id="trial-second" value=${form.second} choices=${versions} change=${set("second")} /></label>
    <label class="field">Robots, by id <input id="trial-robots" value=${form.robots} placeholder="arm-1, arm-2" onInput=${(event) => set("robots")(event.target.value)} /></label>
    <label class="field">Reason, for the audit log <input id="trial-reason" maxlength="1000" value=${form.reason} onInput=${(event) => set("reason")(event.target.value)} /></label>
    <label class="check"><input type="checkbox" id="trial-force" checked=${form.force} onChange=${(event) => set("force")(event.target.checked)} />
      past the canary limit: takes scope admin and a reason</label>
    <div class="actions"><${Sure} id="trial-begin" question="Robots get both from their next episode on. Begin?" tone="primary"
      disabled=${busy || !form.first || !form.second || !form.robots.trim()} onSure=${begin}>Begin<//></div>
    <${Failure} text=${error} /></details>`;
}

/** All comparisons, or null where the server makes none. */
async function read() {
  try {
    return await maybe("/v1/ab-trials");
  } catch (error) {
    if (error.status === 409) return null;
    throw error;
  }
}

/** The comparisons of this server; nothing where it makes none. */
export function Trials({ models }) {
  const { data, error, refresh } = usePoll(read, POLL_MS);
  if (!data) return html`<${Failure} text=${error} />`;
  return html`<section class="card" aria-label="Blinded comparisons"><h2>Blinded comparisons</h2>
    <${Failure} text=${error} />
    ${data.damaged.map((each) => html`<p class="failure" key=${each.name}>${each.name}: ${each.reason}</p>`)}
    ${data.data.length ? html`<ul class="tests" id="trials">${data.data.slice(0, SHOWN).map((trial) => html`<${Trial} key=${trial.id} trial=${trial} changed=${refresh} />`)}</ul>`
      : html`<${Empty}>None yet.<//>`}
    <${Begin} models=${models} changed=${refresh} /></section>`;
}
