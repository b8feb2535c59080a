// The loop's page: asks the REST API every second and writes what it says as text, never as markup.
"use strict";

const POLL_MS = 1000, LIST_MS = 10000, SURE_MS = 5000;
const PHASES = {
  collect: "collects episodes of the production version",
  learn: "learns from them",
  evaluate_base: "evaluates the production version in simulation",
  evaluate_candidate: "evaluates the candidate in simulation",
  canary: "tries the candidate on a few robots",
  watch: "watches all robots after the promotion",
};
const GOOD = ["promoted"], BAD = ["worse", "rolled back", "failed"];
const at = (id) => document.getElementById(id);
let chosen = "", shown = "", sure = 0, jobs = [], listed = -LIST_MS;

class Refused extends Error {}

async function call(path, method = "GET") {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const reply = await fetch(path, { method, headers });
  const body = await reply.json();
  if (reply.status === 401) {
    at("login").hidden = false;
    at("loop").hidden = true;
    throw new Refused(token ? "This token is not valid." : "This server asks for a token.");
  }
  if (!reply.ok) throw new Refused(body.detail || body.title);
  at("login").hidden = true;
  return body;
}

async function loops() {
  const found = [];
  let after = "";
  do {
    const page = await call(`/v1/jobs?limit=100${after}`);
    found.push(...page.data.filter((job) => job.spec.kind === "loop"));
    after = page.has_more ? `&after=${page.last_id}` : "";
  } while (after && !found.length);
  return found;
}

function fill() {
  const which = at("which"), ids = jobs.map((job) => job.id);
  if (ids.join() !== [...which.options].map((option) => option.value).join()) {
    which.replaceChildren(...jobs.map((job) => new Option(`${job.spec.task}, ${job.created.slice(0, 16)}`, job.id)));
  }
  const running = jobs.find((job) => ["running", "paused"].includes(job.status));
  if (!ids.includes(chosen)) chosen = (running || jobs[0]).id;
  which.value = chosen;
}

const share = (part, whole) => (whole ? `${part} of ${whole} (${((100 * part) / whole).toFixed(0)} %)` : "none");
const robots = (tally) => share(tally.successes, tally.episodes);
const small = (p) => (p < 0.001 ? p.toExponential(1) : p.toFixed(3));

function bar(id, value, most, text) {
  const meter = at(`${id}-bar`);
  meter.hidden = !most;
  meter.max = most || 1;
  meter.value = value;
  at(id).textContent = text;
}

function simulated(rates) {
  if (!rates) return "not compared";
  return `${share(rates.candidate, rates.states)}; ${share(rates.base, rates.states)}`;
}

function show(job) {
  const spec = job.spec, at_ = job.result || {}, none = { episodes: 0, successes: 0 };
  const rounds = at_.rounds || [], ended = !["queued", "running", "paused"].includes(job.status);
  at("task").textContent = spec.task;
  at("status").textContent = job.error ? `${job.status}: ${job.error}` : job.status;
  at("round").textContent = `${ended ? rounds.length : (at_.round ?? 0) + 1} of ${spec.rounds}`;
  at("phase").textContent = ended ? "none, it has ended" : PHASES[at_.phase] || "waits for its turn";
  const got = at_.collected || none, target = at_.target || spec.episodes_per_round;
  bar("collected", got.episodes, target, `${got.episodes} of ${target} episodes, ${got.successes} succeeded`);
  at("candidate").textContent = at_.candidate || "none";
  at("offline").textContent = at_.offline || "nothing measured";
  at("simulation").textContent = at_.rates
    ? `candidate, base: ${simulated(at_.rates)}; p of no gain ${small(at_.rates.p_better)}`
    : "not compared";
  const tried = at_.canary || none, on = (at_.canary_robots || []).join(", ");
  bar("canary", tried.episodes, on ? spec.canary.episodes : 0, on
    ? `${tried.episodes} of ${spec.canary.episodes} episodes on ${on}, ${tried.successes} succeeded; ` +
      `production before: ${robots(at_.compared || none)}`
    : "none");
  const minutes = at_.robot_minutes || 0, budget = spec.max_robot_minutes;
  bar("minutes", minutes, budget || 0, `${minutes.toFixed(1)} min${budget ? ` of ${budget}` : ", no limit"}`);
  at("promotions").textContent = at_.promotions || 0;
  at("pause").disabled = job.status !== "running";
  at("resume").disabled = job.status !== "paused";
  at("cancel").disabled = ended;
  list(rounds);
}

function list(rounds) {
  const text = JSON.stringify(rounds);
  if (text === shown) return;
  shown = text;
  at("rounds").replaceChildren(...rounds.slice().reverse().map((round) => {
    const row = document.createElement("tr");
    const tried = round.canary.episodes > 0;
    const cells = [
      round.number + 1, round.outcome, round.base, round.candidate || "none", simulated(round.rates),
      round.rates ? small(round.rates.p_better) : "", tried ? `${robots(round.canary)}; ${robots(round.compared)}` : "not tried",
      round.reason,
    ];
    cells.forEach((cell) => { row.insertCell().textContent = cell; });
    row.cells[1].className = GOOD.includes(round.outcome) ? "good" : BAD.includes(round.outcome) ? "bad" : "";
    row.cells[7].className = "why";
    return row;
  }));
}

async function look() {
  if (performance.now() - listed > LIST_MS || !jobs.length) {
    jobs = await loops();
    listed = performance.now();
  } else {
    const job = await call(`/v1/jobs/${chosen}`);
    jobs = jobs.map((known) => (known.id === job.id ? job : known));
  }
}

async function refresh() {
  try {
    await look();
    at("loop").hidden = !jobs.length;
    at("message").textContent = jobs.length ? "" : "No loop has been started: POST /v1/jobs with kind 'loop'.";
    if (jobs.length) {
      fill();
      show(jobs.find((job) => job.id === chosen));
    }
  } catch (error) {
    at("message").textContent = error instanceof Refused ? error.message : "The server can't be reached.";
  }
}

async function act(what) {
  at("refused").textContent = "";
  try {
    await call(`/v1/jobs/${chosen}/${what}`, "POST");
    await refresh();
  } catch (error) {
    at("refused").textContent = error instanceof Refused ? error.message : "The server can't be reached.";
  }
}

function unsure() {
  clearTimeout(sure);
  sure = 0;
  at("cancel").textContent = "Cancel";
}

at("pause").addEventListener("click", () => act("pause"));
at("resume").addEventListener("click", () => act("resume"));
at("cancel").addEventListener("click", () => {
  if (sure) {
    unsure();
    act("cancel");
  } else {
    at("cancel").textContent = "Cancel the loop? Click again";
    sure = setTimeout(unsure, SURE_MS);
  }
});
at("which").addEventListener("change", () => { chosen = at("which").value; unsure(); refresh(); });
at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", at("token").value.trim());
  at("token").value = "";
  refresh();
});
async function poll() {
  if (!document.hidden) await refresh();
  setTimeout(poll, POLL_MS);
}
poll();
