// What waits for a person: approvals, steps that somebody must do or judge, proposed changes.
import { h, card, pill, when, empty, trouble, mono, value, toast, plural, textOf, cut } from './dom.js';
import { use, has, link, act } from './data.js';

const field = (label, name, props = {}) => h('label', { class: 'field' }, h('span', {}, label), h('input', { name, autocomplete: 'off', ...props }));
const area = (label, name, props = {}) => h('label', { class: 'field' }, h('span', {}, label), h('textarea', { name, rows: 3, ...props }));

// A result that reads as JSON is JSON; anything else is text.
function parsed(text) {
  try { return JSON.parse(text); } catch { return text; }
}

// Two ways out: the first button submits, the second needs a reason.
function choice(key, label, { yes, no, onYes, onNo, input, reason, third }) {
  const refuse = (event) => {
    const form = event.currentTarget.form, why = form.elements.why.value.trim();
    if (!why) { toast(`Say why: the reason goes with it.`, true); form.elements.why.focus(); return; }
    onNo(event.currentTarget, why);
  };
  return h('form', { class: 'decide', 'data-key': key, onsubmit: (event) => { event.preventDefault(); onYes(event.submitter, event.currentTarget); } },
    input ?? null, field(reason, 'why', { maxlength: 1024, 'aria-label': `${reason}: ${label}` }),
    h('div', { class: 'actions' }, h('button', { class: 'primary', 'aria-label': `${yes}: ${label}` }, yes), third ?? null, h('button', { type: 'button', class: 'danger', 'aria-label': `${no}: ${label}`, onclick: refuse }, no)));
}

function question(run, step) {
  const id = run.id, label = `${run.title || run.sop}, ${step.title}`, at = `${id}-${step.number}`;
  if (step.kind === 'approve' && step.state === 'waiting')
    return choice(at, label, { yes: 'Approve', no: 'Reject', reason: 'Remark, or why not',
      onYes: (button, form) => act(button, 'approve', { id, step: step.name, ...(form.elements.why.value.trim() ? { note: form.elements.why.value.trim() } : {}) }, `Approved: ${label}.`, toast),
      onNo: (button, why) => act(button, 'reject', { id, step: step.name, why }, `Rejected: ${label}.`, toast) });
  const unknown = step.state === 'unknown';
  return choice(at, label, { yes: unknown ? 'It happened' : 'Done', no: unknown ? 'Give up' : 'It failed', reason: unknown ? 'If you give up: why' : 'If it failed: why',
    third: unknown && has('run_retry_from') ? h('button', { type: 'button', 'aria-label': `Do it again: ${label}`, onclick: (event) => act(event.currentTarget, 'run_retry_from', { id, step: step.name }, `Once more: ${label}.`, toast) }, 'It did not: do it again') : null,
    input: area(unknown ? 'What came of it (text or JSON, may be empty)' : 'Result (text or JSON; later steps refer to it)', 'result'),
    onYes: (button, form) => { const text = form.elements.result.value.trim(); act(button, 'step_complete', { id, step: step.name, ...(text ? { result: parsed(text) } : {}) }, `Completed: ${label}.`, toast); },
    onNo: (button, why) => act(button, 'step_fail', { id, step: step.name, error: why }, `Failed: ${label}.`, toast) });
}

const asks = { approve: 'asks for approval', llm: 'needs somebody to do a step', unknown: 'does not know whether a step happened' };

// What a step is about: the question, the prose, the script, or the call.
const asked = (input) => textOf(input?.message ?? input?.script ?? input).trimEnd();

