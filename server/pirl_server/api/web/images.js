// Live images: those on the screen take turns, so that any number of robots costs the server a few requests a second.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { fetched } from "./api.js";

const PER_SECOND = 10, RENEW_MS = 1000;
const shown = new Set();
let timer = 0;

async function renew(each) {
  each.last = performance.now();
  try {
    const reply = await fetched(each.path, { headers: each.etag ? { "If-None-Match": each.etag } : {} });
    if (reply.status === 304 || !shown.has(each)) return;
    each.etag = reply.headers.get("ETag");
    each.show(URL.createObjectURL(await reply.blob()));
  } catch (error) {
    each.show("");
  }
}

async function turn() {
  const began = performance.now();
  const due = [...shown].filter((each) => each.visible && began - each.last >= RENEW_MS).sort((a, b) => a.last - b.last)[0];
  if (due && !document.hidden) await renew(due);
  timer = shown.size ? setTimeout(turn, Math.max(0, 1000 / PER_SECOND - (performance.now() - began))) : 0;
}

/** The newest image of a robot's camera. */
export function LiveImage({ robot, camera, width, height }) {
  const [url, setUrl] = useState("");
  const box = useRef(null), held = useRef("");
  useEffect(() => {
    const show = (next) => {
      URL.revokeObjectURL(held.current);
      held.current = next;
      setUrl(next);
    };
    const path = `/v1/robots/${encodeURIComponent(robot)}/images/${encodeURIComponent(camera)}.jpg`;
    const each = { path, show, etag: "", last: -RENEW_MS, visible: false };
    const looks = new IntersectionObserver((found) => { each.visible = found.some((one) => one.isIntersecting); });
    looks.observe(box.current);
    shown.add(each);
    if (!timer) timer = setTimeout(turn, 0);
    return () => {
      shown.delete(each);
      looks.disconnect();
      URL.revokeObjectURL(held.current);
    };
  }, [robot, camera]);
  return html`<figure ref=${box} class="live">
    ${url ? html`<img src=${url} alt=${`camera ${camera} of robot ${robot}`} />` : html`<div class="no-image" style=${{ aspectRatio: `${width} / ${height}` }}>no image</div>`}
    <figcaption>${camera}</figcaption></figure>`;
}
