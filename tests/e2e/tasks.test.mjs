// Long work: tasks in the form of 2025-11-25, progress and cancellation through to the worker's step,
// questions on the way, and what is left of it when processes are killed.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { readFile, rm, access } from 'node:fs/promises';
import { join } from 'node:path';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ElicitRequestSchema, CallToolResultSchema, TaskStatusNotificationSchema, LoggingMessageNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { startAgency, post, modern, legacyCall, asked, answerTo } from './agency.mjs';

const info = { name: 'test', version: '1' };
let agency;
before(async () => { agency = await startAgency(); });
after(async () => { await agency.stop(); });

async function connect(url = agency.url(), capabilities = {}) {
  const client = new Client(info, { capabilities });
  await client.connect(new StreamableHTTPClientTransport(url));
  return client;
}
async function until(ask, want, ms = 30000) {
  const end = Date.now() + ms;
  let last;
  while (Date.now() < end) {
    last = await ask();
    if (want(last)) return last;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`in vain: ${JSON.stringify(last)}`);
}
const there = (path) => access(path).then(() => true, () => false);
const sh = (title, ...scripts) => `# ${title}\n\n${scripts.map((script, i) => `${i + 1}. **Step ${i + 1}**\n\n   \`\`\`sh replay=safe\n   ${script}\n   \`\`\`\n`).join('')}`;
const write = async (name, content) => {
  const made = await legacyCall(agency.url(), 'sop_create', { name, content });
  assert.ok(!made.json.result.isError, made.text);
};

test('the official client: a task is made, followed, listed and fetched', async () => {
  await write('quick', sh('Quick', 'echo one', 'echo two'));
  const client = await connect();
  assert.deepEqual(client.getServerCapabilities().tasks, { list: {}, cancel: {}, requests: { tools: { call: {} } } });
  const { tools } = await client.listTools();
  assert.equal(tools.find((tool) => tool.name === 'sop_execute').execution.taskSupport, 'optional');
  assert.equal(tools.find((tool) => tool.name === 'brain_maintenance').execution.taskSupport, 'optional');
  assert.equal(tools.find((tool) => tool.name === 'task_get').execution, undefined);
  const seen = [];
  for await (const message of client.experimental.tasks.callToolStream({ name: 'sop_execute', arguments: { name: 'quick' } }, CallToolResultSchema, { task: { ttl: 60000 } }))
    seen.push(message);
  assert.equal(seen[0].type, 'taskCreated');
  const { taskId } = seen[0].task;
  const last = seen.at(-1);
  assert.equal(last.type, 'result', JSON.stringify(last));
  assert.match(last.result.content[0].text, /executed successfully/);
  assert.equal(last.result.structuredContent.state, 'completed');
  assert.equal(last.result._meta['io.modelcontextprotocol/related-task'].taskId, taskId);
  const task = await client.experimental.tasks.getTask(taskId);
  assert.equal(task.status, 'completed');
  const { tasks } = await client.experimental.tasks.listTasks();
  assert.ok(tasks.some((one) => one.taskId === taskId), 'the same task has the same id in the list');
  await assert.rejects(client.experimental.tasks.cancelTask(taskId), (error) => error.code === -32602);
  await client.close();
});

test('any tool that may be long can be a task; others cannot', async () => {
  await legacyCall(agency.url(), 'brain_store', { taskId: 't', request: 'a', solution: 'b' });
  const headers = { 'mcp-protocol-version': '2025-11-25' };
  const rpc = (method, params, id = 1) => post(agency.url(), { jsonrpc: '2.0', id, method, params }, headers);
  const made = await rpc('tools/call', { name: 'brain_maintenance', arguments: { action: 'verify' }, task: {} });
  const { taskId } = made.json.result.task;
  assert.equal(made.json.result.task.status, 'working');
  const result = await rpc('tasks/result', { taskId });
  assert.ok(!result.json.result.isError, result.text);
  const direct = await legacyCall(agency.url(), 'brain_maintenance', { action: 'verify' });
  assert.deepEqual(Object.keys(result.json.result.structuredContent).sort(), Object.keys(direct.json.result.structuredContent).sort());
  const failing = await rpc('tools/call', { name: 'brain_maintenance', arguments: { action: 'nonsense' }, task: {} });
  const failed = await rpc('tasks/result', { taskId: failing.json.result.task.taskId });
  assert.equal(failed.json.result.isError, true);
  assert.match(failed.json.result.content[0].text, /action/);
  assert.equal((await rpc('tasks/get', { taskId: failing.json.result.task.taskId })).json.result.status, 'failed');
  const refused = await rpc('tools/call', { name: 'task_get', arguments: { id: 'x' }, task: {} });
  assert.equal(refused.json.error.code, -32601);
  for (const bad of ['x', `${taskId}x`, '', 7])
    assert.equal((await rpc('tasks/get', { taskId: bad })).json.error.code, -32602);
  // Where tasks were not yet invented, params.task means nothing.
  const older = await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'queue_stats', arguments: {}, task: {} } }, { 'mcp-protocol-version': '2025-06-18' });
  assert.ok(older.json.result.structuredContent);
});

test('cancelling reaches the script of the worker, by task and by request', async () => {
  const begun = join(agency.data, 'begun'), ended = join(agency.data, 'ended');
  await write('long', sh('Long', `touch ${begun}; sleep 600; touch ${ended}`));
  const gone = async (id) => {
    const { json } = await legacyCall(agency.url(), 'run_get', { id });
    return json.result.structuredContent.state;
  };
  const idle = () => until(async () => (await legacyCall(agency.url(), 'queue_stats')).json.result.structuredContent.leased + (await legacyCall(agency.url(), 'queue_stats')).json.result.structuredContent.running, (busy) => busy === 0);
  const runs = async () => (await legacyCall(agency.url(), 'task_list', { kind: 'sop', limit: 1 })).json.result.structuredContent.tasks[0].id;

  const client = await connect();
  const status = new Promise((resolve) => client.setNotificationHandler(TaskStatusNotificationSchema, (note) => note.params.status === 'cancelled' && resolve(note.params)));
  const stream = client.experimental.tasks.callToolStream({ name: 'sop_execute', arguments: { name: 'long' } }, CallToolResultSchema, { task: {} });
  const { value } = await stream.next();
  await until(() => there(begun), Boolean);
  const worker = await workerOf();
  assert.equal((await client.experimental.tasks.cancelTask(value.task.taskId)).status, 'cancelled');
  assert.equal((await status).taskId, value.task.taskId);
  await until(async () => (await children(worker)).length, (count) => count === 0, 20000);
  assert.equal((await client.experimental.tasks.getTask(value.task.taskId)).status, 'cancelled');
  await idle();
  await rm(begun);

  // A call that its client thinks better of.
  const abort = new AbortController();
  const call = client.callTool({ name: 'sop_execute', arguments: { name: 'long' } }, undefined, { signal: abort.signal });
  call.catch(() => {});
  await until(() => there(begun), Boolean);
  const id = await runs();
  abort.abort('enough');
  await assert.rejects(call);
  await until(() => gone(id), (state) => state === 'cancelled');
  await until(async () => (await children(worker)).length, (count) => count === 0, 20000);
  await rm(begun);

  // In the modern era leaving is cancelling.
  const leave = new AbortController();
  const left = fetch(agency.url(), { method: 'POST', signal: leave.signal,
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': 'sop_execute' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'sop_execute', arguments: { name: 'long' }, _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} } } }) });
  left.catch(() => {});
  await until(() => there(begun), Boolean);
  const another = await runs();
  leave.abort();
  await until(() => gone(another), (state) => state === 'cancelled');
  await until(async () => (await children(worker)).length, (count) => count === 0, 20000);
  assert.equal(await there(ended), false);
  await client.close();
});

// Processes below the worker: its scripts.
async function workerOf() {
  return Number(await readFile(join(agency.data, 'run', 'worker-1.pid'), 'utf8').catch(() => readFile(join(agency.data, 'run', 'worker.pid'), 'utf8')));
}
async function children(pid) {
  return (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ').filter(Boolean);
}

test('steps are progress, and a question is asked of the client that waits', async () => {
  await write('asking', `${sh('Asking', 'echo first')}2. **Decide**\n\n   \`\`\`approve\n   Shall it go out?\n   \`\`\`\n3. **Last**\n\n   \`\`\`sh\n   echo last\n   \`\`\`\n`);
  const client = await connect(agency.url(), { elicitation: {} });
  const asked = [], lines = [];
  client.setNotificationHandler(LoggingMessageNotificationSchema, (note) => lines.push(note.params.data));
  client.setRequestHandler(ElicitRequestSchema, (request) => {
    asked.push(request.params);
    return { action: 'accept', content: { approve: true } };
  });
  const steps = [];
  const result = await client.callTool({ name: 'sop_execute', arguments: { name: 'asking' } }, undefined, { onprogress: (note) => steps.push(note) });
  assert.equal(result.structuredContent.state, 'completed', JSON.stringify(result));
  assert.equal(asked.length, 1);
  assert.match(asked[0].message, /Shall it go out/);
  assert.ok(steps.length >= 2, JSON.stringify(steps));
  for (let i = 1; i < steps.length; i++) assert.ok(steps[i].progress > steps[i - 1].progress);
  assert.equal(steps.at(-1).total, 3);
  assert.ok(lines.some((line) => /^step_1: completed/.test(line)), JSON.stringify(lines));
  await client.setLoggingLevel('warning');
  lines.length = 0;

  // The same of a task: the question comes with tasks/result, and says of which task.
  const seen = [];
  for await (const message of client.experimental.tasks.callToolStream({ name: 'sop_execute', arguments: { name: 'asking' } }, CallToolResultSchema, { task: {} }))
    seen.push(message);
  assert.equal(seen.at(-1).result?.structuredContent.state, 'completed', JSON.stringify(seen.at(-1)));
  assert.equal(asked[1]._meta['io.modelcontextprotocol/related-task'].taskId, seen[0].task.taskId);

  assert.deepEqual(lines, [], 'nothing below the level that the client set');
  // Who cannot be asked gets the run as it is.
  const mute = await connect();
  const waits = await mute.callTool({ name: 'sop_execute', arguments: { name: 'asking' } });
  assert.equal(waits.structuredContent.state, 'input_required');
  await mute.close();
  await client.close();
});

