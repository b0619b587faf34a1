// MCP servers that are not ours as tools of procedures: real ones made with the official SDKs, over
// stdio and HTTP, of both eras; killed in the middle, silent, huge, broken.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rename, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import net from 'node:net';
import { startAgency, legacyCall, post, source } from './agency.mjs';

const foreign = join(source, 'tests/e2e/foreign.mjs');
const stdio = (kind, more = {}) => ({ command: process.execPath, args: [foreign, kind], ...more });
const call = async (agency, name, args = {}) => {
  const { result, error } = (await legacyCall(agency.url(), name, args)).json;
  if (error) throw new Error(error.message);
  return { error: result.isError, text: result.content[0].text, ...result.structuredContent };
};

async function until(ask, want, ms = 30000) {
  const end = Date.now() + ms;
  let last;
  while (Date.now() < end) {
    last = await ask();
    if (want(last)) return last;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`in vain: ${JSON.stringify(last)?.slice(0, 2000)}`);
}

const textOf = (path) => readFile(path, 'utf8').catch(() => '');
const serverOf = async (agency, name) => (await call(agency, 'mcp_servers', { tools: true })).servers?.find((one) => one.name === name);
const ready = (agency, ...names) => until(() => call(agency, 'mcp_servers'),
  ({ servers }) => names.every((name) => servers?.find((one) => one.name === name)?.state === 'ready'));
const sop = (title, ...steps) => `# ${title}\n\n${steps.map(([name, tool, args, attributes = ''], i) =>
  `${i + 1}. **${name}**\n\n   \`\`\`tool ${attributes}\n   ${tool} ${JSON.stringify(args)}\n   \`\`\`\n`).join('\n')}`;
const run = async (agency, name, content, more = {}) => {
  await call(agency, 'sop_create', { name, content });
  return call(agency, 'sop_execute', { name, input: {}, ...more });
};
const settled = (agency, id, state) => until(() => call(agency, 'run_get', { id }), (one) => one.state === state);

// The processes of a foreign server of that kind, below whatever process of this agency.
async function pidsOf(kind, data) {
  const found = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const words = (await textOf(`/proc/${pid}/cmdline`)).split('\0');
    if (words[1] === foreign && words[2] === kind && (await textOf(`/proc/${pid}/environ`)).includes(`AGENCY_OF=${data}`))
      found.push(Number(pid));
  }
  return found;
}

function freePort() {
  return new Promise((resolve) => {
    const probe = net.createServer().listen(0, '127.0.0.1', () => { const { port } = probe.address(); probe.close(() => resolve(port)); });
  });
}

async function startHttp(t, kind, env = {}) {
  const port = await freePort();
  const child = spawn(process.execPath, [foreign, kind, String(port)], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  return { url: `http://127.0.0.1:${port}/mcp`, child };
}

async function withServers(t, servers, more = {}) {
  const data = await mkdtemp(join(tmpdir(), 'agency-e2e-'));
  for (const server of Object.values(servers)) if (server.command) server.env = { AGENCY_OF: data, ...server.env };
  await writeFile(join(data, 'mcp.json'), JSON.stringify({ mcpServers: servers }));
  const agency = await startAgency({ data, ...more, env: { AGENCY_OUTSIDE_RELOAD_MS: '100', AGENCY_OUTSIDE_RETRY_MS: '50', AGENCY_OUTSIDE_PROBE_MS: '60000', AGENCY_AGENT_LEASE_MS: '2000', ...more.env } });
  t.after(() => agency.stop());
  return agency;
}

