// Steps of prose without a model of our own, done by the client's model, in both eras.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CreateMessageRequestSchema, ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { startAgency, modern, legacyCall, answerTo, asked as question } from './agency.mjs';

let agency;
before(async () => {
  agency = await startAgency();
  const create = (name, content) => legacyCall(agency.url(), 'sop_create', { name, content });
  await create('poem', `# Poem

1. **Weather**

   \`\`\`sh replay=safe
   echo rain
   \`\`\`
2. **Write**: a line about {{steps.weather.result.stdout}} for {{input.who}}.
3. **Keep**

   \`\`\`sh replay=safe
   echo kept {{steps.write.result}}
   \`\`\`
4. **Title**: find a title for {{steps.write.result}}.
`);
  await create('one', '# One\n\n1. **Think**: of a number.\n');
});
after(() => agency.stop());

async function connect(t, capabilities, answer) {
  const client = new Client({ name: 'test', version: '1' }, { capabilities });
  const asked = [];
  if (capabilities.sampling) client.setRequestHandler(CreateMessageRequestSchema, async ({ params }) => { asked.push(params); return answer(params, asked.length); });
  await client.connect(new StreamableHTTPClientTransport(agency.url()));
  t.after(() => client.close());
  return { asked, execute: (name, input = {}) => client.callTool({ name: 'sop_execute', arguments: { name, input } }), client };
}

const say = (text, more = {}) => ({ role: 'assistant', model: 'parrot-7b', stopReason: 'endTurn', content: { type: 'text', text }, ...more });
const use = (name, input) => ({ role: 'assistant', model: 'parrot-7b', stopReason: 'toolUse', content: [{ type: 'tool_use', id: 'c1', name, input }] });

test('a client with sampling does the prose of a run, step by step', async (t) => {
  const { asked, execute } = await connect(t, { sampling: {} }, (params, n) => say(n === 1 ? 'Rain, rain.' : 'Wet'));
  const { structuredContent: run, isError, content } = await execute('poem', { who: 'Ada' });
  assert.ok(!isError && run.state === 'completed', content[0].text);
  assert.deepEqual(run.steps.map((step) => step.result?.stdout ?? step.result), ['rain', 'Rain, rain.', 'kept Rain, rain.', 'Wet']);
  assert.equal(run.steps[1].by, 'local by sampling (parrot-7b)');
  assert.equal(asked.length, 2);
  const [first, second] = asked.map((params) => params.messages[0].content.text);
  assert.match(first, /a line about rain for Ada/);
  assert.match(second, /kept Rain, rain\./, 'it sees what came before');
  assert.ok(asked[0].maxTokens > 0 && asked[0].tools === undefined);
});

test('what the model did not finish, or cannot do, is no success', async (t) => {
  for (const [answer, why] of [[say('CANNOT: it needs a printer'), 'says that it cannot'], [say('A numb', { stopReason: 'maxTokens' }), 'was cut off'], [say('  '), 'is empty']]) {
    const { execute } = await connect(t, { sampling: {} }, () => answer);
    const { structuredContent: run } = await execute('one');
    assert.equal(run.state, 'input_required', why);
    assert.equal(run.steps[0].result, undefined);
  }
  const { execute: refused } = await connect(t, { sampling: {} }, () => { throw new Error('my user says no'); });
  assert.equal((await refused('one')).structuredContent.state, 'input_required');
  // A person is asked next, where there is one.
  const { client, execute, asked } = await connect(t, { sampling: {}, elicitation: {} }, () => say('cannot: I have no numbers'));
  client.setRequestHandler(ElicitRequestSchema, async () => ({ action: 'accept', content: { result: 'seven' } }));
  const { structuredContent: run } = await execute('one');
  assert.equal(run.state, 'completed');
  assert.equal(run.steps[0].result, 'seven');
  assert.equal(asked.length, 1);
});

test('a model that can call tools ends the step by complete_step or fail_step', async (t) => {
  const done = await connect(t, { sampling: { tools: {} } }, () => use('complete_step', { result: { number: 7 } }));
  const { structuredContent: run } = await done.execute('one');
  assert.equal(run.state, 'completed');
  assert.deepEqual(run.steps[0].result, { number: 7 });
  assert.deepEqual(done.asked[0].tools.map((tool) => tool.name), ['complete_step', 'fail_step']);
  const failed = await connect(t, { sampling: { tools: {} } }, () => use('fail_step', { reason: 'no numbers left' }));
  const answer = await failed.execute('one');
  assert.match(answer.content[0].text, /no numbers left/);
  const chatty = await connect(t, { sampling: { tools: {} } }, () => say('Seven is nice.'));
  assert.equal((await chatty.execute('one')).structuredContent.state, 'input_required');
});

test('the same in the modern era, as input_required and as a task', async () => {
  const capabilities = (more = {}) => ({ more: { 'io.modelcontextprotocol/clientCapabilities': { sampling: {}, ...more } } });
  const params = { name: 'sop_execute', arguments: { name: 'one', input: {} } };
  const asked = (await modern(agency.url(), 'tools/call', params, capabilities())).json.result;
  assert.equal(asked.resultType, 'input_required');
  assert.equal(question(asked.inputRequests).method, 'sampling/createMessage');
  const again = (answer, requestState = asked.requestState) => modern(agency.url(), 'tools/call', { ...params, requestState, inputResponses: answerTo(asked.inputRequests, answer) }, capabilities());
  const cut = (await again(say('Sev', { stopReason: 'maxTokens' }))).json.result;
  assert.equal(cut.structuredContent.state, 'input_required');
  const fine = (await again(say('Seven'))).json.result;
  assert.equal(fine.structuredContent.state, 'completed', JSON.stringify(fine));
  assert.equal(fine.structuredContent.steps[0].result, 'Seven');

  const tasks = capabilities({ extensions: { 'io.modelcontextprotocol/tasks': {} } });
  const { taskId } = (await modern(agency.url(), 'tools/call', params, tasks)).json.result;
  const task = (method, more = {}) => modern(agency.url(), method, { taskId, ...more }, { ...tasks, headers: { 'mcp-name': taskId } });
  let state;
  do state = (await task('tasks/get')).json.result; while (state.status === 'working');
  assert.equal(question(state.inputRequests).method, 'sampling/createMessage', JSON.stringify(state));
  const refused = await task('tasks/update', { inputResponses: answerTo(state.inputRequests, say('CANNOT: no')) });
  assert.match(refused.json.error.message, /completes no step/);
  assert.equal((await task('tasks/get')).json.result.status, 'input_required');
  assert.equal((await task('tasks/update', { inputResponses: answerTo(state.inputRequests, say('Eight')) })).json.result.resultType, 'complete');
  do state = (await task('tasks/get')).json.result; while (state.status !== 'completed');
  assert.equal(state.result.structuredContent.steps[0].result, 'Eight');
});

test('without sampling the step waits, as it always did', async (t) => {
  const { execute } = await connect(t, {}, () => say('x'));
  const { structuredContent: run } = await execute('one');
  assert.equal(run.state, 'input_required');
  assert.match(run.why, /step_complete or step_fail/);
});