test('in the modern era a question is input_required, and its state belongs to the call', async () => {
  const call = (name, more = {}) => modern(agency.url(), 'tools/call', { name: 'sop_execute', arguments: { name }, ...more }, { more: { 'io.modelcontextprotocol/clientCapabilities': { elicitation: {} } } });
  const first = await call('asking');
  assert.equal(first.json.result.resultType, 'input_required', first.text);
  const { requestState, inputRequests } = first.json.result;
  assert.match(asked(inputRequests).params.message, /Shall it go out/);
  const answers = answerTo(inputRequests, { action: 'accept', content: { approve: true } });
  const other = await call('quick', { requestState, inputResponses: answers });
  assert.equal(other.status, 400);
  const again = await call('asking', { requestState }); // no answer: it asks again
  assert.equal(again.json.result.resultType, 'input_required', again.text);
  // Who could have a task now does not begin a second run.
  const { json: before } = await legacyCall(agency.url(), 'task_list', { kind: 'sop', limit: 1 });
  const asTask = await modern(agency.url(), 'tools/call', { name: 'sop_execute', arguments: { name: 'asking' }, requestState }, { more: { 'io.modelcontextprotocol/clientCapabilities': { elicitation: {}, extensions: { 'io.modelcontextprotocol/tasks': {} } } } });
  assert.equal(asTask.json.result.resultType, 'input_required', asTask.text);
  const { json: after } = await legacyCall(agency.url(), 'task_list', { kind: 'sop', limit: 1 });
  assert.equal(after.result.structuredContent.tasks[0].id, before.result.structuredContent.tasks[0].id);
  const done = await call('asking', { requestState, inputResponses: answers });
  assert.equal(done.json.result.structuredContent.state, 'completed', done.text);
});

