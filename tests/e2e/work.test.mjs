// The main job: a written procedure does real work, survives kill -9, and is remembered.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { readFile, writeFile, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startAgency, legacyCall, post, source } from './agency.mjs';

const call = async (agency, name, args) => {
  const answer = await legacyCall(agency.url(), name, args);
  return { error: answer.json.result.isError, text: answer.json.result.content[0].text, ...answer.json.result.structuredContent };
};
const pidOf = async (agency, name) => Number(await readFile(join(agency.data, 'run', `${name}.pid`), 'utf8'));

// Asks until `want` is true of the answer, at most `ms`.
async function until(ask, want, ms = 20000) {
  const end = Date.now() + ms;
  let last;
  while (Date.now() < end) {
    last = await ask();
    if (want(last)) return last;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`in vain: ${JSON.stringify(last)}`);
}

test('an example procedure works from the command line and over MCP, and is remembered', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  const made = await agency.cli('sop', 'create', join(source, 'examples/sops/workspace-report.md'));
  assert.equal(made.code, 0, made.stderr);
  const ran = await agency.cli('sop', 'run', 'workspace-report', `input=${join(source, 'proto')}`);
  assert.equal(ran.code, 0, ran.stderr);
  assert.match(ran.stdout, /executed successfully/);
  const again = await call(agency, 'sop_execute', { name: 'workspace-report', input: join(source, 'bus') });
  assert.equal(again.state, 'completed', again.text);
  const remembered = await until(
    () => call(agency, 'recall_delegation_patterns', { task_type: 'sop_execution' }),
    (answer) => /100% success/.test(answer.text ?? ''));
  assert.match(remembered.text, /sop_engine/);
  const found = await agency.cli('brain', 'query', 'workspace report');
  assert.match(found.stdout, /workspace/i);
});

test('acknowledged tasks and memories survive kill -9 of every process', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  const ids = [];
  for (let i = 0; i < 20; i++) ids.push((await call(agency, 'task_submit', { kind: 'k', input: i })).id);
  await call(agency, 'brain_store', { taskId: 'm1', request: 'what is the password policy', solution: 'fourteen characters' });
  for (const name of ['agent', 'brain', 'worker-1']) {
    process.kill(await pidOf(agency, name), 'SIGKILL');
    const began = Date.now();
    const probe = name === 'brain' ? ['brain_list', {}] : ['task_get', { id: ids[0] }];
    await until(async () => {
      try { return await call(agency, ...probe); } catch { return { error: true }; }
    }, (answer) => !answer.error, 5000);
    assert.ok(Date.now() - began < 1000, `${name} answers within a second`);
  }
  for (const [i, id] of ids.entries())
    assert.equal((await call(agency, 'task_get', { id })).task.input, i);
  assert.match((await call(agency, 'brain_query', { query: 'password policy' })).text, /fourteen characters/);
});

test('a step in doubt is unknown and not silently repeated; a person decides', async (t) => {
  const agency = await startAgency({ env: { AGENCY_AGENT_LEASE_MS: '1500' } });
  t.after(() => agency.stop());
  const counter = join(agency.data, 'counter');
  const gate = join(agency.data, 'gate');
  await call(agency, 'sop_create', { name: 'doubt', content: `# Doubt

1. **Count**

   \`\`\`sh
   echo one >> ${counter}
   until [ -e ${gate} ]; do :; done
   \`\`\`

2. **After**

   \`\`\`sh
   echo two >> ${counter}
   \`\`\`
` });
  const started = await call(agency, 'sop_execute', { name: 'doubt', wait_ms: 0 });
  await until(() => readFile(counter, 'utf8').catch(() => ''), (text) => text === 'one\n');
  process.kill(await pidOf(agency, 'worker-1'), 'SIGKILL');
  const asked = await until(() => call(agency, 'task_get', { id: started.id }),
    (answer) => answer.task?.state === 'input_required');
  assert.match(asked.task.why, /Count|unknown|know/i);
  assert.equal(await readFile(counter, 'utf8'), 'one\n', 'it did not run twice');
  const run = await call(agency, 'run_get', { id: started.id });
  assert.match(JSON.stringify(run), /unknown/);
  const decided = await call(agency, 'step_complete', { id: started.id, result: 'seen' });
  assert.ok(!decided.error, decided.text);
  await until(() => call(agency, 'task_get', { id: started.id }), (answer) => answer.task?.state === 'completed');
  assert.equal(await readFile(counter, 'utf8'), 'one\ntwo\n');
});

test('a hanging, forking script is ended with all its children', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  const pids = join(agency.data, 'pids');
  await call(agency, 'sop_create', { name: 'hang', content: `# Hang

1. **Hang**

   \`\`\`sh timeout=700ms
   (setsid sh -c 'echo $$ >> ${pids}; while :; do sleep 1000; done' &)
   echo $$ >> ${pids}
   while :; do sleep 1000; done
   \`\`\`
` });
  const ran = await call(agency, 'sop_execute', { name: 'hang' });
  assert.equal(ran.state, 'failed', ran.text);
  assert.match(ran.text, /longer than/);
  for (const pid of (await readFile(pids, 'utf8')).trim().split('\n'))
    assert.throws(() => process.kill(Number(pid), 0), /ESRCH/, `process ${pid} is gone`);
});

