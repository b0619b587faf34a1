// Alerts, anomalies, charts.
import { h, card, pill, when, number, table, empty, trouble, mono, toast, plural, clock, span } from './dom.js';
import { use, has, act, again, page } from './data.js';
import { chart, lineOf } from './chart.js';

const wait = (entry) => (entry.error ? trouble(entry.error.message) : h('p', { class: 'loading' }, 'Loading…'));

function rule(one) {
  const silent = one.silenced_until && one.silenced_until > Date.now();
  const press = (text, tool, args, done, tone) => (has(tool) ? h('button', { type: 'button', class: tone ?? null, 'aria-label': `${text}: ${one.id}`, onclick: (event) => act(event.currentTarget, tool, { id: one.id, ...args }, done, toast) }, text) : null);
  return [pill(one.state), h('div', {}, mono(`${one.metric} ${one.operator} ${number(one.threshold)}`), one.for_ms ? h('span', { class: 'note' }, ` for ${span(one.for_ms / 1000)}`) : null,
    one.id === `${one.metric} ${one.operator} ${one.threshold}` ? null : h('div', { class: 'note' }, one.id)), one.value === undefined ? '–' : [number(one.value), one.by ?? one.series ? h('div', { class: 'note' }, one.by ?? one.series) : null],
  one.since ? when(one.since) : '–', number(one.fired), silent ? h('span', { title: clock(one.silenced_until) }, pill('silenced')) : one.contact ? one.told === false ? 'being told' : 'told' : '–',
  h('div', { class: 'actions' }, silent ? press('Unsilence', 'silence_alert', { for_ms: 0 }, 'From now on it is told again.') : press('Silence 1 h', 'silence_alert', { for_ms: 3600000 }, 'Nobody is told for an hour.'),
    one.from_file ? null : press('Remove', 'alert_remove', {}, `The rule on ${one.metric} is gone.`, 'danger'))];
}

function newRule() {
  if (!has('alert_on_threshold')) return null;
  const add = async (event) => {
    event.preventDefault();
    const form = event.currentTarget, { metric, operator, threshold } = form.elements;
    if (await act(event.submitter, 'alert_on_threshold', { metric: metric.value.trim(), operator: operator.value, threshold: Number(threshold.value) }, `It is watched: ${metric.value.trim()}.`, toast)) form.reset();
  };
  return h('form', { class: 'bar', 'data-key': 'new-rule', onsubmit: add },
    h('label', { class: 'field grow' }, h('span', {}, 'Metric'), h('input', { name: 'metric', required: true, maxlength: 330, placeholder: 'latency, or agent:metric', autocomplete: 'off' })),
    h('label', { class: 'field' }, h('span', {}, 'Is'), h('select', { name: 'operator' }, ['>', '>=', '<', '<=', '==', '!='].map((op) => h('option', { value: op }, op)))),
    h('label', { class: 'field' }, h('span', {}, 'Threshold'), h('input', { name: 'threshold', required: true, type: 'number', step: 'any' })),
    h('button', { class: 'primary' }, 'Add rule'));
}

export function alerts() {
  const entry = use('check_alerts', {}, { on: ['alerts', 'report'], every: 10000 }), odd = use('detect_anomalies', {}, { on: ['alerts'], every: 20000 });
  const order = { firing: 0, pending: 1 };
  const list = entry.value ? [...entry.value.alerts].sort((a, b) => (order[a.state] ?? 2) - (order[b.state] ?? 2)) : [];
  return [h('h1', {}, 'Alerts'), entry.value?.rules_error ? trouble(entry.value.rules_error) : null,
    card('Rules', entry.value ? `${number(entry.value.firing)} firing of ${list.length}` : null,
      !entry.value ? wait(entry) : list.length ? table(['State', 'Rule', '#Value', 'Since', '#Fired', 'Told', ''], list.map(rule), { label: 'Alert rules', keys: list.map((one) => one.id) })
        : empty('No rule yet. Add one here, or:', 'agency call alert_on_threshold metric=latency operator=\'>\' threshold=5'), newRule()),
    card('Anomalies', odd.value ? `${plural(odd.value.looked_at, 'metric')} looked at, ${number(odd.value.too_short)} with too little history` : null,
      !odd.value ? wait(odd) : odd.value.anomalies.length ? table(['Metric', '#Value', '#Usual', '#Off by', 'When', 'Found by'],
        odd.value.anomalies.map((one) => [mono(`${one.agent}:${one.metric}`), number(one.value), number(one.expected), `${number(Math.abs(one.score))} ${one.score < 0 ? 'below' : 'above'}`, when(one.at), one.method]), { label: 'Anomalies' })
        : h('p', { class: 'note' }, odd.value.looked_at ? 'Nothing behaves unlike before.' : 'No metric has enough history yet to say what is usual: about half an hour.'))];
}