// Requests are repeated when an answer is lost on the way: what was said to one question must not
// answer the next, and who closed a question has not decided.
test('an answer counts for its own question only', async () => {
  const ask = (number, text) => `${number}. **Ask ${number}**\n\n   \`\`\`approve\n   ${text}\n   \`\`\`\n`;
  await write('twice', `# Twice\n\n${ask(1, 'First?')}${ask(2, 'Second?')}`);
  const capabilities = (more = {}) => ({ more: { 'io.modelcontextprotocol/clientCapabilities': { elicitation: {}, ...more } } });
  const params = { name: 'sop_execute', arguments: { name: 'twice' } };
  const call = async (more = {}) => (await modern(agency.url(), 'tools/call', { ...params, ...more }, capabilities())).json.result;
  const yes = { action: 'accept', content: { approve: true } };
  const { requestState, inputRequests } = await call();
  const say = (answer) => call({ requestState, inputResponses: answerTo(inputRequests, answer) });
  const unclear = await say({ action: 'accept', content: { approve: 'yes' } });
  assert.equal(unclear.resultType, 'input_required', 'what is no answer is asked again');
  for (const open of [{ action: 'cancel' }, { action: 'maybe' }, {}]) {
    const closed = await say(open);
    assert.equal(closed.structuredContent?.state, 'input_required', JSON.stringify(closed));
  }
  for (let i = 0; i < 2; i++) {
    const second = await say(yes);
    assert.match(asked(second.inputRequests ?? {})?.params.message, /Second\?/, `time ${i + 1}: ${JSON.stringify(second)}`);
    assert.notDeepEqual(Object.keys(second.inputRequests), Object.keys(inputRequests));
  }

  const tasks = capabilities({ extensions: { 'io.modelcontextprotocol/tasks': {} } });
  const { taskId } = (await modern(agency.url(), 'tools/call', params, tasks)).json.result;
  const task = async (method, more = {}) => (await modern(agency.url(), method, { taskId, ...more }, { ...tasks, headers: { 'mcp-name': taskId } })).json;
  const waiting = async (text) => {
    for (;;) {
      const { result } = await task('tasks/get');
      if (result.status !== 'working' && text.test(asked(result.inputRequests ?? {})?.params.message)) return result.inputRequests;
      assert.ok(['working', 'input_required'].includes(result.status), JSON.stringify(result));
    }
  };
  const first = await waiting(/First\?/);
  const wrong = await task('tasks/update', { inputResponses: answerTo(first, { action: 'accept', content: {} }) });
  assert.match(wrong.error.message, /content\.approve must be true or false/);
  for (let i = 0; i < 2; i++) {
    assert.ok((await task('tasks/update', { inputResponses: answerTo(first, yes) })).result);
    await waiting(/Second\?/);
  }
  assert.match((await task('tasks/update', { inputResponses: 7 })).error.message, /inputResponses/);
  await task('tasks/update', { inputResponses: answerTo(await waiting(/Second\?/), { action: 'decline' }) });
  let state;
  do state = (await task('tasks/get')).result; while (state.status !== 'completed');
  assert.match(state.result.content[0].text, /rejected/);
});

