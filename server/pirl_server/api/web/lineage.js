// Which version was learnt from which, as a tree of nested lists.
import { html } from "./vendor/htm-preact.js";
import { Badge, short } from "./ui.js";

function Node({ model, children, open, choose, seen }) {
  const below = children.get(model.version) || [];
  return html`<li><button type="button" class=${`node ${open === model.version ? "chosen" : ""}`} onClick=${() => choose(model.version)}>
      <code>${short(model.version)}</code>${model.aliases.map((alias) =>
        html` <${Badge} tone=${alias === "production" ? "good" : "busy"}>${alias}<//>`)}</button>
    ${below.length && !seen.has(model.version) ? html`<ul>${below.map((each) => html`<${Node} key=${each.version} model=${each}
      children=${children} open=${open} choose=${choose} seen=${new Set([...seen, model.version])} />`)}</ul>` : null}</li>`;
}

export function Lineage({ models, open, choose }) {
  const known = new Set(models.map((model) => model.version)), children = new Map();
  for (const model of models) {
    if (known.has(model.parent)) children.set(model.parent, [...(children.get(model.parent) || []), model]);
  }
  const roots = models.filter((model) => !known.has(model.parent));
  return html`<ul class="tree" aria-label="Lineage">${roots.map((model) => html`<${Node} key=${model.version} model=${model}
    children=${children} open=${open} choose=${choose} seen=${new Set()} />`)}</ul>`;
}
