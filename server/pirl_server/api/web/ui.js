// What the views share: polling, times, badges, buttons that ask twice.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";

/** Calls `read()` now and every `everyMs` while the page is seen; another `key` starts over. Returns {data, error, refresh}. */
export function usePoll(read, everyMs, key = "") {
  const [state, setState] = useState({ key });
  const refresh = useRef(() => {});
  useEffect(() => {
    let timer = 0, round = 0, over = false;
    const look = async () => {
      const mine = ++round;
      clearTimeout(timer);
      try {
        const data = document.hidden ? undefined : await read();
        if (!over && mine === round && data !== undefined) setState({ key, data });
      } catch (error) {
        if (!over && mine === round) setState((old) => ({ key, data: old.key === key ? old.data : undefined, error: error.message }));
      }
      if (!over && mine === round) timer = setTimeout(look, everyMs);
    };
    const seen = () => { if (!document.hidden) look(); };
    refresh.current = look;
    look();
    document.addEventListener("visibilitychange", seen);
    return () => {
      over = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [key]);
  const { data, error } = state.key === key ? state : {};
  return { data, error, refresh: () => refresh.current() };
}

/** Runs actions one after the other and keeps the error of the last: {busy, error, act(work)}. */
export function useAction() {
  const [state, setState] = useState({ busy: false, error: "" });
  const act = async (work) => {
    setState({ busy: true, error: "" });
    try {
      const result = await work();
      setState({ busy: false, error: "" });
      return result;
    } catch (error) {
      const fields = (error.errors || []).map((each) => each.message).filter((text) => !error.message.includes(text));
      setState({ busy: false, error: [error.message, ...fields].join("; ") });
      return undefined;
    }
  };
  return { ...state, act };
}

export const clock = (time) => time.toLocaleTimeString([], { hour12: false });
export const day = (iso) => iso.slice(0, 10);
export const short = (version) => (version ? version.slice(0, 12) : "none");
export const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(part && part < whole / 100 ? 1 : 0)} %` : "none");

/** 90 s -> "1 min 30 s". */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "unknown";
  const whole = Math.max(0, Math.round(seconds)), hours = Math.floor(whole / 3600), minutes = Math.floor((whole % 3600) / 60);
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

/** How long ago a moment was, with the moment itself as title. */
export function Ago({ iso }) {
  if (!iso) return "never";
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  const text = seconds < 2 ? "now" : seconds < 86400 ? `${duration(seconds)} ago` : day(iso);
  return html`<time datetime=${iso} title=${iso}>${text}</time>`;
}

/** A word with a colour that says the same. `tone`: good, bad, warn, busy or quiet. */
export const Badge = ({ tone = "quiet", title, children }) => html`<span class=${`badge ${tone}`} title=${title}>${children}</span>`;

export const Failure = ({ text }) => html`<p role="alert" class="failure">${text || ""}</p>`;

export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

/** A button that acts on its second press within five seconds: for what can't be taken back. */
export function Sure({ id, question, disabled, onSure, children, tone = "" }) {
  const [asked, setAsked] = useState(false);
  useEffect(() => {
    if (!asked) return undefined;
    const timer = setTimeout(() => setAsked(false), 5000);
    return () => clearTimeout(timer);
  }, [asked]);
  const press = () => {
    setAsked(!asked);
    if (asked) onSure();
  };
  return html`<button type="button" id=${id} class=${asked ? "danger" : tone} disabled=${disabled} onClick=${press}>
    ${asked ? question : children}</button>`;
}

/** A select; `choices` are values, or [value, text] each. */
export const Choice = ({ value, choices, change, ...more }) => html`<select ...${more} onChange=${(event) => change(event.target.value)}>
  ${choices.map((each) => (Array.isArray(each) ? each : [each, each])).map(([name, text]) =>
    html`<option key=${name} value=${name} selected=${name === value}>${text}</option>`)}</select>`;

/** Rows of name and value. */
export const Facts = ({ rows }) => html`<dl class="facts">${rows.filter(Boolean).map(([name, value, id]) =>
  html`<div><dt>${name}</dt><dd id=${id}>${value}</dd></div>`)}</dl>`;

/** A bar with its text. */
export const Bar = ({ id, label, value, most, children }) => html`
  ${most ? html`<progress id=${`${id}-bar`} aria-label=${label} max=${most} value=${value}></progress>` : null}
  <span id=${id}>${children}</span>`;