test('approval, waiting, and a step of prose without a language model', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  await call(agency, 'sop_create', { name: 'people', content: `# People

1. **Ask**

   \`\`\`approve
   May I?
   \`\`\`

2. **Pause**

   \`\`\`wait
   50ms
   \`\`\`

3. **Think**: Decide what to do with {{input}}.

4. **Say**

   \`\`\`sh
   echo {{steps.Think.result}}
   \`\`\`
` });
  const started = await call(agency, 'sop_execute', { name: 'people', input: 'x', wait_ms: 0 });
  const state = (want) => until(() => call(agency, 'task_get', { id: started.id }), (answer) => answer.task?.state === want);
  await state('input_required');
  assert.ok(!(await call(agency, 'approve', { id: started.id })).error);
  await until(() => call(agency, 'task_get', { id: started.id }),
    (answer) => answer.task?.state === 'input_required' && !/May I/.test(answer.task.why));
  assert.ok(!(await call(agency, 'step_complete', { id: started.id, result: 'go home' })).error);
  await state('completed');
  assert.match((await call(agency, 'run_get', { id: started.id })).text, /go home/);
});

test('a step of prose is done by a language model that calls tools', async (t) => {
  const seen = [];
  const model = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { messages, tools } = JSON.parse(body);
    seen.push({ key: request.headers.authorization, messages, tools: tools.map((tool) => tool.function.name) });
    const tool = (name, args) => ({ role: 'assistant', content: null, tool_calls: [{ id: `c${seen.length}`, type: 'function', function: { name, arguments: JSON.stringify(args) } }] });
    const message = seen.length === 1 ? tool('brain_store', { taskId: 'llm', request: 'the moon', solution: 'made of rock' })
      : tool('complete_step', { result: { stored: true } });
    writeFileSync(join(keys, 'key'), 'changed'); // a new key needs no restart
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ choices: [{ index: 0, message }], usage: { total_tokens: 10 } }));
  }).listen(0, '127.0.0.1');
  await once(model, 'listening');
  const keys = await mkdtemp(join(tmpdir(), 'agency-keys-'));
  await writeFile(join(keys, 'key'), 'sesame\n');
  const agency = await startAgency({ env: { AGENCY_LLM_URL: `http://127.0.0.1:${model.address().port}/v1`, AGENCY_WORKER_LLM_KEY_FILE: join(keys, 'key'), AGENCY_LLM_MODEL: 'm' } });
  t.after(async () => { await agency.stop(); model.close(); await rm(keys, { recursive: true }); });
  await call(agency, 'sop_create', { name: 'think', content: '# Think\n\n1. **Remember**: Remember what the moon is made of.\n' });
  const ran = await call(agency, 'sop_execute', { name: 'think' });
  assert.equal(ran.state, 'completed', ran.text);
  assert.equal(seen.length, 2);
  assert.deepEqual(seen.map(({ key }) => key), ['Bearer sesame', 'Bearer changed']);
  assert.ok(seen[0].tools.includes('brain_query') && seen[0].tools.includes('complete_step'));
  assert.equal(seen[1].messages.at(-1).role, 'tool');
  assert.match((await call(agency, 'brain_query', { query: 'moon' })).text, /made of rock/);
});

test('tokens: companies, roles, and no entry without one', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'agency-tokens-'));
  const file = join(dir, 'tokens');
  const line = (token, rest) => `sha256:${createHash('sha256').update(token).digest('hex')} ${rest}\n`;
  await writeFile(file, line('a-token', 'companies=acme role=operator name=ann') +
    line('b-token', 'companies=beta,gamma role=reader name=bob'));
  const agency = await startAgency({ flags: ['--tokens', file] });
  t.after(async () => { await agency.stop(); await rm(dir, { recursive: true }); });
  const as = (token, name, args) => post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } },
    token ? { authorization: `Bearer ${token}` } : {});
  const none = await as(null, 'queue_stats', {});
  assert.equal(none.status, 401);
  assert.match(none.headers.get('www-authenticate'), /Bearer/);
  assert.equal((await as('wrong', 'queue_stats', {})).status, 401);
  const made = await as('a-token', 'task_submit', { kind: 'k' });
  assert.ok(!made.json.result.isError);
  const other = await as('a-token', 'task_submit', { kind: 'k', company: 'beta' });
  assert.match(other.json.result.content[0].text, /does not allow/);
  const which = await as('b-token', 'queue_stats', {});
  assert.match(which.json.result.content[0].text, /beta, gamma/);
  const reader = await as('b-token', 'task_submit', { kind: 'k', company: 'beta' });
  assert.match(reader.json.result.content[0].text, /operator/);
});

test('what cannot start says why', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  const second = await agency.cli('up', '--port-offset=5');
  assert.equal(second.code, 1);
  assert.match(second.stderr, /already up/);
  await assert.rejects(startAgency({ offset: agency.offset }), /cannot listen/);
  const flag = await agency.cli('up', '--prot-offset=5');
  assert.equal(flag.code, 2);
  assert.match(flag.stderr, /did you mean --port-offset/);
  const beyond = await agency.cli('up', '--bind', '0.0.0.0');
  assert.match(beyond.stderr, /tokens/);
  const word = await agency.cli('call', 'task_submit', 'kidn=3');
  assert.equal(word.code, 2);
});

test('when the supervisor is killed its children are gone within a second', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  const pids = await Promise.all(['agent', 'brain', 'worker-1'].map((name) => pidOf(agency, name)));
  agency.child.kill('SIGKILL');
  const began = Date.now();
  // A zombie that nobody has reaped yet is dead.
  const alive = async (pid) => {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') Z');
    return !/\) [ZX]/.test(stat);
  };
  await until(async () => (await Promise.all(pids.map(alive))).filter(Boolean), (left) => left.length === 0, 5000);
  assert.ok(Date.now() - began < 1000);
});