function waiting(task) {
  if (task.kind !== 'sop') return h('section', { class: 'card', 'data-key': task.id }, h('header', {}, h('h2', {}, task.kind, ' ', h('a', { href: link('tasks', task.id) }, mono(task.id)))), h('p', {}, task.why ?? 'It needs input.'));
  const entry = use('run_get', { id: task.id }, { on: ['queue', 'log'] }), run = entry.value;
  if (!run) return h('section', { class: 'card', 'data-key': task.id }, entry.error ? trouble(entry.error.message) : h('p', { class: 'loading' }, 'Loading…'));
  const step = run.steps.find((one) => one.state === 'unknown') ?? run.steps.find((one) => one.state === 'waiting' && one.kind !== 'wait');
  if (!step) return null;
  return h('section', { class: 'card ask', 'data-key': task.id, 'aria-label': run.title },
    h('header', {}, h('h2', {}, run.title || run.sop, ' ', h('span', { class: 'note' }, asks[step.state === 'unknown' ? 'unknown' : step.kind] ?? 'needs input')),
      h('div', { class: 'side' }, h('a', { href: link('runs', task.id) }, mono(task.id)), ' · ', when(task.updated_ms))),
    h('p', { class: 'step-name' }, h('span', { class: 'note' }, `Step ${step.number} of ${run.steps.length}: `), h('strong', {}, step.title)),
    step.input !== undefined ? h('blockquote', { class: step.kind === 'approve' || step.kind === 'llm' ? null : 'code' }, asked(step.input)) : h('p', {}, step.why),
    step.state === 'unknown' && step.why ? h('p', { class: 'note' }, step.why) : null,
    value('Input of the run', run.input), question(run, step));
}

const diffLine = (text) => h('span', { class: /^(---|\+\+\+|@@)/.test(text) ? 'at' : text.startsWith('+') ? 'add' : text.startsWith('-') ? 'del' : null }, `${text}\n`);

function proposal(one) {
  const proposal_id = one.id, label = one.title;
  const apply = one.status === 'approved' ? h('div', { class: 'actions' }, h('button', { type: 'button', class: 'primary', onclick: (event) => act(event.currentTarget, 'update_agent_soul', { proposal_id }, `Applied: ${label}.`, toast) }, 'Apply'))
    : choice(proposal_id, label, { yes: 'Approve', no: 'Reject', reason: 'Remark, or why not',
      onYes: (button, form) => act(button, 'proposal_approve', { proposal_id, ...(form.elements.why.value.trim() ? { note: form.elements.why.value.trim() } : {}) }, `Approved: ${label}. It can be applied now.`, toast),
      onNo: (button, why) => act(button, 'proposal_reject', { proposal_id, why }, `Rejected: ${label}.`, toast) });
  return h('section', { class: 'card ask', 'data-key': `p-${one.id}`, 'aria-label': one.title },
    h('header', {}, h('h2', {}, one.title), h('div', { class: 'side' }, pill(one.status), ` by ${one.maker} · `, when(one.createdAt))),
    h('p', {}, one.description), one.risk ? h('p', { class: 'note' }, `Risk: ${one.risk}`) : null,
    one.changes.map((change) => h('details', { class: 'value', open: true, 'data-key': change.file }, h('summary', {}, mono(change.file)), h('pre', { class: 'diff', tabindex: 0 }, (change.diff || change.added || '').trimEnd().split('\n').map(diffLine)))),
    one.evidence.length ? h('details', { class: 'value', 'data-key': 'evidence' }, h('summary', {}, `Evidence: ${plural(one.evidence.reduce((sum, cluster) => sum + cluster.count, 0), 'failure')}`),
      h('ul', {}, one.evidence.map((cluster) => h('li', {}, `${cluster.count} × ${cluster.subject}: ${cut(cluster.example, 300)} `, cluster.runs.slice(0, 5).map((run) => [h('a', { href: link('tasks', run) }, mono(run)), ' ']))))) : null,
    apply);
}

export function decisions() {
  const open = use('task_list', { state: 'input_required', limit: 50 }, { on: ['queue', 'log'] });
  const changes = has('list_pending_proposals') ? use('list_pending_proposals', {}, { on: ['proposals'] }) : null;
  const tasks = open.value?.tasks ?? [], list = changes?.value?.proposals ?? [];
  const nothing = open.value && (!changes || changes.value) && !tasks.length && !list.length;
  return [h('h1', {}, 'Decisions'),
    open.error ? trouble(open.error.message) : null,
    !open.value && !open.error ? h('p', { class: 'loading' }, 'Loading…') : null,
    nothing ? card('Nothing waits for you', null, empty('Approvals of procedures, steps that somebody must do, and proposed changes come here. To see one:',
      'agency sop create examples/sops/release-check.md\nagency sop run release-check repository=$PWD')) : null,
    tasks.slice(0, 20).map(waiting), tasks.length > 20 ? h('p', { class: 'note' }, `${tasks.length - 20} more wait; they come when these are decided.`) : null,
    list.length ? h('h2', { class: 'group' }, 'Proposed changes') : null, list.map(proposal)];
}
