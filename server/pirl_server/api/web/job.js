// One job: where it stands, its buttons, its curves, its log.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { call, maybe } from "./api.js";
import { Chart } from "./chart.js";
import { secondsLeft, useEvents, useSeries } from "./job_events.js";
import { TONES, took } from "./jobs.js";
import { Ago, Badge, duration, Facts, Failure, Sure, useAction, usePoll } from "./ui.js";

const POLL_MS = 1500, LOG_MS = 2000, FIRST_BYTES = 32768, MAX_LOG = 200000;
const ENDED = ["succeeded", "failed", "cancelled"];

function Log({ id }) {
  const [text, setText] = useState(null);
  const next = useRef(-FIRST_BYTES), box = useRef(null), low = useRef(true);
  usePoll(async () => {
    const part = await maybe(`/v1/jobs/${id}/log?offset=${next.current}`);
    if (!part) return null;
    next.current = part.next_offset;
    if (part.text) setText((old) => ((old || "") + part.text).slice(-MAX_LOG));
    else setText((old) => old || "");
    return part.next_offset;
  }, LOG_MS, id);
  useEffect(() => { if (box.current && low.current) box.current.scrollTop = box.current.scrollHeight; }, [text]);
  if (text === null) return null;
  const moved = () => { low.current = box.current.scrollHeight - box.current.scrollTop - box.current.clientHeight < 30; };
  return html`<section class="card"><h2>Log</h2>
    <pre id="log" class="log" ref=${box} tabindex="0" role="log" aria-label="Log" onScroll=${moved}>${text || "nothing yet"}</pre></section>`;
}

function Progress({ job, followed }) {
  const now = job.progress || followed.progress;
  if (!now || !now.total) return null;
  const left = job.status === "running" ? now.eta_s ?? secondsLeft(followed) : NaN;
  return html`<div class="progress"><progress class="wide" id="progress-bar" aria-label="progress" max=${now.total} value=${now.done}></progress>
    <p><span id="progress">${`${now.done} of ${now.total}`}</span>${now.message ? html` · ${now.message}` : null}
      ${Number.isFinite(left) ? html` · <span id="eta">about ${duration(left)} left</span>` : null}</p></div>`;
}

function Actions({ job, changed }) {
  const { error, busy, act } = useAction();
  const post = (what) => act(async () => { await call(`/v1/jobs/${job.id}/${what}`, { method: "POST" }); await changed(); });
  const ended = ENDED.includes(job.status);
  return html`<div class="actions">
      <button type="button" id="pause" disabled=${busy || job.status !== "running"} onClick=${() => post("pause")}>Pause</button>
      <button type="button" id="resume" disabled=${busy || job.status !== "paused"} onClick=${() => post("resume")}>Resume</button>
      <${Sure} id="cancel" question="Cancel it? Click again" disabled=${ended} onSure=${() => post("cancel")}>Cancel<//>
      ${job.spec.kind === "loop" ? html`<a href="#/loop">See the loop</a>` : null}
      ${job.result && job.result.version ? html`<a href=${`#/models/${job.result.version}`}>See version ${job.result.version.slice(0, 12)}</a>` : null}
    </div><${Failure} text=${error} />`;
}

/** Plain values of an object, one row each; what nests is shown as JSON. */
const rows = (values) => Object.entries(values || {}).map(([name, value]) =>
  [name.replaceAll("_", " "), html`<span class="value">${typeof value === "object" ? JSON.stringify(value) : String(value)}</span>`]);

const FIRST = /success|reward|return/; // what a person looks for

const ordered = (series) => Object.entries(series).filter(([, { values }]) => values.some((value) => value !== null))
  .sort(([one], [other]) => FIRST.test(other) - FIRST.test(one) || one.localeCompare(other));

export function Job({ id }) {
  const followed = useEvents(id);
  const { data: job, error, refresh } = usePoll(() => call(`/v1/jobs/${id}`), POLL_MS, id);
  const series = useSeries(id, followed);
  useEffect(() => { if (followed.statuses) refresh(); }, [followed.statuses]);
  if (!job) return html`<p><a href="#/jobs">All jobs</a></p><${Failure} text=${error} />`;
  const { kind, task, config, ...rest } = job.spec;
  return html`<p class="crumbs"><a href="#/jobs">All jobs</a></p>
    <div class="head"><h1>${kind.replaceAll("_", " ")}</h1><p>${task || ""}</p>
      <${Badge} tone=${TONES[job.status]}><span id="job-state">${job.status}</span><//></div>
    <${Failure} text=${error || job.error} />
    <section class="card" aria-label="State"><${Progress} job=${job} followed=${followed} />
      <${Facts} rows=${[["Job", html`<code>${id}</code>`], ["Created", html`<${Ago} iso=${job.created} />`],
        job.started && ["Took", took(job)], job.parent && ["Of", job.parent]]} />
      <${Actions} job=${job} changed=${refresh} /></section>
    ${job.result ? html`<section class="card"><h2>Result</h2><${Facts} rows=${rows(job.result)} /></section>` : null}
    <div class="charts" id="charts">${ordered(series).map(([name, { xs, values }]) =>
      html`<${Chart} key=${name} name=${name.replaceAll("_", " ")} xs=${xs} lines=${[{ label: name, values }]} />`)}</div>
    <${Log} id=${id} />
    <details class="card"><summary>What was asked</summary><${Facts} rows=${rows(rest)} />
      ${config ? html`<h3>Config</h3><${Facts} rows=${rows(config)} />` : null}</details>`;
}
