// The brain: find memories, and see why they were found.
import { h, card, pill, when, number, empty, trouble, mono, value, plural, cut } from './dom.js';
import { use, has, again } from './data.js';

const look = { query: '', limit: 10, type: '', explain: false };

function result(memory, place) {
  const why = memory.explanation;
  const rank = [memory.word_rank ? `words #${memory.word_rank}` : null, memory.vector_rank ? `likeness #${memory.vector_rank}` : null].filter(Boolean).join(' · ');
  return h('article', { class: 'memory', 'data-key': memory.id },
    h('div', { class: 'row' }, place ? h('span', { class: 'no' }, place) : null, h('h3', {}, cut(memory.request || memory.id, 240)), memory.type ? pill(memory.type, memory.type, 'dim') : null),
    memory.solution ? h('p', { class: 'solution' }, cut(memory.solution, 700)) : null,
    h('p', { class: 'note' }, [mono(memory.id), memory.author ? ` · ${memory.author}` : '', memory.thread ? ` · ${memory.thread}` : '', ' · ', when(memory.timestamp),
      memory.score === undefined ? '' : ` · score ${number(memory.score)}`, rank ? ` · ${rank}` : '']),
    why ? h('p', { class: 'note' }, why.words.length ? ['has the words ', why.words.map((word) => [mono(word), ' '])] : 'has none of the words ',
      why.word_score === undefined ? '' : ` · BM25F ${number(why.word_score)} × ${number(why.word_weight)}`, why.cosine === undefined ? '' : ` · cosine ${number(why.cosine)} × ${number(why.vector_weight)}`,
      why.neighbour_score ? ` · neighbours ${number(why.neighbour_score)}` : '', why.recency === undefined ? '' : ` · recency ${number(why.recency)}`) : null,
    value('Metadata', memory.metadata), value('Artifacts', memory.artifacts), (memory.solution ?? '').length > 700 ? value('All of it', memory.solution) : null);
}

function found() {
  const args = { query: look.query, limit: look.limit, ...(look.type ? { type: look.type } : {}), ...(look.explain ? { explain: true } : {}) };
  const entry = use('brain_query', args, { every: 60000 });
  if (!entry.value) return entry.error ? trouble(entry.error.message) : h('p', { class: 'loading' }, 'Looking…');
  return card(`${plural(entry.value.memories.length, 'memory', 'memories')} for “${cut(look.query, 60)}”`, entry.value.words_only ? `words only: ${entry.value.words_only}` : null,
    entry.value.memories.length ? entry.value.memories.map((memory, i) => result(memory, i + 1)) : empty('Nothing was found.'));
}

function latest() {
  const entry = use('brain_list', { limit: 10, ...(look.type ? { type: look.type } : {}) }, { on: ['resources', 'log'], every: 15000 });
  if (!entry.value) return entry.error ? trouble(entry.error.message) : h('p', { class: 'loading' }, 'Loading…');
  return card('Latest memories', null, entry.value.memories.length ? entry.value.memories.map((memory) => result(memory))
    : empty('Nothing is remembered yet. Runs of procedures leave their experience here; or store something:', 'agency call brain_store taskId=t1 request=\'Why was the build slow?\' solution=\'The cache was cold.\''));
}

export function memory() {
  const search = (event) => {
    event.preventDefault();
    const form = event.currentTarget.elements;
    look.query = form.query.value.trim();
    look.type = form.type.value.trim();
    look.limit = Number(form.limit.value);
    look.explain = form.explain.checked;
    again();
  };
  const stat = has('brain_stat') ? use('brain_stat', {}, { on: ['resources', 'log'], every: 30000 }).value : null;
  return [h('div', { class: 'top' }, h('h1', {}, 'Memory'), stat ? h('p', { class: 'note' }, `${plural(stat.memories, 'memory', 'memories')} · ${plural(stat.nodes, 'node')} and ${plural(stat.edges, 'edge')} in the graph`) : null),
    h('form', { class: 'bar search', role: 'search', 'data-key': 'search', onsubmit: search },
      h('label', { class: 'field grow' }, h('span', {}, 'What to look for, in plain words'), h('input', { type: 'search', name: 'query', maxlength: 8192, placeholder: 'why was the build slow', autocomplete: 'off' })),
      h('label', { class: 'field' }, h('span', {}, 'Type'), h('input', { name: 'type', maxlength: 128, placeholder: 'any', size: 12, autocomplete: 'off' })),
      h('label', { class: 'field' }, h('span', {}, 'At most'), h('select', { name: 'limit' }, [5, 10, 20, 50].map((n) => h('option', { value: n, selected: n === look.limit }, n)))),
      h('label', { class: 'check' }, h('input', { type: 'checkbox', name: 'explain' }), 'Say why'),
      h('button', { class: 'primary' }, 'Search')),
    look.query ? found() : latest()];
}

