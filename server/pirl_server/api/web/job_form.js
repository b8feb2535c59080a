// Starts a job: a form for each kind, made from the server's own OpenAPI document, with its defaults.
import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { call } from "./api.js";
import { Choice, Failure, useAction, usePoll } from "./ui.js";

const FIRST = ["task", "base", "version", "path", "dataset", "seed", "episodes", "rounds", "episodes_per_round", "dry_run"];

const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** {named(ref), kinds: kind -> schema} of POST /v1/jobs. */
async function kindsOf() {
  const document = await call("/openapi.json");
  const body = document.paths["/v1/jobs"].post.requestBody.content["application/json"].schema;
  const named = (ref) => document.components.schemas[ref.split("/").pop()];
  return { named, kinds: Object.fromEntries(Object.entries(body.discriminator.mapping).map(([kind, ref]) => [kind, named(ref)])) };
}

/** The schema behind a reference and "or null", with what the field itself says. */
function plain(field, named) {
  const options = (field.anyOf || []).filter((each) => each.type !== "null");
  const found = field.anyOf ? { ...options[0], ...field, anyOf: undefined, optional: options.length < field.anyOf.length } : field;
  const ref = found.$ref || (found.allOf && found.allOf[0].$ref);
  return ref ? { ...named(ref), ...found, $ref: undefined, description: field.description || named(ref).description } : found;
}

const isGroup = (field) => field.type === "object" && field.properties;
const words = (name) => name.replaceAll("_", " ");

/** What a text in a field means; undefined: the default. Lists are split at commas and line ends. */
function valueOf(field, text) {
  if (text === "" || text === undefined) return undefined;
  if (field.type === "integer" || field.type === "number") return Number(text);
  if (field.type === "boolean") return text === "true";
  if (field.type === "array") {
    const parts = text.split(/[,\n]/).map((part) => part.trim()).filter(Boolean);
    return ["integer", "number"].includes((field.items || {}).type) ? parts.map(Number) : parts;
  }
  return text;
}

function filled(schema, values, path, named) {
  const found = {};
  for (const [name, raw] of Object.entries(schema.properties)) {
    const field = plain(raw, named), here = [...path, name].join(".");
    if (name === "kind") continue;
    if (isGroup(field)) {
      const inner = filled(field, values, [...path, name], named);
      if (Object.keys(inner).length) found[name] = inner;
    } else if (valueOf(field, values[here]) !== undefined) found[name] = valueOf(field, values[here]);
  }
  return found;
}

function Field({ name, here, field, required, value, set }) {
  const standard = field.default === undefined || field.default === null ? "" : Array.isArray(field.default) ? field.default.join(", ") : String(field.default);
  const id = `field-${here}`, hint = field.description || "";
  const unit = field.unit && !["index", "share", "ratio"].includes(field.unit) ? `, ${field.unit}` : "";
  const choices = field.enum || (field.type === "boolean" ? ["true", "false"] : null);
  const shared = { id, required, "aria-describedby": hint ? `${id}-hint` : undefined };
  const typed = { ...shared, value: value ?? "", onInput: (event) => set(here, event.target.value) };
  const example = standard || (field.examples ? `such as ${field.examples[0]}` : field.optional ? "none" : "");
  const control = choices
    ? html`<${Choice} ...${shared} value=${value ?? ""} change=${(text) => set(here, text)}
        choices=${[["", standard || "none"], ...choices.map(String).filter((each) => each !== standard)]} />`
    : ["integer", "number"].includes(field.type)
      ? html`<input ...${typed} type="number" step=${field.type === "integer" ? 1 : "any"} min=${field.minimum} max=${field.maximum} placeholder=${example} />`
      : html`<input ...${typed} type="text" placeholder=${example} />`;
  return html`<div class="form-field"><label for=${id}>${words(name)}${unit}${required ? " *" : ""}</label>${control}
    ${hint ? html`<p class="hint" id=${`${id}-hint`}>${hint}</p>` : null}</div>`;
}

function Fields({ schema, path = [], values, set, named, only = () => true }) {
  return Object.entries(schema.properties).filter(([name]) => name !== "kind" && only(name)).map(([name, raw]) => {
    const field = plain(raw, named), here = [...path, name].join(".");
    if (isGroup(field)) {
      return html`<details key=${here}><summary>${words(name)}</summary>${field.description ? html`<p class="hint">${field.description.split("\n\n")[0]}</p>` : null}
        <div class="form-grid"><${Fields} schema=${field} path=${[...path, name]} values=${values} set=${set} named=${named} /></div></details>`;
    }
    return html`<${Field} key=${here} name=${name} here=${here} field=${field} value=${values[here]} set=${set}
      required=${(schema.required || []).includes(name)} />`;
  });
}

export function JobForm({ kind: asked }) {
  const { data, error } = usePoll(kindsOf, 1e8);
  const [kind, setKind] = useState(asked), [values, setValues] = useState({}), [key, setKey] = useState(newKey);
  const { error: rejected, busy, act } = useAction();
  const kinds = data ? Object.keys(data.kinds) : [];
  useEffect(() => { if (data && !kinds.includes(kind)) setKind(kinds[0]); }, [data]);
  const schema = data && data.kinds[kind];
  const set = (here, text) => {
    setValues((old) => ({ ...old, [here]: text }));
    setKey(newKey()); // another job; pressed twice, or after an answer that was lost, it is the same one
  };
  const start = (event) => {
    event.preventDefault();
    act(async () => {
      const body = { kind, ...filled(schema, values, [], data.named) };
      const job = await call("/v1/jobs", { method: "POST", body, headers: { "Idempotency-Key": key } });
      location.hash = `#/jobs/${job.id}`;
    });
  };
  const seen = (name) => FIRST.includes(name) || ((schema && schema.required) || []).includes(name);
  return html`<p class="crumbs"><a href="#/jobs">All jobs</a></p><div class="head"><h1>Start a job</h1></div>
    <${Failure} text=${error} />
    ${schema ? html`<form id="job-form" class="card" onSubmit=${start}>
      <div class="form-field"><label for="kind">Kind</label><${Choice} id="kind" value=${kind} choices=${kinds.map((each) => [each, words(each)])}
        change=${(to) => { setKind(to); setValues({}); }} />
        <p class="hint">${(schema.description || "").split(/\n\n|Raises/)[0]}</p></div>
      <div class="form-grid"><${Fields} schema=${schema} values=${values} set=${set} named=${data.named} only=${seen} /></div>
      <details class="more"><summary>All settings</summary><div class="form-grid">
        <${Fields} schema=${schema} values=${values} set=${set} named=${data.named} only=${(name) => !seen(name)} /></div></details>
      <div class="actions"><button class="primary" id="start" disabled=${busy}>Start</button></div>
      <${Failure} text=${rejected} /></form>` : null}`;
}
