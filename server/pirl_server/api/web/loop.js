// The learning loop: where it stands, what each round came to, pause, resume, cancel.
import { html, useState } from "./vendor/htm-preact.js";
import { call } from "./api.js";
import { Bar, Choice, Empty, Facts, Failure, Sure, useAction, usePoll } from "./ui.js";

const POLL_MS = 1000, LIST_MS = 10000;
const PHASES = {
  collect: "collects episodes of the production version",
  propose: "lets the success model judge episodes without a label",
  learn: "learns from them",
  evaluate_base: "evaluates the production version in simulation",
  evaluate_candidate: "evaluates the candidate in simulation",
  canary: "tries the candidate on a few robots",
  watch: "watches all robots after the promotion",
};
const GOOD = ["promoted"], BAD = ["worse", "rolled back", "failed"];
const NONE = { episodes: 0, successes: 0 };

async function loops() {
  const found = [];
  let after = "";
  do {
    const page = await call(`/v1/jobs?limit=100${after}`);
    found.push(...page.data.filter((job) => job.spec.kind === "loop"));
    after = page.has_more ? `&after=${page.last_id}` : "";
  } while (after && !found.length);
  return found;
}

const share = (part, whole) => (whole ? `${part} of ${whole} (${((100 * part) / whole).toFixed(0)} %)` : "none");
const robots = (tally) => share(tally.successes, tally.episodes);
const small = (p) => (p < 0.001 ? p.toExponential(1) : p.toFixed(3));
const simulated = (rates) => (rates ? `${share(rates.candidate, rates.states)}; ${share(rates.base, rates.states)}` : "not compared");

function canary(spec, stand) {
  const tried = stand.canary || NONE, on = (stand.canary_robots || []).join(", ");
  if (!on) return html`<${Bar} id="canary" label="episodes of the canary">none<//>`;
  const before = robots(stand.compared || NONE);
  return html`<${Bar} id="canary" label="episodes of the canary" value=${tried.episodes} most=${spec.canary.episodes}>
    ${`${tried.episodes} of ${spec.canary.episodes} episodes on ${on}, ${tried.successes} succeeded; production before: ${before}`}<//>`;
}

function facts(job, stand, ended) {
  const spec = job.spec, rounds = stand.rounds || [], got = stand.collected || NONE;
  const target = stand.target || spec.episodes_per_round, minutes = stand.robot_minutes || 0, budget = spec.max_robot_minutes;
  return [
    ["Task", spec.task, "task"],
    ["Status", job.error ? `${job.status}: ${job.error}` : job.status, "status"],
    ["Round", `${ended ? rounds.length : (stand.round ?? 0) + 1} of ${spec.rounds}`, "round"],
    ["Phase", ended ? "none, it has ended" : PHASES[stand.phase] || "waits for its turn", "phase"],
    ["Collected", html`<${Bar} id="collected" label="episodes collected" value=${got.episodes} most=${target}>
      ${`${got.episodes} of ${target} episodes, ${got.successes} succeeded`}<//>`],
    ...(spec.success_model ? [["By the success model", `${stand.model_labels || 0} outcomes of ${spec.success_model.version}`, "modelled"]] : []),
    ["Candidate", stand.candidate || "none", "candidate"],
    ["Held-out episodes", stand.offline || "nothing measured", "offline"],
    ["In simulation", stand.rates
      ? `candidate, base: ${simulated(stand.rates)}; p of no gain ${small(stand.rates.p_better)}` : "not compared", "simulation"],
    ["Canary", canary(spec, stand)],
    ...(stand.trial ? [["Robots' gate", stand.trial, "trial"]] : []),
    ["Robot time", html`<${Bar} id="minutes" label="robot minutes spent" value=${minutes} most=${budget || 0}>
      ${`${minutes.toFixed(1)} min${budget ? ` of ${budget}` : ", no limit"}`}<//>`],
    ["Promotions", stand.promotions || 0, "promotions"],
  ];
}

function Round({ round }) {
  const tone = GOOD.includes(round.outcome) ? "good" : BAD.includes(round.outcome) ? "bad" : "";
  const tried = round.canary.episodes > 0;
  return html`<tr><td>${round.number + 1}</td><td class=${tone}>${round.outcome}</td><td>${round.base}</td>
    <td>${round.candidate || "none"}</td><td>${simulated(round.rates)}</td><td>${round.rates ? small(round.rates.p_better) : ""}</td>
    <td>${tried ? `${robots(round.canary)}; ${robots(round.compared)}` : "not tried"}</td><td class="why">${round.reason}</td></tr>`;
}

const HEADS = ["Round", "Outcome", "Base", "Candidate", "In simulation: candidate, base", "p of no gain", "On robots: candidate, base", "Why"];

function Stand({ job, changed }) {
  const { error, busy, act } = useAction();
  const stand = job.result || {}, rounds = stand.rounds || [];
  const ended = !["queued", "running", "paused", "pausing"].includes(job.status);
  const post = (what) => act(async () => { await call(`/v1/jobs/${job.id}/${what}`, { method: "POST" }); await changed(); });
  return html`<section class="card"><${Facts} rows=${facts(job, stand, ended)} />
      <p class="actions">
        <button id="pause" type="button" disabled=${busy || job.status !== "running"} onClick=${() => post("pause")}>Pause</button>
        <button id="resume" type="button" disabled=${busy || job.status !== "paused"} onClick=${() => post("resume")}>Resume</button>
        <${Sure} id="cancel" question="Cancel the loop? Click again" disabled=${ended} onSure=${() => post("cancel")}>Cancel<//>
        <span id="refused" class="bad" role="alert">${error}</span></p></section>
    <h2>Rounds</h2>
    <div class="scroll" tabindex="0" role="region" aria-label="Rounds"><table>
      <thead><tr>${HEADS.map((head) => html`<th scope="col">${head}</th>`)}</tr></thead>
      <tbody id="rounds">${rounds.slice().reverse().map((round) => html`<${Round} key=${round.number} round=${round} />`)}</tbody>
    </table></div>`;
}

export function Loop() {
  const [chosen, choose] = useState("");
  const all = usePoll(loops, LIST_MS);
  const jobs = all.data || [];
  const running = jobs.find((job) => ["running", "paused"].includes(job.status)) || jobs[0];
  const id = jobs.some((job) => job.id === chosen) ? chosen : running ? running.id : "";
  const one = usePoll(async () => (id ? call(`/v1/jobs/${id}`) : null), POLL_MS, id);
  const job = one.data || jobs.find((each) => each.id === id);
  return html`<div class="head"><h1>Learning loop</h1>
      ${jobs.length ? html`<label>Loop <${Choice} id="which" value=${id} change=${choose}
        choices=${jobs.map((each) => [each.id, `${each.spec.task}, ${each.created.slice(0, 16)}`])} /></label>` : null}</div>
    <${Failure} text=${all.error || one.error} />
    ${all.data && !jobs.length ? html`<${Empty}>No loop has been started: POST /v1/jobs with kind 'loop'.<//>` : null}
    ${job ? html`<${Stand} key=${job.id} job=${job} changed=${one.refresh} />` : null}`;
}