test('servers of both SDKs, eras and transports are tools of procedures', async (t) => {
  const [old, young, pair] = await Promise.all([startHttp(t, 'v1-http', { WANT_TOKEN: 'open-sesame-123' }), startHttp(t, 'v2-http'),
    startHttp(t, 'v1-sse', { WANT_TOKEN: 'open-sesame-123' })]);
  const agency = await withServers(t, {
    'old-pipe': stdio('v1-stdio', { env: { SECRET: '${THE_SECRET}' } }),
    'new-pipe': stdio('v2-stdio'),
    'old-web': { type: 'http', url: old.url, headers: { Authorization: 'Bearer ${DOOR:-open-sesame-123}' } },
    'new-web': { url: young.url },
    'old-pair': { type: 'sse', url: pair.url.replace('/mcp', '/sse'), headers: { Authorization: 'Bearer ${DOOR:-open-sesame-123}' } },
    'no-pair': { url: pair.url, headers: { Authorization: 'Bearer ${DOOR:-open-sesame-123}' }, companies: ['beta'] },
    'only-acme': stdio('v1-stdio', { companies: ['acme'], tools: ['add'] }),
  }, { env: { THE_SECRET: 'hunter2-hunter2' } });
  const names = ['old-pipe', 'new-pipe', 'old-web', 'new-web', 'old-pair'];
  await ready(agency, ...names);
  const { servers } = await call(agency, 'mcp_servers');
  assert.deepEqual(Object.fromEntries(servers.map((one) => [one.name, [one.transport, one.protocol]])), {
    'old-pipe': ['stdio', '2025-11-25'], 'new-pipe': ['stdio', '2026-07-28'],
    'old-web': ['http', '2025-11-25'], 'new-web': ['http', '2026-07-28'],
    'old-pair': ['sse', '2025-11-25'],
  });

  const steps = names.flatMap((name) => [[`Add ${name}`, `${name}/add`, { a: 2, b: 3 }], [`Count ${name}`, `${name}/count`, { to: `{{steps.add_${name.replace('-', '_')}.result.sum}}` }]]);
  const done = await run(agency, 'all', sop('All', ...steps));
  assert.equal(done.state, 'completed', done.text);
  for (const step of done.steps) {
    if (step.name.startsWith('add')) assert.deepEqual(step.result, { sum: 5 });
    else assert.deepEqual(step.result, { text: 'counted to 5', content: [{ type: 'text', text: 'counted to 5' }] });
  }

  // What a tool calls a failure fails the step, in its own words.
  const failed = await run(agency, 'fails', sop('Fails', ['Burn', 'old-web/fail', {}]));
  assert.equal(failed.state, 'failed');
  assert.match(failed.text, /the printer is on fire/);

  // A session that the server has forgotten (404): a new one, and the call is made all the same.
  const again = await run(agency, 'again', sop('Again', ['Add', 'old-web/add', { a: 404, b: 7 }, 'retries=0']));
  assert.equal(again.state, 'completed', again.text);
  assert.equal((await serverOf(agency, 'old-web')).starts, 2);

  // One of the older transport that is asked in the newer way says what to write.
  const wrong = await until(() => call(agency, 'mcp_servers', { company: 'beta', server: 'no-pair' }), (one) => one.servers?.[0].why);
  assert.match(wrong.servers[0].why, /status 404; .*"type": "sse"/);
  // Its stream is lost in the middle: nobody knows; then it is connected anew.
  pair.child.kill('SIGKILL');
  await until(() => serverOf(agency, 'old-pair'), (one) => one.state !== 'ready');

  // Names are known to validation, with the nearest; new tools are learnt when the server says so.
  await call(agency, 'sop_create', { name: 'names', content: sop('Names', ['One', 'old-pipe/grown', {}], ['Two', 'old-pip/add', {}]) });
  const invalid = await call(agency, 'validate_sop', { name: 'names' });
  assert.equal(invalid.valid, false);
  assert.match(invalid.text, /has no tool 'grown'/);
  assert.match(invalid.text, /there is no mcp server 'old-pip'; mcp\.json has old-pipe, new-pipe, old-web, new-web, old-pair/);
  assert.equal((await run(agency, 'grow', sop('Grow', ['Grow', 'old-pipe/grow', {}]))).state, 'completed');
  await until(() => serverOf(agency, 'old-pipe'), (one) => one.tools.some((tool) => tool.name === 'old-pipe/grown'));
  assert.match((await run(agency, 'grown', sop('Grown', ['Grown', 'old-pipe/grown', {}]))).text, /I am new/);

  // Secrets reach the server and nothing else.
  const told = await run(agency, 'secret', sop('Secret', ['Ask', 'old-pipe/secret', {}], ['Tell', 'old-pipe/tell', { line: 'my secret is {{steps.ask.result.text}}!' }]));
  assert.equal(told.steps[0].result.text, 'hunter2-hunter2');
  await until(() => agency.output(), (output) => /says: my secret is \*\*\*!/.test(output));
  assert.ok(!agency.output().includes('hunter2'));
  assert.ok(!JSON.stringify(await call(agency, 'mcp_servers', { tools: true })).includes('sesame'));

  // Servers of one company do not exist for another.
  const acme = await call(agency, 'mcp_servers', { company: 'acme', server: 'only-acme' });
  assert.deepEqual(acme.servers[0].tools.map((tool) => tool.name), ['only-acme/add']);
  const others = await run(agency, 'others', sop('Others', ['Add', 'only-acme/add', { a: 1, b: 1 }]));
  assert.equal(others.state, 'failed');
  assert.match(others.text, /there is no mcp server 'only-acme'/);

  // For people.
  const tools = await agency.cli('tools', '--external');
  assert.match(tools.stdout, /old-web\/note \(manual\) Appends a line/);
  assert.match((await agency.cli('status')).stdout, /new-web \(http, MCP 2026-07-28\): ready/);
  const simulated = await call(agency, 'sop_execute', { name: 'all', input: {}, simulate: true });
  assert.equal(simulated.state, 'completed');
  assert.ok(simulated.refused.length >= 4);
});

