// Procedures (SOPs): what there is, what it says, and running it.
import { h, card, pill, number, table, empty, trouble, mono, toast, value } from './dom.js';
import { use, has, link, act, go } from './data.js';

const wait = (entry) => (entry.error ? trouble(entry.error.message) : h('p', { class: 'loading' }, 'Loading…'));

function list() {
  const entry = use('sop_list', {}, { on: ['prompts'], every: 20000 });
  return [h('h1', {}, 'Procedures'), !entry.value ? wait(entry) : card('Procedures', null, entry.value.sops.length
    ? table(['Name', 'Title', '#Steps', 'Inputs', ''], entry.value.sops.map((sop) => [h('a', { href: link('procedures', sop.name) }, mono(sop.name)), sop.title ?? '–', number(sop.steps),
      (sop.inputs ?? []).map((input) => `${input.name}${input.required ? '' : '?'}`).join(', ') || '–',
      sop.valid ? h('button', { type: 'button', 'aria-label': `Run ${sop.name}`, onclick: () => go('procedures', sop.name) }, 'Run…') : pill('invalid', 'has errors')]), { label: 'Procedures', keys: entry.value.sops.map((sop) => sop.name) })
    : empty('No procedure yet. A procedure is a Markdown file whose numbered steps are carried out durably:', 'agency sop create examples/sops/workspace-report.md'))];
}

function form(name, sop) {
  const begin = async (event) => {
    event.preventDefault();
    const fields = event.currentTarget.elements, button = event.submitter;
    let input;
    if (sop.inputs?.length) {
      input = {};
      for (const { name: key } of sop.inputs) if (fields[`in-${key}`].value) input[key] = fields[`in-${key}`].value;
    } else if (fields.free.value.trim()) {
      try { input = JSON.parse(fields.free.value); } catch { input = fields.free.value; }
    }
    const run = await act(button, 'sop_execute', { name, wait_ms: 0, ...(input === undefined ? {} : { input }), ...(fields.simulate.checked ? { simulate: true } : {}) }, `${name} has begun.`, toast);
    if (run?.id) go('runs', run.id);
  };
  return h('form', { class: 'stack', 'data-key': `run-${name}`, onsubmit: begin },
    sop.inputs?.length ? sop.inputs.map((input) => h('label', { class: 'field' }, h('span', {}, input.name, input.required ? '' : ' (may be empty)'), h('input', { name: `in-${input.name}`, required: input.required, autocomplete: 'off' })))
      : h('label', { class: 'field' }, h('span', {}, 'Input (text or JSON, may be empty)'), h('textarea', { name: 'free', rows: 2 })),
    h('div', { class: 'actions' }, h('button', { class: 'primary' }, `Run ${name}`), h('label', { class: 'check' }, h('input', { type: 'checkbox', name: 'simulate' }), 'Simulate: refuse outside effects')));
}

function one(name) {
  const sops = use('sop_list', {}, { on: ['prompts'], every: 20000 }), text = use('sop_get', { name }, { on: ['prompts'], every: 30000 });
  const sop = sops.value?.sops.find((each) => each.name === name);
  const problems = sop && !sop.valid && has('validate_sop') ? use('validate_sop', { name }, { on: ['prompts'] }).value : null;
  return [h('p', { class: 'crumb' }, h('a', { href: link('procedures') }, '← All procedures')), h('h1', {}, sop?.title ?? name, ' ', mono(name)),
    sop?.valid && has('sop_execute') ? card('Run it', null, form(name, sop)) : null,
    problems ? card('What is wrong with it', null, h('pre', { tabindex: 0 }, (problems.problems ?? problems.errors ?? []).map((each) => `${each.line ? `line ${each.line}: ` : ''}${each.problem ?? each.message ?? each.text ?? each}\n`))) : null,
    card('What it says', null, text.value ? h('pre', { class: 'source', tabindex: 0 }, text.value.content) : wait(text))];
}

export const procedures = (name) => (name ? one(name) : list());
