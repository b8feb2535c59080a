// Episodes: a table with filters, labels by key, and one episode played back.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { call, query } from "./api.js";
import { Datasets } from "./datasets.js";
import { Episode } from "./episode.js";
import { LabelBadge, LabelButtons, Proposal, useKeys, useLabels } from "./labels.js";
import { Ago, Choice, Empty, Failure, short, usePoll } from "./ui.js";

const POLL_MS = 5000, PAGE = 30;
const CHOICES = {
  label: ["any", "success", "failure", "labelled", "unlabelled"], source: ["any", "policy", "human"], mode: ["any", "explore", "greedy"],
};
const TEXTS = { text: "words", robot: "robot id", version: "policy version", instruction: "whole instruction" };

/** Episodes of the first `pages` pages, by what the address says. */
async function read(words, pages) {
  const found = [];
  let cursor = "", damaged = [];
  for (let page = 0; page < pages && cursor !== null; page += 1) {
    const got = await call(`/v1/episodes${query({ ...words, limit: PAGE, cursor })}`);
    found.push(...got.data);
    [cursor, damaged] = [got.next_cursor, got.damaged];
  }
  return { episodes: found, more: cursor !== null, damaged };
}

/** The list with what was labelled here as it is now, also what the filter would leave out by then: it stays in its place. */
function withKept(listed, kept) {
  const newest = listed.map((episode) => kept[episode.id] && kept[episode.id].label_count >= episode.label_count ? kept[episode.id] : episode);
  const missing = Object.values(kept).filter((episode) => !listed.some((each) => each.id === episode.id));
  return missing.length ? [...newest, ...missing].sort((a, b) => (a.created < b.created ? 1 : a.created > b.created ? -1 : 0)) : newest;
}

function Filters({ words }) {
  const change = (name) => (value) => { location.hash = `#/episodes${query({ ...words, [name]: value === "any" ? "" : value })}`; };
  return html`<form class="filters" onSubmit=${(event) => event.preventDefault()} aria-label="Filters">
    ${Object.entries(CHOICES).map(([name, choices]) => html`<label key=${name}>${name}
      <${Choice} id=${`filter-${name}`} value=${words[name] || "any"} choices=${choices} change=${change(name)} /></label>`)}
    ${Object.entries(TEXTS).map(([name, hint]) => html`<label key=${name}>${name}
      <input id=${`filter-${name}`} type="search" defaultValue=${words[name] || ""} placeholder=${hint} onChange=${(event) => change(name)(event.target.value)} /></label>`)}</form>`;
}

function Row({ episode, chosen, choose }) {
  const row = useRef(null);
  useEffect(() => { if (chosen) row.current.scrollIntoView({ block: "nearest" }); }, [chosen]);
  return html`<tr ref=${row} aria-selected=${chosen} onClick=${choose} class="link"><td><a href=${`#/episodes/${episode.id}`}>${episode.id.slice(0, 8)}</a></td>
    <td>${episode.robot_id}</td><td class="clip" title=${episode.instruction}>${episode.instruction}</td>
    <td><span class="badges"><${LabelBadge} episode=${episode} /><${Proposal} episode=${episode} /></span></td>
    <td><code title=${episode.policy_versions.join(", ")}>${episode.policy_versions.length ? short(episode.policy_versions[episode.policy_versions.length - 1]) : "human"}</code></td>
    <td>${episode.steps}${episode.human_steps ? ` (${episode.human_steps} human)` : ""}</td><td><${Ago} iso=${episode.created} /></td></tr>`;
}

function List({ words }) {
  const [pages, setPages] = useState(1), [kept, setKept] = useState({}), [, show] = useState(0);
  const place = useRef(""), list = useRef([]); // refs: a key may follow the one before it sooner than the page is drawn
  const { data, error, refresh } = usePoll(() => read(words, pages), POLL_MS, `${JSON.stringify(words)} ${pages}`);
  const episodes = withKept(data ? data.episodes : [], kept);
  list.current = episodes;
  if (!place.current && episodes.length) place.current = episodes[0].id; // not whichever is first by then: a key labels what is chosen
  const current = () => list.current.find((episode) => episode.id === place.current);
  const chosen = current();
  const choose = (id) => { place.current = id; show((number) => number + 1); };
  const labels = useLabels(current, (episode) => { setKept((old) => ({ ...old, [episode.id]: episode })); refresh(); });
  const move = (by) => () => {
    const to = current() ? list.current.indexOf(current()) + by : 0;
    if (list.current[to]) choose(list.current[to].id);
  };
  useKeys({ ...labels.keys, j: move(1), k: move(-1), ArrowDown: move(1), ArrowUp: move(-1), Enter: () => { if (current()) location.hash = `#/episodes/${current().id}`; } });
  return html`<div class="head"><h1>Episodes</h1>${data ? html`<p>${episodes.length}${data.more ? " or more" : ""}</p>` : null}</div>
    <${Filters} words=${words} /><${Failure} text=${error} />
    ${data && data.damaged.length ? html`<p class="failure">${data.damaged.length} damaged, not in the list</p>` : null}
    ${data && !episodes.length ? html`<${Empty}>No such episode.<//>` : null}
    ${chosen ? html`<div class="sticky"><p class="hint"><kbd>j</kbd> <kbd>k</kbd> choose, <kbd>Enter</kbd> plays it. The chosen one, <b>${chosen.id.slice(0, 8)}</b>, is a:</p>
      <${LabelButtons} episode=${chosen} press=${labels.press} error=${labels.error} /></div>
    <div class="scroll card" tabindex="0" role="region" aria-label="List of episodes"><table>
      <thead><tr>${["Episode", "Robot", "Instruction", "Label", "Version", "Steps", "Recorded"].map((head) => html`<th scope="col">${head}</th>`)}</tr></thead>
      <tbody id="episodes">${episodes.map((episode) => html`<${Row} key=${episode.id} episode=${episode} chosen=${episode === chosen} choose=${() => choose(episode.id)} />`)}</tbody>
    </table></div>` : null}
    ${data && data.more ? html`<button type="button" onClick=${() => setPages(pages + 1)}>More episodes</button>` : null}
    <${Datasets} words=${words} />`;
}

export function Episodes({ where }) {
  const [id] = where.rest;
  return id ? html`<${Episode} key=${id} id=${id} />` : html`<${List} key=${String(where.words)} words=${Object.fromEntries(where.words)} />`;
}
