// Labels by key or button, with undo; and the decision on what a success model proposes.
import { html, useEffect, useRef } from "./vendor/htm-preact.js";
import { call, Rejected } from "./api.js";
import { Badge, Failure, useAction } from "./ui.js";

/** Key -> [what it says, work(episode)]. */
export const KEYS = {
  s: ["success", (episode) => label(episode, true)],
  f: ["failure", (episode) => label(episode, false)],
  d: ["drop the label", (episode) => label(episode, null)],
  u: ["undo", (episode) => changed(episode, "/labels/undo")],
  a: ["accept the proposal", (episode) => decide(episode, "accept")],
  x: ["reject the proposal", (episode) => decide(episode, "reject")],
};

const changed = (episode, path, body) => call(`/v1/episodes/${episode.id}${path}`, {
  method: "POST", body, headers: { "If-Match": `"${episode.etag}"` }, // 412 where it was labelled by another person meanwhile
});
const label = (episode, success) => changed(episode, "/labels", { success, source: "operator", note: "" });

async function decide(episode, decision) {
  const seen = { [episode.id]: episode.proposal.at }; // a newer one, which nobody has looked at, is not accepted unseen
  const { data: [done] } = await call("/v1/proposals", { method: "POST", body: { decision, episodes: [episode.id], seen } });
  if (done.error) throw Object.assign(new Error(done.error), { status: 412 });
  return call(`/v1/episodes/${episode.id}`);
}

const isOpen = (episode) => episode.proposal && episode.proposal.state === "open";
const allowed = (key, episode) => !["a", "x"].includes(key) || isOpen(episode);

/** The keys of a view: `keys` by name; not while a person types, nor with Ctrl, Alt or Meta. */
export function useKeys(keys) {
  const held = useRef(keys);
  held.current = keys;
  useEffect(() => {
    const press = (event) => {
      const typed = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range";
      const work = held.current[event.key];
      if (!work || typed || event.ctrlKey || event.altKey || event.metaKey) return;
      if (["Enter", " "].includes(event.key) && /^(BUTTON|A|SUMMARY)$/.test(event.target.tagName)) return;
      event.preventDefault();
      work();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

/**
 * {error, keys, press} that label the episode that `current()` returns at the moment of the press, however fast keys follow
 * each other; one request after the other. `done(episode)` gets it as it is then.
 */
export function useLabels(current, done) {
  const { error, act } = useAction();
  const queue = useRef(Promise.resolve()), known = useRef({});
  const press = (key) => {
    const pressed = current();
    if (!pressed || !allowed(key, pressed)) return;
    queue.current = queue.current.then(() => act(async () => {
      const mine = known.current[pressed.id], newest = mine && mine.label_count >= pressed.label_count ? mine : pressed;
      try {
        known.current[pressed.id] = await KEYS[key][1](newest);
      } catch (error) {
        if (error.status !== 412) throw error;
        known.current[pressed.id] = await call(`/v1/episodes/${pressed.id}`);
        const why = error instanceof Rejected ? "Another person labelled it meanwhile: nothing was changed." : error.message;
        throw new Error(`${why} This is how it is now.`);
      } finally {
        if (known.current[pressed.id]) done(known.current[pressed.id]);
      }
    }));
  };
  const keys = Object.fromEntries(Object.keys(KEYS).map((key) => [key, () => press(key)]));
  return { error, keys, press };
}

export function LabelBadge({ episode }) {
  if (episode.success === null) return html`<${Badge}>unlabelled<//>`;
  const by = `${episode.label_source}${episode.label_author ? `, ${episode.label_author}` : ""}${episode.label_note ? `: ${episode.label_note}` : ""}`;
  return html`<${Badge} tone=${episode.success ? "good" : "bad"} title=${by}>${episode.success ? "success" : "failure"}<//>`;
}

export function Proposal({ episode }) {
  if (!isOpen(episode)) return null;
  const { success, probability } = episode.proposal;
  return html`<${Badge} tone="busy" title=${`success model ${episode.proposal.model}`}>${`proposed: ${success ? "success" : "failure"}, p ${probability.toFixed(2)}`}<//>`;
}

export function LabelButtons({ episode, press, error }) {
  return html`<div class="actions labels" role="group" aria-label="Label">${Object.entries(KEYS).filter(([key]) => allowed(key, episode)).map(([key, [what]]) =>
    html`<button type="button" key=${key} id=${`label-${key}`} aria-keyshortcuts=${key} onClick=${() => press(key)}>${what} <kbd>${key}</kbd></button>`)}</div>
    <${Failure} text=${error} />`;
}
