// Models: what is in production and why, versions with their lineage and evidence, promote, canary, roll back.
import { html, useState } from "./vendor/htm-preact.js";
import { call, maybe, query } from "./api.js";
import { Lineage } from "./lineage.js";
import { Ago, Badge, Empty, Failure, short, Sure, useAction, usePoll } from "./ui.js";
import { Candidate, Evidence, Watch } from "./evidence.js";
import { Trials } from "./trials.js";

const POLL_MS = 3000, HISTORY = 30;
const EVENTS = [
  "started", "promoted", "forced", "refused", "rolled back", "dropped", "canary", "forced: canary",
];
const TONES = { promoted: "good", started: "quiet", refused: "warn", forced: "warn", "rolled back": "bad" };

async function read() {
  const [models, routing, audit, watch] = await Promise.all([
    call("/v1/models"), maybe("/v1/routing"), maybe(`/v1/audit${query({ event: EVENTS, limit: HISTORY })}`), maybe("/v1/models/watch"),
  ]);
  return {
    watch, models: models.data, aliases: models.aliases, damaged: models.damaged, routing, audit: audit ? audit.data : [] };
}

const ALIAS_TONES = { production: "good", candidate: "warn" };

function Production({ state, changed }) {
  const { error, busy, act } = useAction();
  const [reason, setReason] = useState("");
  const version = state.aliases.production;
  const back = () => act(async () => {
    await call("/v1/models/rollback", { method: "POST", body: { reason } });
    setReason("");
    await changed();
  });
  const canary = state.routing && state.routing.canary;
  const recall = () => act(async () => {
    await call(`/v1/routing/canary${query({ reason })}`, { method: "DELETE" });
    await changed();
  });
  const on = canary && [...canary.robots, ...(canary.share ? [`${(100 * canary.share).toFixed(0)} % of the others`] : [])].join(", ");
  return html`<section class="card production" aria-label="Production">
    <h2>In production <code id="production" title=${version}>${short(version)}</code></h2>
    ${canary ? html`<p>Canary: <code title=${canary.version}>${short(canary.version)}</code> on ${on || "no robot"}</p>` : null}
    <div class="actions">
      <input aria-label="Reason, for the audit log" placeholder="Reason, for the audit log" maxlength="1000" value=${reason}
        onInput=${(event) => setReason(event.target.value)} />
      <${Sure} id="rollback" question="Every robot changes at once. Roll back?" disabled=${busy} onSure=${back}>Roll back<//>
      ${canary ? html`<${Sure} id="recall" question="End the canary?" disabled=${busy} onSure=${recall}>End canary<//>` : null}
    </div>
    <${Failure} text=${error} /></section>`;
}

function Version({ model, production, open, toggle, changed }) {
  const isProduction = model.version === production;
  return html`<article class=${`card version ${open ? "open" : ""}`} id=${`version-${model.version}`} aria-label=${`Version ${model.version}`}>
    <button type="button" class="row" aria-expanded=${open} onClick=${toggle}>
      <code title=${model.version}>${short(model.version)}</code>
      <span class="badges">${model.aliases.map((alias) => html`<${Badge} tone=${ALIAS_TONES[alias] || "busy"}>${alias}<//>`)}</span>
      <span class="grow">${model.evaluations.length ? best(model) : "not evaluated"}</span>
      <span class="quiet-text"><${Ago} iso=${model.created} /></span>
    </button>
    ${open ? html`<div class="body"><${Evidence} model=${model} />
      ${isProduction ? null : html`<${Candidate} version=${model.version} changed=${changed} />`}</div>` : null}
  </article>`;
}

function best(model) {
  const last = model.evaluations[model.evaluations.length - 1];
  return `${last.task}: ${last.successes} of ${last.episodes} (${(100 * last.success_rate).toFixed(0)} %)`;
}

function History({ entries }) {
  if (!entries.length) return html`<${Empty}>Nothing was promoted or rolled back yet.<//>`;
  return html`<ol class="history" id="history">${entries.map((entry) => html`<li key=${entry.time + entry.event}>
    <${Badge} tone=${TONES[entry.event] || "quiet"}>${entry.event}<//>
    <code title=${entry.details.version}>${short(entry.details.version)}</code>
    <span class="quiet-text"><${Ago} iso=${entry.time} /> by ${entry.actor}</span>
    ${entry.details.reason ? html`<p class="reason">${entry.details.reason}</p>` : null}</li>`)}</ol>`;
}

export function Models({ where }) {
  const { data, error, refresh } = usePoll(read, POLL_MS);
  const [open, setOpen] = useState(where.rest[0] || "");
  const toggle = (version) => setOpen(open === version ? "" : version);
  if (!data) return html`<div class="head"><h1>Models</h1></div><${Failure} text=${error} />`;
  return html`<div class="head"><h1>Models</h1><p>${data.models.length} versions</p></div>
    <${Failure} text=${error} />
    <${Production} state=${data} changed=${refresh} />
    <${Watch} watch=${data.watch} />
    <${Trials} models=${data.models} />
    ${data.damaged.map((each) => html`<p class="failure" key=${each.name}>${each.name}: ${each.reason}</p>`)}
    <div class="columns">
      <section aria-label="Versions"><h2>Versions</h2>${data.models.map((model) => html`<${Version} key=${model.version}
        model=${model} production=${data.aliases.production} open=${open === model.version}
        toggle=${() => toggle(model.version)} changed=${refresh} />`)}</section>
      <section aria-label="Lineage and history"><h2>Lineage</h2>
        <${Lineage} models=${data.models} open=${open} choose=${toggle} />
        <h2>History</h2><${History} entries=${data.audit} /></section>
    </div>`;
}