test('a server that dies in the middle: in doubt unless it says that twice is no harm', async (t) => {
  const young = await startHttp(t, 'v2-http');
  const agency = await withServers(t, { pipe: stdio('v1-stdio'), web: { url: young.url } });
  await ready(agency, 'pipe', 'web');
  const file = (name) => join(agency.data, name);
  const gate = file('gate');

  // Killed while it is at work: nobody knows, a person is asked, nothing is done twice.
  const doubtful = run(agency, 'doubt', sop('Doubt', ['Note', 'pipe/note', { file: file('doubt'), line: 'one', wait: gate }]));
  await until(() => textOf(file('doubt')), (text) => text === 'one\n');
  for (const pid of await pidsOf('v1-stdio', agency.data)) process.kill(pid, 'SIGKILL');
  const doubt = await doubtful;
  assert.equal(doubt.state, 'input_required', doubt.text);
  assert.match(doubt.why, /nobody knows whether 'pipe\/note' happened, because the server pipe was lost: it was killed by signal 9/);
  assert.equal(doubt.steps[0].effect, 'unknown');
  await ready(agency, 'pipe');
  assert.equal((await call(agency, 'step_complete', { id: doubt.id, result: 'it is there' })).error, undefined);
  await settled(agency, doubt.id, 'completed');
  assert.equal(await textOf(file('doubt')), 'one\n');

  // The same where the server says that a second time does no harm: it is done again.
  const harmless = run(agency, 'harmless', sop('Harmless', ['Put', 'pipe/put', { file: file('put'), line: 'x', wait: gate }]));
  await until(() => textOf(file('put.calls')), (text) => text === 'x');
  await writeFile(gate, '');
  for (const pid of await pidsOf('v1-stdio', agency.data)) process.kill(pid, 'SIGKILL');
  assert.equal((await harmless).state, 'completed');
  assert.equal(await textOf(file('put.calls')), 'xx');

  // Our own process dies, with the connection to the servers: in doubt as well, over HTTP too.
  const ours = call(agency, 'sop_create', { name: 'ours', content: sop('Ours', ['Note', 'web/note', { file: file('ours'), line: 'one', wait: file('never') }]) })
    .then(() => call(agency, 'sop_execute', { name: 'ours', input: {}, wait_ms: 0 }));
  const { id } = await ours;
  await until(() => textOf(file('ours')), (text) => text === 'one\n');
  process.kill(Number(await textOf(file('run/agent.pid'))), 'SIGKILL');
  const after = await until(() => call(agency, 'run_get', { id }).catch(() => ({})), (one) => one.state === 'input_required');
  assert.match(after.why, /nobody knows whether 'web\/note' happened/);
  assert.ok((await textOf(file('ours'))).startsWith('one\n') && !(await textOf(file('ours'))).includes('one\none'));
  assert.equal((await pidsOf('v1-stdio', agency.data)).length <= 1, true, 'the old child died with its parent');

  // A run that is cancelled cancels the call at the server.
  await ready(agency, 'pipe', 'web');
  for (const [server, n] of [['pipe', 1], ['web', 2]]) {
    const path = file(`cancel${n}`);
    await call(agency, 'sop_create', { name: `cancel${n}`, content: sop('Cancel', ['Note', `${server}/note`, { file: path, line: 'one', wait: file('never') }]) });
    const started = await call(agency, 'sop_execute', { name: `cancel${n}`, input: {}, wait_ms: 0 });
    await until(() => textOf(path), (text) => text === 'one\n');
    await call(agency, 'task_cancel', { id: started.id });
    await until(() => textOf(path), (text) => text === 'one\ncancelled\n');
  }
});