test('a legacy client whose user closes the question leaves the run as it is', async () => {
  await write('closing', '# Closing\n\n1. **Decide**\n\n   ```approve\n   Shall it go out?\n   ```\n');
  for (const answer of [() => ({ action: 'cancel' }), () => { throw new Error('no window to ask in'); }]) {
    const client = await connect(agency.url(), { elicitation: {} });
    let times = 0;
    client.setRequestHandler(ElicitRequestSchema, () => { times++; return answer(); });
    const result = await client.callTool({ name: 'sop_execute', arguments: { name: 'closing' } });
    assert.equal(result.structuredContent.state, 'input_required', JSON.stringify(result));
    assert.equal(times, 1);
    await client.close();
  }
});

test('what a run inside asks is asked of the client, as if the outer one did', async () => {
  await write('inside', '# Inside\n\n1. **First**\n\n   ```approve\n   Inside first?\n   ```\n2. **Second**\n\n   ```approve\n   Inside second?\n   ```\n');
  await write('outside', '# Outside\n\n1. **Own**\n\n   ```approve\n   Own?\n   ```\n2. **Child**\n\n   ```sop\n   inside {}\n   ```\n');
  await write('around', '# Around\n\n1. **Child**\n\n   ```sop\n   outside {}\n   ```\n');
  const yes = { action: 'accept', content: { approve: true } }, questions = [/Own\?/, /Inside first\?/, /Inside second\?/];
  const capabilities = (more = {}) => ({ more: { 'io.modelcontextprotocol/clientCapabilities': { elicitation: {}, ...more } } });
  const params = { name: 'sop_execute', arguments: { name: 'around' } };
  let result, more = {};
  const keys = new Set();
  for (const question of questions) {
    ({ result } = (await modern(agency.url(), 'tools/call', { ...params, ...more }, capabilities())).json);
    assert.match(asked(result.inputRequests ?? {})?.params.message ?? JSON.stringify(result), question);
    keys.add(Object.keys(result.inputRequests)[0]);
    more = { requestState: result.requestState, inputResponses: answerTo(result.inputRequests, yes) };
  }
  assert.equal(keys.size, 3);
  ({ result } = (await modern(agency.url(), 'tools/call', { ...params, ...more }, capabilities())).json);
  assert.equal(result.structuredContent?.state, 'completed', JSON.stringify(result));

  const tasks = capabilities({ extensions: { 'io.modelcontextprotocol/tasks': {} } });
  const { taskId } = (await modern(agency.url(), 'tools/call', params, tasks)).json.result;
  const task = async (method, extra = {}) => (await modern(agency.url(), method, { taskId, ...extra }, { ...tasks, headers: { 'mcp-name': taskId } })).json.result;
  for (const question of questions) {
    let now;
    do now = await task('tasks/get'); while (!question.test(asked(now.inputRequests ?? {})?.params.message) && now.status !== 'completed');
    assert.equal(now.status, 'input_required', JSON.stringify(now));
    await task('tasks/update', { inputResponses: answerTo(now.inputRequests, yes) });
  }
  let end;
  do end = await task('tasks/get'); while (end.status === 'working');
  assert.equal(end.result?.structuredContent.state, 'completed', JSON.stringify(end));

  const client = await connect(agency.url(), { elicitation: {} }), heard = [];
  let answer = () => yes;
  client.setRequestHandler(ElicitRequestSchema, ({ params: { message } }) => { heard.push(message); return answer(); });
  const call = async () => (await client.callTool(params)).structuredContent;
  assert.equal((await call()).state, 'completed');
  assert.equal(heard.length, 3);
  questions.forEach((question, i) => assert.match(heard[i], question));
  answer = () => (/Own/.test(heard.at(-1)) ? yes : { action: 'cancel' });
  const left = await call(); // its user closed the second question
  assert.deepEqual([left.state, heard.length], ['waiting_child', 5]);
  assert.match(left.asks, /^t/);
  const stream = client.experimental.tasks.callToolStream(params, CallToolResultSchema, { task: {} });
  answer = () => yes;
  let last;
  for await (last of stream);
  assert.equal(last.result?.structuredContent.state, 'completed', JSON.stringify(last));
  await client.close();
  // Who cannot be asked is told at once which run needs a person.
  const mute = await modern(agency.url(), 'tools/call', params);
  assert.match(mute.json.result.structuredContent.asks, /^t/, mute.text);
});

