// A job's events as they come: progress, and its numbers as series.
import { useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { events, maybe, query } from "./api.js";
import { usePoll } from "./ui.js";

const AGAIN_MS = 2000, SHOW_MS = 250, MAX_POINTS = 1200, METRICS_MS = 2000;

/** Thins a series to half by leaving out every other point. */
function thinned(series) {
  const keep = (_, index) => index % 2 === 0;
  return { xs: series.xs.filter(keep), values: series.values.filter(keep) };
}

function take(state, event) {
  const { time, ...values } = event.data;
  if (event.type === "progress") {
    if (!state.first || values.total !== state.progress.total || values.done < state.progress.done) state.first = { done: values.done, time };
    state.progress = { ...values, time };
  } else if (event.type === "status") {
    state.first = null;
    state.statuses += 1;
  } else if (event.type === "metrics") {
    const { step, ...numbers } = values;
    state.count += 1;
    for (const [name, value] of Object.entries(numbers)) {
      const series = state.series[name] || { xs: [], values: [] };
      series.xs.push(step ?? state.count);
      series.values.push(value);
      state.series[name] = series.xs.length > MAX_POINTS ? thinned(series) : series;
    }
  }
}

/** Seconds that are left at the pace since progress began; NaN: not known. */
export function secondsLeft({ first, progress }) {
  if (!first || !progress || progress.done <= first.done) return NaN;
  return ((progress.total - progress.done) * (progress.time - first.time)) / (progress.done - first.done);
}

/** Follows a job: {progress, first, series, statuses}. `statuses` counts its changes of status. */
export function useEvents(id) {
  const state = useRef(null);
  const [, show] = useState(0);
  state.current = state.current || { last: 0, count: 0, statuses: 0, progress: null, first: null, series: {} };
  useEffect(() => {
    const stop = new AbortController();
    let timer = 0, due = 0;
    const soon = () => { due = due || setTimeout(() => { due = 0; show((number) => number + 1); }, SHOW_MS); };
    const follow = async () => {
      try {
        for await (const event of events(`/v1/jobs/${id}/events`, state.current.last, stop.signal)) {
          state.current.last = event.id;
          take(state.current, event);
          soon();
        }
      } catch { /* the view's own poll says what is wrong */ }
      if (!stop.signal.aborted) timer = setTimeout(follow, AGAIN_MS);
    };
    follow();
    return () => {
      stop.abort();
      clearTimeout(timer);
      clearTimeout(due);
    };
  }, [id]);
  return state.current;
}

/** Series of a job by name, {xs, values} each: those that the server keeps, else those of the events. */
export function useSeries(id, followed) {
  const { data } = usePoll(() => maybe(`/v1/jobs/${id}/metrics${query({ points: 600 })}`), METRICS_MS, id);
  if (!data || !data.data.length) return followed.series;
  return Object.fromEntries(data.data.filter((each) => each.name !== "step").map((each) => [each.name, { xs: each.steps, values: each.values }]));
}