test('silent, huge, broken and talkative servers harm nobody else', async (t) => {
  const agency = await withServers(t, {
    good: stdio('v1-stdio'), mute: stdio('mute', { tool_timeout_ms: { good: 300 } }), hush: stdio('mute'), huge: stdio('huge'), nested: stdio('nested'),
    broken: stdio('broken'), garbage: stdio('garbage'), absent: { url: 'http://127.0.0.1:1/mcp' }, missing: { command: 'no-such-program' },
    unset: stdio('v1-stdio', { env: { TOKEN: '${NOT_SET_ANYWHERE}' } }), off: stdio('v1-stdio', { disabled: true }),
  }, { env: { AGENCY_OUTSIDE_CALL_TIMEOUT_MS: '4000' } });
  await ready(agency, 'good', 'mute', 'hush', 'huge', 'broken', 'garbage');
  const { servers, text } = await call(agency, 'mcp_servers', { tools: true });
  const states = Object.fromEntries(servers.map((one) => [one.name, one]));
  assert.equal(states.off.state, 'disabled');
  assert.equal(states.unset.state, 'wrong');
  assert.match(states.unset.why, /NOT_SET_ANYWHERE is not set/);
  assert.match(states.missing.why, /there is no program 'no-such-program'/);
  assert.ok(['away', 'starting'].includes(states.absent.state), text);

  // One bad schema does not hide the others.
  const usable = states.broken.tools.filter((tool) => !tool.problem).map((tool) => tool.name);
  assert.deepEqual(usable, ['broken/good', 'broken/deep', 'broken/last'].filter((name) => usable.includes(name)));
  assert.ok(usable.includes('broken/good') && usable.includes('broken/last'));
  assert.equal(states.broken.tools.find((tool) => tool.name === 'broken/none').problem, 'its inputSchema is no object');
  assert.ok(states.broken.dropped >= 3);

  // All at once, while the good one goes on.
  const start = (name, content) => call(agency, 'sop_create', { name, content }).then(() => call(agency, 'sop_execute', { name, input: {} }));
  const [mute, hush, huge, nested, garbage, broken, absent, good] = await Promise.all([
    start('mute', sop('Mute', ['Call', 'mute/good', {}])),
    start('hush', sop('Hush', ['Call', 'hush/good', {}])),
    start('huge', sop('Huge', ['Call', 'huge/good', {}])),
    start('nested', sop('Nested', ['Call', 'nested/good', {}])),
    start('garbage', sop('Garbage', ['Call', 'garbage/good', {}])),
    start('broken', sop('Broken', ['Call', 'broken/last', {}])),
    start('absent', sop('Absent', ['Call', 'absent/good', {}, 'retries=0'])),
    start('good', sop('Good', ...Array.from({ length: 20 }, (_, i) => [`Add ${i}`, 'good/add', { a: i, b: i }]))),
  ]);
  assert.match(mute.why, /because mute did not answer within 300 ms/);
  assert.match(hush.why, /because hush did not answer within 4000 ms/);
  assert.equal(mute.state, 'input_required');
  assert.match(huge.why, /larger than outside\.message_bytes/);
  assert.match(nested.why, /its answer cannot be read: .*nested deeper than 60 levels/);
  assert.equal(nested.state, 'input_required', 'whether it happened only a person can tell');
  assert.equal(garbage.state, 'completed', garbage.text);
  assert.equal(broken.state, 'completed', broken.text);
  assert.match(absent.text, /the mcp server absent is (away|starting)/);
  assert.equal(good.state, 'completed', good.text);

  // The file is read anew when it changes; a broken one changes nothing.
  const file = join(agency.data, 'mcp.json');
  const was = JSON.parse(await readFile(file, 'utf8'));
  const { starts } = await serverOf(agency, 'good');
  await writeFile(file, JSON.stringify({ mcpServers: { good: { ...was.mcpServers.good, comand: 'x' } } }));
  const wrong = await until(() => call(agency, 'mcp_servers'), (one) => one.problem);
  assert.match(wrong.problem, /server 'good': .*comand.*command/);
  assert.equal(wrong.servers.length, 11);
  await writeFile(file, JSON.stringify({ mcpServers: { good: was.mcpServers.good, other: { ...was.mcpServers.good } } }));
  await ready(agency, 'good', 'other');
  assert.equal((await call(agency, 'mcp_servers')).servers.length, 2);
  assert.equal((await serverOf(agency, 'good')).starts, starts, 'one that did not change goes on');
  await until(() => pidsOf('mute', agency.data), (pids) => pids.length === 0);

  // A file that cannot be looked at is not one that is gone.
  await rename(file, `${file}.aside`);
  await until(() => call(agency, 'mcp_servers'), (one) => one.servers.length === 0);
  await rename(`${file}.aside`, file);
  await ready(agency, 'good', 'other');
  await symlink('mcp.json', `${file}.loop`);
  await rename(`${file}.loop`, file); // now it is a link to itself
  const unseen = await until(() => call(agency, 'mcp_servers'), (one) => /cannot be looked at/.test(one.problem));
  assert.deepEqual(unseen.servers.map((one) => one.state), ['ready', 'ready']);
});

