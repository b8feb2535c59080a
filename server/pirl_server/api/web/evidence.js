// What is known of a version, what the gate says of it, and the forms that promote it or try it on a few robots.
import { html, useState } from "./vendor/htm-preact.js";
import { call, maybe } from "./api.js";
import { Ago, Badge, Empty, Facts, Failure, short, Sure, useAction, usePoll } from "./ui.js";

const GATE_MS = 30000;

/** Success on one list with its 95 % interval, as a bar from 0 to 100 %. */
function Rate({ found }) {
  const [low, high] = found.interval, at = (share) => 2 + 196 * share;
  const text = `${found.successes} of ${found.episodes}, ${(100 * found.success_rate).toFixed(0)} %`;
  return html`<li><span class="task">${found.task}</span>
    <svg class="rate" viewBox="0 0 200 16" role="img" aria-label=${`${text}, 95 % interval ${(100 * low).toFixed(0)} to ${(100 * high).toFixed(0)} %`}>
      <line class="axis" x1="2" x2="198" y1="8" y2="8" /><line class="span" x1=${at(low)} x2=${at(high)} y1="8" y2="8" />
      <circle cx=${at(found.success_rate)} cy="8" r="4.5" /></svg>
    <span>${text}</span> <span class="quiet-text">list ${short(found.list_hash)}, <${Ago} iso=${found.created} /></span></li>`;
}

export function Evidence({ model }) {
  const offline = model.offline;
  return html`<${Facts} rows=${[
      ["Learnt from", model.parent ? html`<code title=${model.parent}>${short(model.parent)}</code>` : "new weights, or another program"],
      model.job && ["By job", html`<a href=${`#/jobs/${model.job}`}>${model.job}</a>`],
      ["Contract", html`<code>${model.contract_hash}</code>`],
      ["Held-out episodes", offline ? offline.said : "none were held out"],
    ]} />
    ${offline ? offline.refusals.map((reason) => html`<p class="failure" key=${reason}>${reason}</p>`) : null}
    <h3>Evaluations</h3>
    ${model.evaluations.length ? html`<ul class="rates">${model.evaluations.map((found) =>
      html`<${Rate} key=${found.list_hash + found.created} found=${found} />`)}</ul>`
      : html`<${Empty}>None yet: start a job of kind evaluate.<//>`}`;
}

const share = (part, whole) => `${part} of ${whole}${whole ? ` (${((100 * part) / whole).toFixed(0)} %)` : ""}`;
const p = (value) => (value < 0.001 ? value.toExponential(1) : value.toFixed(3));

function Paired({ test, incumbent, alpha }) {
  const rates = `${share(test.candidate, test.states)} against ${share(test.incumbent, test.states)} of ${short(incumbent)}`;
  const said = `${rates}; ${test.gained} gained, ${test.lost} lost; p of being worse ${p(test.p_worse)}, at most ${alpha} passes`;
  return html`<li><${Badge} tone=${test.passed ? "good" : "bad"}>${test.passed ? "passed" : "not passed"}<//> <b>${test.task}</b>${`, the same ${test.states} states: ${said}`}</li>`;
}

/** What the gate says of a version before anything is done. */
function Gate({ version }) {
  const { data } = usePoll(() => maybe(`/v1/models/${encodeURIComponent(version)}/gate`), GATE_MS, version);
  if (!data) return null;
  const { tests, robots, unused } = data.evidence;
  return html`<section class="gate" aria-label="Gate"><h3>Gate <${Badge} tone=${data.allowed ? "good" : "bad"}>${data.allowed ? "lets it through" : "rejects it"}<//></h3>
    ${data.refusals.map((reason) => html`<p class="bad" key=${reason}>${reason}</p>`)}
    ${tests.length ? html`<ul class="tests">${tests.map((test) => html`<${Paired} key=${test.task} test=${test} incumbent=${data.incumbent} alpha=${data.alpha} />`)}</ul>` : null}
    ${robots ? html`<p>On robots: ${robots.said}</p>` : null}
    ${unused.map((reason) => html`<p class="quiet-text" key=${reason}>${reason}</p>`)}</section>`;
}

const WATCHED = { watching: "busy", kept: "good", "rolled back": "bad", ended: "quiet" };

/** The watch after the last promotion, where there was one. */
export function Watch({ watch }) {
  if (!watch || !watch.version) return null;
  const { agreement, new: live } = watch;
  return html`<section class="card" aria-label="Watch after the promotion"><h2>Watch after the promotion
      <${Badge} tone=${WATCHED[watch.phase] || "quiet"}><span id="watch">${watch.phase}</span><//></h2>
    ${watch.reason ? html`<p class=${watch.phase === "rolled back" ? "bad" : ""} id="watch-reason">${watch.reason}</p>` : null}
    <${Facts} rows=${[
      ["Version", html`<code title=${watch.version}>${short(watch.version)}</code> in place of <code title=${watch.previous}>${short(watch.previous)}</code>, <${Ago} iso=${watch.since} />`],
      ["Episodes", `${share(watch.successes, watch.episodes)} succeeded${watch.known > 0 ? `; before, ${share(watch.known_successes, watch.known)}` : ""}`],
      ["Requests", `${live.requests}: ${live.errors} failed, ${live.not_finite} not finite`],
      ["Altered", live.steps ? `${share(live.altered, live.steps)} steps, by limits of the robot` : "no step reported"],
      ["Chunks", agreement.compared ? `${agreement.compared} compared with the version before: correlation ${agreement.correlation.toFixed(2)}` : "none compared"],
    ]} /></section>`;
}

export function Candidate({ version, changed }) {
  const { error, busy, act } = useAction();
  const [reason, setReason] = useState(""), [force, setForce] = useState(false), [robots, setRobots] = useState("");
  const promote = () => act(async () => {
    await call("/v1/models/promote", { method: "POST", body: { version, reason, force } });
    await changed();
  });
  const tryOn = () => act(async () => {
    const listed = robots.split(/[\s,]+/).filter(Boolean);
    await call("/v1/routing/canary", { method: "PUT", body: { version, robots: listed, share: 0, reason, force } });
    await changed();
  });
  return html`<${Gate} version=${version} />
    <fieldset><legend>Serve it</legend>
      <label class="field">Reason, for the audit log <input maxlength="1000" value=${reason} onInput=${(event) => setReason(event.target.value)} /></label>
      <label class="check"><input type="checkbox" checked=${force} onChange=${(event) => setForce(event.target.checked)} />
        past the gate: takes scope admin and a reason</label>
      <div class="actions"><${Sure} id=${`promote-${version}`} question="Every robot changes at once. Promote?" tone="primary"
        disabled=${busy} onSure=${promote}>Promote<//></div>
      <label class="field">Robots of a canary, by id <input value=${robots} placeholder="arm-1, arm-2" onInput=${(event) => setRobots(event.target.value)} /></label>
      <div class="actions"><${Sure} id=${`canary-${version}`} question="From their next episode on. Start?" disabled=${busy || !robots.trim()}
        onSure=${tryOn}>Start canary<//></div>
      <${Failure} text=${error} /></fieldset>`;
}
