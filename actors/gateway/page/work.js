// Tasks and runs: lists, and one of them with its steps.
import { h, card, pill, when, span, number, table, empty, trouble, mono, facts, value, clock, cut, toast, plural } from './dom.js';
import { use, has, link, act, again, go } from './data.js';

const states = ['scheduled', 'ready', 'leased', 'running', 'waiting_timer', 'input_required', 'waiting_child', 'completed', 'failed', 'cancelled', 'buried'];
const over = new Set(['completed', 'failed', 'cancelled', 'buried']);
const filter = { tasks: '', runs: '' }, pages = { tasks: 1, runs: 1 };

export const runHeads = ['Task', 'What', 'State', 'Since', 'Note'];

export const runRows = (tasks) => tasks.map((task) => [
  h('a', { href: link(task.kind === 'sop' ? 'runs' : 'tasks', task.id) }, mono(task.id)),
  h('span', { class: 'what', title: task.kind === 'sop' ? `procedure ${task.sop}` : `task of kind ${task.kind}` }, task.kind === 'sop' ? task.sop : task.kind),
  pill(task.state), when(task.updated_ms),
  h('span', { class: task.error && task.state !== 'completed' ? 'note bad-text own-line' : 'note own-line' }, cut((task.state === 'completed' ? '' : task.error ?? task.why ?? (task.worker ? `on ${task.worker}` : '')).split('\n')[0], 110))]);

function list(view, title, kind, nothing) {
  const state = filter[view], limit = 50 * pages[view];
  const entry = use('task_list', { limit, ...(state ? { state } : {}), ...(kind ? { kind } : {}) }, { on: ['queue', 'log'] });
  const choose = h('label', { class: 'inline' }, 'State ', h('select', { onchange: (event) => { filter[view] = event.target.value; pages[view] = 1; again(); } },
    h('option', { value: '', selected: !state }, 'all'), states.map((one) => h('option', { value: one, selected: one === state }, one.replaceAll('_', ' ')))));
  let body;
  if (!entry.value) body = entry.error ? trouble(entry.error.message) : h('p', { class: 'loading' }, 'Loading…');
  else if (entry.value.tasks.length) body = table(runHeads, runRows(entry.value.tasks), { label: title, keys: entry.value.tasks.map((task) => task.id) });
  else body = state ? empty(`None is ${state.replaceAll('_', ' ')}.`) : nothing;
  return [h('div', { class: 'top' }, h('h1', {}, title), choose), entry.value && entry.error ? trouble(entry.error.message) : null,
    card(`${title}, newest first`, entry.value ? (entry.value.cursor ? `the newest ${limit}` : plural(entry.value.tasks.length, 'entry', 'entries')) : null, body,
      entry.value?.cursor && limit < 1000 ? h('p', { class: 'foot' }, h('button', { type: 'button', onclick: () => { pages[view]++; again(); } }, 'Show more')) : null)];
}

export const tasks = (id) => (id ? task(id) : list('tasks', 'Tasks', null,
  empty('No task yet. Put one on the desk:', 'agency call task_submit kind=email input=\'{"to":"ann"}\'')));

export const runs = (id) => (id ? run(id) : list('runs', 'Runs', 'sop',
  empty('No procedure has run yet. Start one under Procedures, or:', 'agency sop run workspace-report input=$PWD')));

function buttons(id, state) {
  const press = (tool, text, done, args = {}, ask = null) => (has(tool) ? h('button', { type: 'button', class: tool === 'task_cancel' ? 'danger' : null,
    onclick: (event) => { if (!ask || confirm(ask)) act(event.currentTarget, tool, { id, ...args }, done, toast); } }, text) : null);
  return h('div', { class: 'actions' },
    over.has(state) && state !== 'completed' ? press('task_retry', 'Retry', `${id} is tried again.`) : null,
    over.has(state) ? null : press('task_cancel', 'Cancel', `${id} is called off.`, { why: 'cancelled on the dashboard' }, `Call ${id} off?`));
}

const back = (view, text) => h('p', { class: 'crumb' }, h('a', { href: link(view) }, `← ${text}`));

function head(task) {
  return facts([['State', pill(task.state)], ['Waits for', task.why], ['Error', task.error ? h('span', { class: 'bad-text' }, task.error) : null],
    ['Priority', number(task.priority)], ['Attempts', `${number(task.attempts)} of ${number(task.max_attempts)}${task.crashes ? `, ${plural(task.crashes, 'lost worker')}` : ''}`],
    ['Worker', task.worker ? mono(task.worker) : null], ['By', task.by], ['Labels', task.labels?.join(', ')],
    ['Submitted', `${clock(task.created_ms)}`], ['Not before', task.run_at_ms && !over.has(task.state) ? clock(task.run_at_ms) : null],
    ['Took', task.finished_ms ? span((task.finished_ms - task.created_ms) / 1000) : null]]);
}