test('what is wrong with the file is told in full to the role admin only', async (t) => {
  const data = await mkdtemp(join(tmpdir(), 'agency-e2e-'));
  const line = (name, role) => `sha256:${createHash('sha256').update(name).digest('hex')} companies=acme role=${role} name=${name}\n`;
  await writeFile(join(data, 'tokens'), line('boss', 'admin') + line('clerk', 'operator'));
  await writeFile(join(data, 'mcp.json'), JSON.stringify({ mcpServers: { 'secret-of-beta': { comand: 'x' } } }));
  const agency = await startAgency({ data, flags: ['--tokens', join(data, 'tokens')] });
  t.after(() => agency.stop());
  const seenBy = async (name) => (await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'mcp_servers', arguments: {} } },
    { authorization: `Bearer ${name}` })).json.result;
  const boss = await until(() => seenBy('boss'), (one) => one.structuredContent?.problem);
  assert.match(boss.structuredContent.problem, /secret-of-beta.*comand/);
  const clerk = await seenBy('clerk');
  assert.match(clerk.structuredContent.problem, /the role admin sees what it is/);
  assert.ok(!JSON.stringify(clerk).includes('beta'));
});

test('prose steps use the foreign tools that the procedure names, and no others', async (t) => {
  const asked = [];
  const model = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { messages, tools } = JSON.parse(body);
    asked.push(tools.map((tool) => tool.function.name));
    const last = messages.at(-1);
    const [name, args] = last.role === 'tool' ? ['complete_step', { result: last.content }] : ['pipe__add', { a: 20, b: 22 }];
    response.end(JSON.stringify({ choices: [{ message: { role: 'assistant', content: null, tool_calls: [{ id: 'c1', type: 'function', function: { name, arguments: JSON.stringify(args) } }] } }] }));
  }).listen(0, '127.0.0.1');
  t.after(() => model.close());
  await once(model, 'listening');
  const agency = await withServers(t, { pipe: stdio('v1-stdio') }, { env: { AGENCY_LLM_URL: `http://127.0.0.1:${model.address().port}/v1` } });
  await ready(agency, 'pipe');
  const done = await run(agency, 'prose', '---\ntools: pipe/add, pipe/count\n---\n# Prose\n\n1. **Think**: add twenty and twenty-two.\n');
  assert.equal(done.state, 'completed', done.text);
  assert.match(JSON.stringify(done.steps[0].result), /42/);
  assert.deepEqual(asked[0].filter((name) => name.startsWith('pipe')), ['pipe__add', 'pipe__count']);
  const bad = await call(agency, 'sop_create', { name: 'bad', content: '---\ntools: add\n---\n# Bad\n\n1. **Think**: x\n' });
  assert.match(bad.text, /'add' is no name that can stand here/);
});
