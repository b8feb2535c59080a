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

/** The gate's answer before anything is done, where the server can say it. */
function Gate({ version }) {
  const { data } = usePoll(() => maybe(`/v1/models/${encodeURIComponent(version)}/gate`), GATE_MS, version);
  if (!data) return null;
  const reasons = data.rejections || data.refusals || [];
  return html`<div class="gate"><h3>Gate <${Badge} tone=${data.allowed ? "good" : "bad"}>${data.allowed ? "lets it through" : "rejects it"}<//></h3>
    ${reasons.map((reason) => html`<p key=${reason}>${reason}</p>`)}
    ${data.said ? html`<p>${data.said}</p>` : null}</div>`;
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
