// Jobs: the list, a form that starts one, and one job with its curves.
import { html, useState } from "./vendor/htm-preact.js";
import { call, query } from "./api.js";
import { Job } from "./job.js";
import { JobForm } from "./job_form.js";
import { Ago, Badge, Choice, duration, Empty, Failure, usePoll } from "./ui.js";

const POLL_MS = 2000, PAGE = 30;
const STATUSES = ["queued", "running", "paused", "succeeded", "failed", "cancelled"];
export const TONES = { queued: "quiet", running: "busy", paused: "warn", pausing: "warn", succeeded: "good", failed: "bad", cancelled: "quiet" };

export function took(job) {
  if (!job.started) return "";
  const end = job.finished ? Date.parse(job.finished) : Date.now();
  return duration((end - Date.parse(job.started)) / 1000);
}

async function pages(status, number) {
  const found = [];
  let after = "", more = true;
  for (let page = 0; page < number && more; page += 1) {
    const got = await call(`/v1/jobs${query({ limit: PAGE, status, after })}`);
    found.push(...got.data);
    [after, more] = [got.last_id, got.has_more];
  }
  return { jobs: found, more };
}

const about = (spec) => spec.task || spec.path || spec.name || "";

function Row({ job }) {
  return html`<tr><td><a href=${`#/jobs/${job.id}`}>${job.spec.kind.replaceAll("_", " ")}</a></td>
    <td class="clip">${about(job.spec)}</td><td><${Badge} tone=${TONES[job.status]}>${job.status}<//></td>
    <td><${Ago} iso=${job.created} /></td><td>${took(job)}</td>
    <td class="clip">${job.error || (job.result && job.result.version) || (job.parent ? `of loop ${job.parent.slice(0, 12)}` : "")}</td></tr>`;
}

function List() {
  const [status, setStatus] = useState(""), [kind, setKind] = useState(""), [number, setNumber] = useState(1);
  const { data, error } = usePoll(() => pages(status, number), POLL_MS, `${status} ${number}`);
  const jobs = data ? data.jobs : [], kinds = [...new Set(jobs.map((job) => job.spec.kind))];
  const seen = jobs.filter((job) => !kind || job.spec.kind === kind);
  return html`<div class="head"><h1>Jobs</h1>
      <label>Status <${Choice} id="job-status" value=${status} change=${setStatus} choices=${[["", "all"], ...STATUSES]} /></label>
      <label>Kind <${Choice} id="job-kind" value=${kind} change=${setKind} choices=${[["", "all"], ...kinds]} /></label>
      <a class="button primary end" id="new-job" href="#/jobs/new">Start a job</a></div>
    <${Failure} text=${error} />
    ${data && !seen.length ? html`<${Empty}>No such job.<//>` : null}
    ${seen.length ? html`<div class="scroll card" tabindex="0" role="region" aria-label="List of jobs"><table>
      <thead><tr>${["Kind", "Task", "Status", "Created", "Took", "Outcome"].map((head) => html`<th scope="col">${head}</th>`)}</tr></thead>
      <tbody id="jobs">${seen.map((job) => html`<${Row} key=${job.id} job=${job} />`)}</tbody></table></div>` : null}
    ${data && data.more ? html`<button type="button" onClick=${() => setNumber(number + 1)}>Older jobs</button>` : null}`;
}

export function Jobs({ where }) {
  const [which] = where.rest;
  if (which === "new") return html`<${JobForm} kind=${where.rest[1] || ""} />`;
  return which ? html`<${Job} key=${which} id=${which} />` : html`<${List} />`;
}
