// The frame of the page: navigation, the stop of all robots, the token, and the view that the address names.
import { html, render, useEffect, useState } from "./vendor/htm-preact.js";
import { call, setToken, whenLocked } from "./api.js";
import { findStopPort, StopButton, StopReport } from "./stop.js";
import { usePoll } from "./ui.js";
import { Robots } from "./robots.js";
import { Episodes } from "./episodes.js";
import { Jobs } from "./jobs.js";
import { Models } from "./models.js";
import { Loop } from "./loop.js";

const VIEWS = {
  robots: ["Robots", Robots], jobs: ["Jobs", Jobs], episodes: ["Episodes", Episodes], models: ["Models", Models], loop: ["Loop", Loop],
};
const HEALTH_MS = 5000;

function route() {
  const [path, words] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/").map(decodeURIComponent);
  return { view: VIEWS[view] ? view : "robots", rest, words: new URLSearchParams(words) };
}

function useRoute() {
  const [where, setWhere] = useState(route);
  useEffect(() => {
    const moved = () => setWhere(route());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return where;
}

function Login({ enter }) {
  const submit = (event) => {
    event.preventDefault();
    const field = event.target.elements.token;
    setToken(field.value.trim());
    field.value = "";
    enter();
  };
  return html`<form id="login" class="card" onSubmit=${submit}>
    <label for="token">Token, of scope operator, trainer or admin</label>
    <input id="token" name="token" type="password" autocomplete="off" required />
    <button class="primary">Enter</button>
    <p class="hint">It is kept by this tab until the tab is closed. <code>pirl token create NAME --scope operator</code> makes one.</p>
  </form>`;
}

function Health({ known }) {
  const { data, error } = usePoll(async () => {
    const reply = await fetch("/readyz", { cache: "no-store" });
    return { ready: reply.ok, ...(await reply.json()) };
  }, HEALTH_MS);
  const [tone, text, why] = error ? ["bad", "no connection", error]
    : !data ? ["quiet", "connecting", ""]
    : !data.ready ? ["bad", "not ready", data.detail]
    : data.status === "degraded" ? ["warn", "degraded", data.degraded.join("; ")] : ["good", "serving", ""];
  return html`<span class="health" role="status"><span class=${`dot ${tone}`} aria-hidden="true"></span>
    ${text}${known && known.robot ? html`<span class="wide"> · ${known.robot}</span>` : null}
    ${why ? html`<span class="why">: ${why}</span>` : null}</span>`;
}

function App() {
  const where = useRoute();
  const [entered, setEntered] = useState(0);
  const [locked, setLocked] = useState("");
  const [known, setKnown] = useState(null);
  const [stopped, setStopped] = useState(null);
  useEffect(() => whenLocked((message) => setLocked(message)), []);
  useEffect(() => {
    findStopPort().catch(() => {});
    call("/v1/info").then((info) => { setKnown(info); setLocked(""); }, () => {});
  }, [entered]);
  useEffect(() => { document.title = `pirl: ${VIEWS[where.view][0].toLowerCase()}`; }, [where.view]);
  const enter = () => { setLocked(""); setEntered(entered + 1); };
  const [, View] = VIEWS[where.view];
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to content</a>
    <header>
      <div class="bar">
        <a class="brand" href="#/robots">pirl</a>
        <${Health} known=${known} />
        <nav aria-label="Views">${Object.entries(VIEWS).map(([name, [title]]) =>
          html`<a key=${name} href=${`#/${name}`} aria-current=${name === where.view ? "page" : undefined}>${title}</a>`)}</nav>
        <${StopButton} id="stop-all" report=${setStopped} />
      </div>
      <${StopReport} result=${stopped} close=${() => setStopped(null)} />
    </header>
    <main id="main" tabindex="-1">
      <p id="message" role="status" aria-live="polite" class=${locked ? "failure" : ""}>${locked}</p>
      ${locked ? html`<${Login} enter=${enter} />` : html`<${View} key=${entered} where=${where} report=${setStopped} />`}
    </main>
    <footer>Stops from here are software, not safety-rated: they are cleared at the robot. <a href="/docs">REST API</a></footer>`;
}

render(html`<${App} />`, document.getElementById("app"));
