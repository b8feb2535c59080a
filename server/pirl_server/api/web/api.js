// Calls of the REST API with the token of this tab. Nothing is kept beyond sessionStorage.

/** An answer that is an error: `message` is the server's text, `status` the HTTP status (0: no answer). */
export class Rejected extends Error {
  constructor(message, status, problem) {
    super(message);
    this.status = status;
    this.errors = (problem && problem.errors) || [];
  }
}

const UNREACHABLE = "The server can't be reached.";
let onLocked = () => {};

export const token = () => sessionStorage.getItem("token") || "";
export const setToken = (text) => sessionStorage.setItem("token", text);
export const authorization = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

/** `listener(message)` is called when the server asks for a token, or for another one. */
export function whenLocked(listener) {
  onLocked = listener;
}

async function send(path, { method = "GET", body, headers = {}, signal } = {}) {
  const json = body === undefined ? {} : { "Content-Type": "application/json" };
  const used = token();
  let reply;
  try {
    reply = await fetch(path, {
      method, signal, cache: "no-store", headers: { ...authorization(), ...json, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Rejected(UNREACHABLE, 0);
  }
  if (reply.ok || reply.status === 304) return reply;
  const problem = await reply.json().catch(() => ({}));
  if (reply.status === 401) {
    const message = used ? "This token is not valid." : "This server asks for a token.";
    if (used === token()) onLocked(message); // else it was sent before this token was entered
    throw new Rejected(message, 401, problem);
  }
  throw new Rejected(problem.detail || problem.title || `HTTP ${reply.status}`, reply.status, problem);
}

/** The JSON of a call; null for 204. Throws Rejected. */
export async function call(path, options) {
  const reply = await send(path, options);
  return reply.status === 204 ? null : reply.json();
}

/** The raw answer of a call. Throws Rejected. */
export const fetched = send;

/** The JSON of a GET, or null where this server has no such route or thing. */
export async function maybe(path) {
  try {
    return await call(path);
  } catch (error) {
    if (error.status === 404 || error.status === 405 || error.status === 403) return null;
    throw error;
  }
}

/** `?a=1&b=2` of what is not empty; a list repeats its name. */
export function query(values) {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== "" && each !== null && each !== undefined) pairs.append(name, each);
    }
  }
  const text = pairs.toString();
  return text ? `?${text}` : "";
}

/** Yields {id, type, data} of a job's events from after `last` on, until the job or `signal` ends. Throws Rejected. */
export async function* events(path, last, signal) {
  const reply = await send(path, { headers: { "Last-Event-ID": String(last), Accept: "text/event-stream" }, signal });
  if (reply.status === 204) return;
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const found = {};
      for (const line of block.split("\n")) {
        const colon = line.indexOf(": ");
        if (colon > 0) found[line.slice(0, colon)] = line.slice(colon + 2);
      }
      if (found.id) yield { id: Number(found.id), type: found.event, data: JSON.parse(found.data) };
    }
  }
}