function task(id) {
  const entry = use('task_get', { id }, { on: ['queue', 'log'] });
  const found = entry.value?.task;
  if (!found) return [back('tasks', 'All tasks'), entry.error ? trouble(entry.error.message) : h('p', { class: 'loading' }, 'Loading…')];
  if (found.kind === 'sop') return run(id);
  return [back('tasks', 'All tasks'), h('div', { class: 'top' }, h('h1', {}, found.kind, ' ', mono(id)), buttons(id, found.state)),
    card('Task', null, head(found)),
    card('What it was given, and what came of it', null, value('Input', found.input, true), value('Progress', found.progress, true), value('Result', found.result, true),
      found.result === undefined && found.input === undefined ? empty('Nothing.') : null)];
}

// The items of an each, as far as they are begun.
function items(step) {
  const left = step.total - step.finished;
  return h('details', { class: 'value', 'data-key': 'items', open: left > 0 || step.state === 'failed' },
    h('summary', {}, `${number(step.finished)} of ${plural(step.total, 'item')} over`),
    table(['#Item', 'State', 'Run', 'What came of it'], step.items.map((one) => [number(one.index), pill(one.state), one.child ? h('a', { href: link('runs', one.child) }, mono(one.child)) : '–',
      one.error ? h('span', { class: 'bad-text' }, one.error) : one.words || '–']), { keys: step.items.map((one) => `item-${one.index}`), label: 'Items' }));
}

export function stepList(found) {
  return h('ol', { class: 'steps' }, found.steps.map((step) => h('li', { class: `step ${step.state}`, 'data-key': `step-${step.number}` },
    h('div', { class: 'row' }, h('span', { class: 'no' }, step.number), h('strong', {}, step.title), h('span', { class: 'kind' }, step.kind), pill(step.state),
      h('span', { class: 'note grow' }, step.started_ms ? [when(step.started_ms), step.duration_ms ? `, took ${span(step.duration_ms / 1000)}` : ''] : '',
        step.attempt > 1 ? ` · attempt ${step.attempt}` : '', step.tokens ? ` · ${plural(step.tokens, 'token')}` : '', step.by ? ` · by ${step.by}` : '')),
    step.state === 'waiting' && step.until_ms ? h('p', { class: 'note' }, 'until ', clock(step.until_ms)) : null,
    step.why && step.state !== 'completed' ? h('p', { class: 'note' }, step.why) : null,
    step.error ? h('p', { class: 'bad-text' }, step.error) : null,
    step.child ? h('p', { class: 'note' }, 'Its run: ', h('a', { href: link('runs', step.child) }, mono(step.child))) : null,
    step.items?.length ? items(step) : null,
    h('div', { class: 'values' }, value('Input', step.input), value('Result', step.result)))));
}

function run(id) {
  const entry = use('run_get', { id }, { on: ['queue', 'log'] });
  const found = entry.value;
  if (!found) return [back('runs', 'All runs'), entry.error ? trouble(entry.error.message) : h('p', { class: 'loading' }, 'Loading…')];
  const first = found.steps.find((step) => step.state === 'failed');
  return [back('runs', 'All runs'), h('div', { class: 'top' }, h('h1', {}, found.title || found.sop, ' ', mono(id)),
    h('div', { class: 'actions' },
      found.state === 'failed' && first && has('run_retry_from') ? h('button', { type: 'button', class: 'primary',
        onclick: (event) => act(event.currentTarget, 'run_retry_from', { id, step: first.name }, `${id} goes on from ${first.title}.`, toast) }, `Retry from “${cut(first.title, 30)}”`) : null,
      found.state === 'input_required' ? h('button', { type: 'button', class: 'primary', onclick: () => go('decisions') }, 'Decide') : null, buttons(id, over.has(found.state) ? 'completed' : found.state))),
  entry.error ? trouble(entry.error.message) : null,
  card('Run', null, facts([['State', pill(found.state)], ['Procedure', has('sop_get') ? h('a', { href: link('procedures', found.sop) }, found.sop) : found.sop], ['Version', mono(found.hash.slice(0, 12), { title: found.hash })],
    ['Inside of', found.parent ? h('a', { href: link('runs', found.parent) }, mono(found.parent)) : null],
    ['Waits for', found.state === 'input_required' || !over.has(found.state) ? found.why : null], ['Error', found.error ? h('span', { class: 'bad-text' }, found.error) : null],
    ['Submitted', clock(found.created_ms)], ['Took', found.finished_ms ? span((found.finished_ms - found.created_ms) / 1000) : null],
    ['Calls', number(found.calls)], ['Tokens', found.tokens ? number(found.tokens) : null], ['Simulated', found.simulated ? 'yes: nothing was changed by it' : null]]),
  value('Input', found.input), value('Result', found.result, true), value('What the brain remembered before it', found.experience)),
  card('Steps', `${found.steps.filter((step) => step.state === 'completed' || step.state === 'skipped').length} of ${found.steps.length} done`, stepList(found)),
  found.refused?.length ? card('What it would have done', null, table(['Step', 'Kind', 'Tool', 'Why not'], found.refused.map((one) => [one.name, one.kind, one.tool ?? '–', one.why]))) : null];
}
