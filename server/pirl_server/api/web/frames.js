// Images of an episode: fetched a little ahead, and kept while it is looked at.
import { useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { fetched } from "./api.js";

const AHEAD = 12, KEPT = 240, AT_ONCE = 4;

/** The image of a camera at a step: {url, exact}; `exact` false: an earlier one, until it is there. */
export function useFrame(episode, camera, step, steps) {
  const cache = useRef(new Map()), busy = useRef(0), wanted = useRef(step), over = useRef(false);
  const [, show] = useState(0);
  wanted.current = step;
  const fill = () => {
    for (let each = wanted.current; each < Math.min(steps, wanted.current + AHEAD) && busy.current < AT_ONCE; each += 1) {
      if (!cache.current.has(each)) load(each);
    }
  };
  const load = async (each) => {
    busy.current += 1;
    cache.current.set(each, "");
    try {
      const reply = await fetched(`/v1/episodes/${episode}/frames/${encodeURIComponent(camera)}/${each}.jpg`);
      if (!over.current) cache.current.set(each, URL.createObjectURL(await reply.blob()));
    } catch { /* the image before it stays */ }
    busy.current -= 1;
    for (const old of cache.current.keys()) {
      if (cache.current.size <= KEPT) break;
      URL.revokeObjectURL(cache.current.get(old));
      cache.current.delete(old);
    }
    if (over.current) return;
    show((number) => number + 1);
    fill();
  };
  useEffect(fill, [step]);
  useEffect(() => () => {
    over.current = true;
    cache.current.forEach((url) => URL.revokeObjectURL(url));
  }, []);
  for (let each = step; each >= 0; each -= 1) {
    const url = cache.current.get(each);
    if (url) return { url, exact: each === step };
  }
  return { url: "", exact: false };
}
