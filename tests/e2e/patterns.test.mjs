// What a model did again and again is written down, and then done without it.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startAgency, legacyCall } from './agency.mjs';

const call = async (agency, name, args = {}) => {
  const answer = await legacyCall(agency.url(), name, args);
  return { error: answer.json.result.isError, text: answer.json.result.content[0].text, ...answer.json.result.structuredContent };
};

// Stores what the step asks for, then completes it. `asked` counts its answers.
async function model(t, plan) {
  const seen = [];
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { messages } = JSON.parse(body);
    seen.push(messages);
    const calls = plan(messages[1].content);
    const done = messages.filter(({ role }) => role === 'tool').length;
    const [name, args] = calls[done] ?? ['complete_step', { result: { ok: true } }];
    const message = { role: 'assistant', content: null,
      tool_calls: [{ id: `c${done}`, type: 'function', function: { name, arguments: JSON.stringify(args) } }] };
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ choices: [{ message, finish_reason: 'tool_calls' }], usage: { total_tokens: 7 } }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return { url: `http://127.0.0.1:${server.address().port}/v1`, seen };
}

test('prose that is always the same calls becomes these calls', async (t) => {
  const { url, seen } = await model(t, (prompt) => {
    const city = /the weather in (\w+)/.exec(prompt)[1];
    return [['brain_query', { query: `weather in ${city}`, limit: 2 }],
      ['brain_store', { id: `weather-${city}`, taskId: city, request: `How is ${city}?`, solution: 'fine' }]];
  });
  const agency = await startAgency({ env: { AGENCY_LLM_URL: url } });
  t.after(() => agency.stop());
  await mkdir(join(agency.data, 'souls'), { recursive: true });
  await writeFile(join(agency.data, 'souls', 'clerk.md'), 'You are never in a hurry.');
  await call(agency, 'sop_create', { name: 'weather',
    content: '---\ninputs: city\n---\n# Weather\n\n1. **Note** the weather in {{input.city}}.\n\n   Be brief.\n' });
  const none = await call(agency, 'generate_sop_from_patterns');
  assert.match(none.text, /0 completed runs were looked at\. Nothing .* nothing to propose/s);
  for (const city of ['Oslo', 'Rome']) {
    const run = await call(agency, 'sop_execute', { name: 'weather', input: { city }, soul: 'clerk' });
    assert.equal(run.state, 'completed', run.text);
  }
  assert.match(seen[0][0].content, /^You are never in a hurry\./, 'the soul is the system prompt');
  assert.equal((await call(agency, 'generate_sop_from_patterns')).proposals.length, 0, 'two are no pattern');
  await call(agency, 'sop_execute', { name: 'weather', input: { city: 'Lima' } });
  const learned = await call(agency, 'generate_sop_from_patterns');
  assert.equal(learned.proposals?.length, 1, learned.text);
  assert.equal(learned.patterns[0].count, 3);
  const again = await call(agency, 'generate_sop_from_patterns');
  assert.equal(again.patterns[0].why_not, 'it was proposed already');
  const proposal_id = learned.proposals[0];
  const { proposal } = await call(agency, 'proposal_get', { proposal_id });
  assert.match(proposal.changes[0].diff, /\+ {3}brain_store .*"How is \{\{input\.city\}\}\?"/);
  assert.equal((await call(agency, 'proposal_approve', { proposal_id })).proposal?.status, 'approved');
  assert.equal((await call(agency, 'update_agent_soul', { proposal_id })).proposal?.status, 'applied');
  const before = seen.length;
  const run = await call(agency, 'sop_execute', { name: 'weather', input: { city: 'Kyiv' } });
  assert.equal(run.state, 'completed', run.text);
  assert.equal(seen.length, before, 'no model was asked');
  const kept = await call(agency, 'brain_get', { id: 'weather-Kyiv' });
  assert.equal(kept.memory?.request ?? kept.request, 'How is Kyiv?', JSON.stringify(kept));
});

test('what cannot be explained is not proposed, and the reason is told', async (t) => {
  let number = 0;
  const { url } = await model(t, () => [['brain_store', { taskId: 'x', request: 'r', solution: `guess ${number++ * 7919}` }]]);
  const agency = await startAgency({ env: { AGENCY_LLM_URL: url } });
  t.after(() => agency.stop());
  await call(agency, 'sop_create', { name: 'guess', content: '# Guess\n\n1. **Guess** something\n' });
  for (let i = 0; i < 3; i++) await call(agency, 'sop_execute', { name: 'guess' });
  const found = await call(agency, 'generate_sop_from_patterns', { sop: 'guess' });
  assert.deepEqual(found.proposals, [], found.text);
  assert.match(found.text, /the argument 'solution' of brain_store differs from run to run/);
});

test('a step that works when it is done again gets retries', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  await call(agency, 'sop_create', { name: 'flaky',
    content: '# Flaky\n\n1. **Look**\n\n   ```sh replay=safe\n   test -e {{input}}\n   ```\n\n2. **Say**\n\n   ```sh\n   echo hi\n   ```\n' });
  for (let i = 0; i < 3; i++) {
    const gate = join(agency.data, `gate-${i}`);
    const run = await call(agency, 'sop_execute', { name: 'flaky', input: gate });
    assert.equal(run.state, 'failed', run.text);
    await writeFile(gate, '');
    await call(agency, 'run_retry_from', { id: run.id, step: 'look' });
    for (let end = Date.now() + 20000, last; last !== 'completed'; last = (await call(agency, 'run_get', { id: run.id })).state)
      assert.ok(Date.now() < end, last);
  }
  const found = await call(agency, 'generate_sop_from_patterns');
  assert.equal(found.proposals?.length, 1, found.text);
  const { proposal } = await call(agency, 'proposal_get', { proposal_id: found.proposals[0] });
  assert.match(proposal.changes[0].diff, /\+ {3}```sh replay=safe retries=2/);
  assert.equal(proposal.evidence[0].count, 3);
});