test('who shows addresses only is sent no form', async () => {
  await write('forms', '# Forms\n\n1. **Decide**\n\n   ```approve\n   Shall it go out?\n   ```\n');
  const state = async (elicitation) => (await modern(agency.url(), 'tools/call', { name: 'sop_execute', arguments: { name: 'forms' } }, { more: { 'io.modelcontextprotocol/clientCapabilities': { elicitation } } })).json.result.resultType;
  assert.deepEqual([await state({ url: {} }), await state({ form: {}, url: {} }), await state({})], ['complete', 'input_required', 'input_required']);
});

test('a task outlives the death of the agent, its gateway and the worker', async (t) => {
  const alone = await startAgency();
  t.after(() => alone.stop());
  const flag = join(alone.data, 'go');
  await legacyCall(alone.url(), 'sop_create', { name: 'waits', content: sh('Waits', `while [ ! -e ${flag} ]; do sleep 0.05; done; echo gone on`) });
  const headers = { 'mcp-protocol-version': '2025-11-25' };
  const rpc = (method, params) => post(alone.url(), { jsonrpc: '2.0', id: 1, method, params }, headers);
  const made = await rpc('tools/call', { name: 'sop_execute', arguments: { name: 'waits' }, task: { ttl: 1000 } });
  const { taskId } = made.json.result.task;
  const pid = async (name) => Number(await readFile(join(alone.data, 'run', `${name}.pid`), 'utf8'));
  const agent = await pid('agent');
  process.kill(agent, 'SIGKILL'); // the gateway lives in the same process
  await until(() => pid('agent').catch(() => agent), (now) => now !== agent);
  await until(() => rpc('tasks/get', { taskId }).catch(() => ({})), (got) => got.json?.result?.status === 'working');
  const waiting = rpc('tasks/result', { taskId });
  const { writeFile } = await import('node:fs/promises');
  await writeFile(flag, '');
  const result = await waiting;
  assert.match(result.json.result.content[0].text, /gone on/, result.text);
});

test('a quiet call is kept alive, a slow tool has its time-out', async (t) => {
  const own = await startAgency({ env: { AGENCY_GATEWAY_KEEP_ALIVE_MS: '1000', AGENCY_GATEWAY_TOOL_TIMEOUTS: 'brain_stat=300' } });
  t.after(() => own.stop());
  const flag = join(own.data, 'go');
  await legacyCall(own.url(), 'sop_create', { name: 'quiet', content: sh('Quiet', `while [ ! -e ${flag} ]; do sleep 0.05; done`) });
  const answer = await fetch(own.url(), { method: 'POST', headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'sop_execute', arguments: { name: 'quiet' } } }) });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  while (!text.includes(': still here')) text += (await reader.read()).value;
  const { writeFile } = await import('node:fs/promises');
  await writeFile(flag, '');
  for (let part; !(part = await reader.read()).done;) text += part.value;
  assert.match(text, /"state":"completed"/);

  const brain = Number(await readFile(join(own.data, 'run', 'brain.pid'), 'utf8'));
  process.kill(brain, 'SIGSTOP');
  try {
    const slow = await legacyCall(own.url(), 'brain_stat', {});
    assert.equal(slow.json.result.isError, true, slow.text);
  } finally {
    process.kill(brain, 'SIGCONT');
  }
});
