// Datasets: lists of episodes that are frozen under a name, and the form that freezes what the filters show.
import { html, useState } from "./vendor/htm-preact.js";
import { call } from "./api.js";
import { Ago, Badge, Empty, Failure, useAction, usePoll } from "./ui.js";

const POLL_MS = 15000;
const FIELDS = { robot: "robots", version: "versions", instruction: "instructions" };

/** The selection of a dataset, by the filters' names; those that may be repeated are lists there. */
function selection(words) {
  const given = Object.entries(words).filter(([, value]) => value);
  return Object.fromEntries(given.map(([name, value]) => (FIELDS[name] ? [FIELDS[name], [value]] : [name, value])));
}

function Row({ dataset }) {
  const { error, busy, act } = useAction();
  const [checked, setChecked] = useState(null);
  const check = () => act(async () => setChecked(await call(`/v1/datasets/${encodeURIComponent(dataset.name)}`)));
  const faults = checked && checked.faults;
  return html`<tr><td><b>${dataset.name}</b></td><td>${dataset.episodes}</td><td>${dataset.successes} / ${dataset.failures}</td>
    <td><code title=${dataset.sha256}>${dataset.sha256.slice(0, 12)}</code></td><td><${Ago} iso=${dataset.created} /> by ${dataset.author}</td>
    <td>${faults ? html`<${Badge} tone=${faults.length ? "bad" : "good"} title=${faults.join("\n")}>${faults.length ? `${faults.length} changed or missing` : "as frozen"}<//>`
      : html`<button type="button" id=${`check-${dataset.name}`} disabled=${busy} onClick=${check}>Check</button>`}<${Failure} text=${error} /></td></tr>`;
}

export function Datasets({ words }) {
  const { data, error: unread, refresh } = usePoll(() => call("/v1/datasets"), POLL_MS);
  const { error, busy, act } = useAction();
  const freeze = (event) => {
    event.preventDefault();
    const field = event.target.elements["dataset-name"];
    act(async () => {
      await call("/v1/datasets", { method: "POST", body: { name: field.value.trim(), select: selection(words) } });
      field.value = "";
      await refresh();
    });
  };
  return html`<details class="card" id="datasets"><summary>Datasets${data ? ` (${data.data.length})` : ""}</summary>
    <p class="hint">A dataset is these episodes with the labels that they have now, for jobs that can be repeated: name it as <code>dataset</code> of a job.</p>
    <form class="actions" onSubmit=${freeze}>
      <input name="dataset-name" id="dataset-name" required aria-label="Name of a new dataset" placeholder="Name" maxlength="100" />
      <button id="dataset-freeze" disabled=${busy}>Freeze the episodes that the filters show</button></form>
    <${Failure} text=${error || unread} />
    ${data ? data.damaged.map((each) => html`<p class="failure" key=${each.name}>${each.name}: ${each.reason}</p>`) : null}
    ${data && data.data.length ? html`<div class="scroll" tabindex="0" role="region" aria-label="List of datasets"><table>
      <thead><tr>${["Name", "Episodes", "Success / failure", "SHA-256", "Made", "State"].map((head) => html`<th scope="col">${head}</th>`)}</tr></thead>
      <tbody>${data.data.map((dataset) => html`<${Row} key=${dataset.name} dataset=${dataset} />`)}</tbody></table></div>`
      : html`<${Empty}>None yet.<//>`}</details>`;
}
