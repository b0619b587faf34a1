// What the views show. A view says use(tool, args): it gets what is known, and what is not known or
// is old is asked for. An answer is old when something it depends on changed, or after a while.
import { call } from './client.js';

const entries = new Map();
const least = 750; // ms between two questions for the same
let soon = null, used = new Set(), redraw = () => {}, failed = () => {};
export const line = { live: false, offline: false };

export function onData(fn, onError) { redraw = fn; failed = onError; }

export function use(tool, args = {}, { on = [], every = 15000 } = {}) {
  const key = `${tool} ${JSON.stringify(args)}`;
  let entry = entries.get(key);
  if (!entry) {
    entry = { key, tool, args, value: undefined, error: null, loading: false, asked: 0, stale: true };
    entries.set(key, entry);
  }
  entry.on = on;
  entry.every = every;
  used.add(entry);
  return entry;
}

export function beginView() { used = new Set(); }

async function ask(entry) {
  entry.loading = true;
  entry.stale = false;
  entry.asked = Date.now();
  try {
    entry.value = await call(entry.tool, entry.args);
    entry.error = null;
    line.offline = false;
  } catch (error) {
    entry.error = error;
    line.offline = error.status === 0;
    failed(error);
  }
  entry.loading = false;
  redraw();
}

// Asks for what the page shows and is missing or old.
export function refresh() {
  const now = Date.now();
  for (const entry of used) {
    const period = line.live ? entry.every : Math.min(entry.every, 4000);
    const due = !entry.loading && (entry.stale || now - entry.asked >= period);
    if (due && now - entry.asked >= least) ask(entry);
    else if (due) soon ??= setTimeout(() => { soon = null; refresh(); }, least);
  }
  for (const [key, entry] of entries) if (!used.has(entry) && now - entry.asked > 120000) entries.delete(key);
}

export function changed(kind) {
  for (const entry of entries.values()) if (kind === '*' || entry.on.includes(kind)) entry.stale = true;
  refresh();
}

// Why something that is shown is not what it is now; null: all of it is.
export function old() {
  for (const entry of used) if (entry.value && entry.error) return entry.error.message;
  return null;
}

export function forgetAll() { entries.clear(); used = new Set(); }

// ---- What a person does ----

export const page = { tools: new Set(), route: ['overview'], pillar: 'agent' };
export const has = (tool) => page.tools.has(tool);
export const go = (...parts) => { location.hash = `#/${parts.map(encodeURIComponent).join('/')}`; };
export const link = (...parts) => `#/${parts.map(encodeURIComponent).join('/')}`;
export const again = () => redraw();

// Calls a tool in somebody's name; the button waits meanwhile. Gives the result, or null after an error.
export async function act(button, tool, args, done, tell) {
  if (button) button.disabled = true;
  try {
    const result = await call(tool, args);
    if (done) tell(done);
    changed('*');
    return result ?? {};
  } catch (error) {
    failed(error);
    tell(error.message, true);
    return null;
  } finally {
    if (button) button.disabled = false;
  }
}
