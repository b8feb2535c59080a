// One episode: its images over time, who drove, where chunks began, what was altered, and its actions as curves.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { call } from "./api.js";
import { Chart } from "./chart.js";
import { useFrame } from "./frames.js";
import { LabelBadge, LabelButtons, Proposal, useKeys, useLabels } from "./labels.js";
import { Ago, Facts, Failure, short, usePoll } from "./ui.js";

const POINTS = 800, NAMES = { policy: "policy", human: "human", hold: "hold" };

function Frame({ id, camera, step, steps }) {
  const { url, exact } = useFrame(id, camera, step, steps);
  return html`<figure class="live">${url ? html`<img src=${url} data-step=${exact ? step : ""} alt=${`camera ${camera} at step ${step}`} />`
    : html`<div class="no-image">no image</div>`}<figcaption>${camera}</figcaption></figure>`;
}

/** Who drove each step as a coloured strip, chunks as ticks above, altered steps as marks below, and the step shown. */
function Strip({ data, step }) {
  const total = Math.max(1, data.steps), width = Math.max(1, data.stride);
  const said = data.runs.map((run) => `${NAMES[run.source] || run.source} ${run.first} to ${run.after - 1}`).join(", ");
  return html`<svg class="strip" viewBox=${`0 0 ${total} 30`} preserveAspectRatio="none" role="img" aria-label=${`steps driven by: ${said}; ${data.chunks.length} chunks`}>
    ${data.runs.map((run) => html`<rect class=${`run ${run.source}`} x=${run.first} y="8" width=${run.after - run.first} height="14" />`)}
    ${data.chunks.map((at) => html`<line class="tick" x1=${at} x2=${at} y1="2" y2="22" />`)}
    ${data.step.map((at, index) => data.alterations[index] ? html`<rect class="altered" x=${at} y="24" width=${width} height="5" />` : null)}
    <line class="now" x1=${step + 0.5} x2=${step + 0.5} y1="0" y2="30" /></svg>
    <p class="legend">${[...new Set(data.runs.map((run) => run.source))].map((source) => html`<span class=${`swatch ${source}`}>${NAMES[source] || source}</span>`)}
      <span class="swatch tick-key">chunk begins</span>${data.alterations.some(Boolean) ? html`<span class="swatch altered-key">altered by the governor</span>` : null}</p>`;
}

/** Plays at the pace of the robot. */
function usePlayer(data) {
  const [step, setStep] = useState(0), [playing, setPlaying] = useState(false);
  const last = data ? Math.max(0, data.steps - 1) : 0;
  const place = useRef(0); // a key may follow the one before it sooner than the page is drawn
  const go = (to) => {
    place.current = Math.max(0, Math.min(last, to));
    setStep(place.current);
  };
  useEffect(() => {
    if (!playing) return undefined;
    const began = performance.now(), from = step >= last ? 0 : step;
    const timer = setInterval(() => {
      const at = from + Math.floor(((performance.now() - began) * data.rate_hz) / 1000);
      go(at);
      if (at >= last) setPlaying(false);
    }, 1000 / Math.min(30, data.rate_hz));
    return () => clearInterval(timer);
  }, [playing]);
  const jump = (to) => { setPlaying(false); go(typeof to === "function" ? to(place.current) : to); };
  return { step, last, playing, go: jump, toggle: () => setPlaying((now) => !now) };
}

function Player({ id, data }) {
  const { step, last, playing, go, toggle } = usePlayer(data);
  useKeys({
    " ": toggle, ArrowLeft: () => go((now) => now - 1), ArrowRight: () => go((now) => now + 1),
    "[": () => go((now) => data.chunks.findLast((at) => at < now) ?? 0), "]": () => go((now) => data.chunks.find((at) => at > now) ?? last),
  });
  const seconds = data.time_s[Math.min(data.time_s.length - 1, Math.floor(step / data.stride))] || 0;
  const lines = data.executed.map((channel) => ({ label: `${channel.name}, ${channel.unit}`, values: channel.values }));
  return html`<section class="card player" aria-label="Playback">
    <div class="cameras">${data.cameras.map((camera) => html`<${Frame} key=${camera} id=${id} camera=${camera} step=${step} steps=${data.steps} />`)}</div>
    <div class="actions"><button type="button" id="play" class="primary" onClick=${toggle}>${playing ? "Pause" : "Play"}</button>
      <output id="step-now">${`step ${step} of ${last}, ${seconds.toFixed(2)} s`}</output>
      <span class="hint"><kbd>space</kbd> plays, <kbd>←</kbd> <kbd>→</kbd> one step, <kbd>[</kbd> <kbd>]</kbd> one chunk</span></div>
    <input id="scrub" type="range" min="0" max=${last} value=${step} aria-label="Step" onInput=${(event) => go(Number(event.target.value))} />
    <${Strip} data=${data} step=${step} />
    ${data.step.length ? html`<${Chart} name="executed action" xs=${data.step} lines=${lines} height=${220} at=${step} />
      <${Chart} name="reward" xs=${data.step} lines=${[{ label: "reward", values: data.reward }]} height=${110} at=${step} />` : null}</section>`;
}

export function Episode({ id }) {
  const { data: fresh, error } = usePoll(() => call(`/v1/episodes/${id}`), 5000, id);
  const steps = usePoll(() => call(`/v1/episodes/${id}/steps?points=${POINTS}`), 1e8, id);
  const [kept, keep] = useState(null);
  const episode = kept && fresh && kept.label_count >= fresh.label_count ? kept : fresh;
  const labels = useLabels(() => episode, keep);
  useKeys(labels.keys);
  if (!episode) return html`<p class="crumbs"><a href="#/episodes">All episodes</a></p><${Failure} text=${error} />`;
  return html`<p class="crumbs"><a href="#/episodes">All episodes</a></p>
    <div class="head"><h1>${episode.instruction}</h1><span class="badges" id="label"><${LabelBadge} episode=${episode} /><${Proposal} episode=${episode} /></span></div>
    <${Failure} text=${error || steps.error} />
    <${LabelButtons} episode=${episode} press=${labels.press} error=${labels.error} />
    ${steps.data ? html`<${Player} id=${id} data=${steps.data} />` : null}
    <section class="card"><${Facts} rows=${[
      ["Episode", html`<code>${id}</code>`], ["Robot", episode.robot_id], ["Recorded", html`<${Ago} iso=${episode.created} />`],
      ["Ended by", episode.end_reason.replaceAll("_", " ")],
      ["Versions", episode.policy_versions.length ? episode.policy_versions.map((version) => html`<a href=${`#/models/${version}`}><code>${short(version)}</code></a> `) : "none: a human drove"],
      ["Steps", `${episode.steps}, ${episode.calls} policy calls`], ["Note", episode.label_note || "none"],
      episode.dry_run && ["Dry run", "no action reached an arm"],
    ]} /></section>`;
}