// ---- Charts ----

const own = new Set(['agent', 'brain', 'health', 'swarm', 'elastic', 'outside', 'worker']);
const first = ['agent:queue_length', 'agent:task_transitions_completed', 'agent:queue_oldest_ready_age_seconds', 'elastic:scale_replicas', 'agent:task_transitions_failed',
  'agent:actor_loop_turn_max_seconds', 'brain:actor_loop_turn_max_seconds', 'brain:brain_index_vectors'];
const counters = /:(task_transitions_\w+|store_commits|store_commit_seconds|run_tokens|scale_changes)$/;
const look = { frame: 'last_hour', find: '', most: 12 };

function order(keys) {
  const place = (key) => (own.has(key.split(':')[0]) ? (first.includes(key) ? 1000 + first.indexOf(key) : 2000) : 0);
  return keys.sort((a, b) => place(a) - place(b) || a.localeCompare(b));
}

function one(metric, ref) {
  const entry = use('metric_series', { metric, timeframe: look.frame, points: 120 }, { on: own.has(metric.split(':')[0]) ? [] : ['report'], every: 20000 });
  const rate = counters.test(metric), cut = metric.indexOf(':');
  return chart({ title: rate ? `${metric} per minute` : metric, ref, ...lineOf(entry.value, metric.slice(0, cut), { rate }) });
}

export function charts() {
  const report = use('get_health_report', { timeframe: look.frame }, { on: ['report'], every: 20000 });
  const rules = use('check_alerts', {}, { on: ['alerts'], every: 30000 }).value?.alerts ?? [];
  const all = order(Object.keys(report.value?.metrics ?? {})), keys = all.filter((key) => key.toLowerCase().includes(look.find.toLowerCase()));
  const shown = keys.slice(0, look.most);
  return [h('div', { class: 'top' }, h('h1', {}, 'Charts'), h('div', { class: 'actions' },
    h('input', { type: 'search', placeholder: 'Find a metric', 'aria-label': 'Find a metric', oninput: (event) => { look.find = event.target.value; look.most = 12; again(); } }),
    h('label', { class: 'inline' }, 'Time ', h('select', { onchange: (event) => { look.frame = event.target.value; again(); } }, [['last_hour', 'last hour'], ['last_day', 'last day'], ['last_week', 'last week']].map(([value, text]) => h('option', { value, selected: value === look.frame }, text)))))),
  !report.value ? wait(report) : all.length ? null : card('Metrics', null, empty(page.company && page.company !== 'default' ? 'Nothing was measured. The agency\'s own metrics belong to its default company. Track one:' : 'Nothing was measured yet. Track something:', 'agency call track_metric agent=me metric=latency value=7')),
  all.length && !keys.length ? empty(`No metric has “${look.find}” in its name.`) : null,
  shown.length ? card(plural(keys.length, 'metric'), h('span', {}, 'yours first, then the agency\'s own'), h('div', { class: 'charts' }, shown.map((key) => one(key, rules.find((rule) => rule.metric === key || rule.metric === key.slice(key.indexOf(':') + 1))?.threshold ?? null))),
    keys.length > shown.length ? h('p', { class: 'foot' }, h('button', { type: 'button', onclick: () => { look.most += 12; again(); } }, `Show ${Math.min(12, keys.length - shown.length)} more`)) : null) : null];
}
