// Making and updating what is on the page. Text only ever becomes a text node: nothing that somebody
// stored is read as HTML.

const svgTags = new Set(['svg', 'path', 'line', 'circle', 'text', 'g', 'rect']);
const handlers = ['onclick', 'onsubmit', 'onchange', 'oninput', 'onpointermove', 'onpointerleave', 'ontoggle', 'onkeydown'];

// h('p', { class: 'note', onclick: fn }, 'text', node, [nodes], null)
export function h(tag, props, ...children) {
  const node = svgTags.has(tag)
    ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node[name] = value;
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false || child === '') continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

const keyOf = (node) => (node.nodeType === 1 ? node.getAttribute('data-key') : null);
const alike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);

// Makes `node` what `wanted` is, and keeps what is the same: focus, scrolling, selected text, and
// what somebody is typing survive.
export function morph(node, wanted) {
  if (node.nodeType !== 1) {
    if (node.data !== wanted.data) node.data = wanted.data;
    return;
  }
  for (const { name } of [...node.attributes]) {
    if (name === 'open' && node.nodeName === 'DETAILS') continue; // the reader opened it
    if (!wanted.hasAttribute(name)) node.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  for (const name of handlers) if (node[name] !== wanted[name]) node[name] = wanted[name];
  if (node.nodeName === 'SELECT' || node.nodeName === 'TEXTAREA') {
    if (node.nodeName === 'TEXTAREA') return;
    children(node, wanted);
    const chosen = wanted.querySelector('option[selected]');
    if (chosen && document.activeElement !== node) node.value = chosen.value;
    return;
  }
  children(node, wanted);
}

function children(node, wanted) {
  const keyed = new Map();
  for (const child of node.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
  let at = node.firstChild;
  for (const want of [...wanted.childNodes]) {
    let have = keyOf(want) ? keyed.get(keyOf(want)) : at;
    if (have && !alike(have, want)) have = null;
    if (!have) {
      node.insertBefore(want, at);
    } else {
      if (have === at) at = at.nextSibling;
      else node.insertBefore(have, at);
      morph(have, want);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

export function show(parent, ...nodes) {
  const wanted = parent.cloneNode(false);
  append(wanted, nodes);
  children(parent, wanted);
}

// ---- Words and numbers ----

export function ago(ms) {
  const s = Math.round((Date.now() - ms) / 1000);
  return s < 0 ? `in ${span(-s)}` : s < 3 ? 'now' : `${span(s)} ago`;
}

export function span(s) {
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 60) return `${s < 10 ? Math.round(s * 10) / 10 : Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h${s % 3600 >= 60 && s < 36000 ? ` ${Math.floor(s % 3600 / 60)} min` : ''}`;
  return `${Math.floor(s / 86400)} d`;
}

export const clock = (ms) => new Date(ms).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
export const when = (ms) => (ms ? h('time', { title: clock(ms), datetime: new Date(ms).toISOString() }, ago(ms)) : '–');

export function number(value) {
  if (typeof value !== 'number' || !Number.isFinite(value)) return '–';
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return value.toLocaleString('en', { maximumSignificantDigits: Math.abs(value) >= 1000 ? 6 : 4 });
}

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
export const cut = (text, most = 160) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
export const textOf = (value) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2));

// ---- Pieces that every view uses ----

const tones = {
  completed: 'good', healthy: 'good', ok: 'good', up: 'good', approved: 'good', applied: 'good', valid: 'good',
  running: 'busy', leased: 'busy', busy: 'busy', ready: 'calm', scheduled: 'calm', waiting_timer: 'calm',
  waiting_child: 'calm', starting: 'calm', input_required: 'warn', waiting: 'warn', unknown: 'warn', pending: 'warn',
  degraded: 'warn', draining: 'warn', silenced: 'calm', failed: 'bad', buried: 'bad', down: 'bad', firing: 'bad',
  refused: 'warn', invalid: 'bad', rejected: 'bad',
};
const words = { input_required: 'needs input', waiting_timer: 'waits for time', waiting_child: 'waits for child' };

export const pill = (state, text = words[state] ?? String(state).replaceAll('_', ' '), tone = tones[state] ?? 'dim') =>
  h('span', { class: `pill ${tone}` }, text);

export const mono = (text, props = {}) => h('code', props, text);
export const short = (id) => mono(id.length > 14 ? `…${id.slice(-10)}` : id, { title: id });

export const card = (title, side, ...body) => h('section', { class: 'card', 'aria-label': title },
  h('header', {}, h('h2', {}, title), side ? h('div', { class: 'side' }, side) : null), ...body);

export const empty = (text, ...commands) => h('div', { class: 'empty' }, h('p', {}, text),
  commands.map((command) => h('pre', { tabindex: 0 }, command)));

export const trouble = (text) => h('div', { class: 'trouble', role: 'alert' }, text);

export function table(heads, rows, { keys, label } = {}) {
  return h('div', { class: 'scroll' }, h('table', { 'aria-label': label },
    h('thead', {}, h('tr', {}, heads.map((head) => h('th', { scope: 'col', class: head.startsWith('#') ? 'num' : null }, head.replace(/^#/, ''))))),
    h('tbody', {}, rows.map((row, i) => h('tr', { 'data-key': keys?.[i] }, row.map((cell, j) =>
      h('td', { class: heads[j].startsWith('#') ? 'num' : null, 'data-label': heads[j].replace(/^#/, '') }, cell)))))));
}

export const facts = (pairs) => h('dl', { class: 'facts' }, pairs.filter(([, value]) => value !== undefined && value !== null && value !== '')
  .map(([name, value]) => h('div', { class: (value.textContent ?? value).length > 60 ? 'wide' : null }, h('dt', {}, name), h('dd', {}, value))));

export const value = (label, data, open = false) => (data === undefined || data === null || data === '' ? null
  : h('details', { class: 'value', open, 'data-key': label }, h('summary', {}, label), h('pre', { tabindex: 0 }, textOf(data))));

export function toast(text, bad = false) {
  const box = document.getElementById('toasts');
  const one = h('div', { class: bad ? 'toast bad' : 'toast' }, text);
  one.append(h('button', { type: 'button', 'aria-label': 'Dismiss', onclick: () => one.remove() }, '×'));
  box.append(one);
  while (box.children.length > 3) box.firstChild.remove();
  setTimeout(() => one.remove(), bad ? 15000 : 5000);
}
