// Every client that people use: lists, calls, a long call with progress, cancellation, subscription,
// and going on after the pillars and the gateway were killed, with the same connection object.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client as OldClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as OldTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { createTaskSessionFromClient, resultFromTaskOutcome } from '@modelcontextprotocol/ext-tasks/client';
import { startAgency, legacyCall, post, source } from './agency.mjs';

const info = { name: 'test', version: '1' };
let agency;
before(async () => {
  agency = await startAgency();
  const made = await legacyCall(agency.url(), 'sop_create', { name: 'three', content: `# Three\n\n${[1, 2, 3].map((n) => `${n}. **Step ${n}**\n\n   \`\`\`sh\n   sleep 0.2; echo ${n}\n   \`\`\`\n`).join('')}` });
  assert.ok(!made.json.result.isError, made.text);
  const long = await legacyCall(agency.url(), 'sop_create', { name: 'long', content: '# Long\n\n1. **Work**\n\n   ```sh replay=safe\n   sleep 600\n   ```\n' });
  assert.ok(!long.json.result.isError, long.text);
});
after(async () => { await agency.stop(); });

async function until(ask, want, ms = 60000) {
  const end = Date.now() + ms;
  let last;
  while (Date.now() < end) {
    last = await ask();
    if (want(last)) return last;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`in vain: ${JSON.stringify(last)}`);
}

const v2 = (options) => async () => {
  const client = new Client(info, options);
  await client.connect(new StreamableHTTPClientTransport(agency.url()));
  return client;
};
const v1 = (Transport, path) => async () => {
  const client = new OldClient(info);
  await client.connect(new Transport(agency.url(3000, path)));
  return client;
};
const clients = {
  'SDK v1': { connect: v1(OldTransport, '/mcp'), old: true, subscribes: true },
  'SDK v1, HTTP+SSE': { connect: v1(SSEClientTransport, '/sse'), old: true, subscribes: true },
  'SDK v2, legacy': { connect: v2({}), subscribes: true },
  'SDK v2, auto': { connect: v2({ versionNegotiation: { mode: 'auto' } }) },
  'SDK v2, modern only': { connect: v2({ versionNegotiation: { mode: { pin: '2026-07-28' } } }) },
};
const pid = async (name) => Number(await readFile(join(agency.data, 'run', `${name}.pid`), 'utf8'));
const newest = async () => (await legacyCall(agency.url(), 'task_list', { kind: 'sop', limit: 1 })).json.result.structuredContent.tasks[0];

for (const [name, { connect, old, subscribes }] of Object.entries(clients)) {
  test(`${name}: list, call, progress, cancel, kill, go on`, async () => {
    const client = await connect();
    const call = (params, options) => (old ? client.callTool(params, undefined, options) : client.callTool(params, options));
    const { tools } = await client.listTools();
    assert.ok(tools.some((tool) => tool.name === 'sop_execute'));
    assert.ok((await client.listResources()).resources.length);
    assert.ok((await client.listPrompts()).prompts.some((prompt) => prompt.name === 'three'));

    const steps = [];
    const done = await call({ name: 'sop_execute', arguments: { name: 'three' } }, { onprogress: (note) => steps.push(note.progress) });
    assert.equal(done.structuredContent.state, 'completed');
    assert.ok(steps.length >= 2 && steps.every((value, i) => !i || value > steps[i - 1]), steps.join());

    const abort = new AbortController();
    const before = (await newest()).id;
    const long = call({ name: 'sop_execute', arguments: { name: 'long' } }, { signal: abort.signal });
    long.catch(() => {});
    const run = await until(newest, (task) => task.id !== before && task.state === 'running');
    abort.abort(new Error('enough'));
    await assert.rejects(long);
    await until(newest, (task) => task.id === run.id && task.state === 'cancelled');

    const uri = 'agency://memory/watched';
    const heard = new Promise((resolve) => {
      client.fallbackNotificationHandler = (note) => { if (note.method === 'notifications/resources/updated') resolve(note.params.uri); };
    });
    const subscription = subscribes ? await client.subscribeResource({ uri }) : await client.listen({ resourceSubscriptions: [uri] });
    await call({ name: 'brain_store', arguments: { id: 'watched', taskId: 't', request: 'a', solution: 'b' } });
    assert.equal(await heard, uri);
    await subscription.close?.();

    for (const pillar of ['brain', 'agent']) { // the gateway lives with the agent
      const killed = await pid(pillar);
      process.kill(killed, 'SIGKILL');
      await until(() => pid(pillar).catch(() => killed), (now) => now !== killed);
    }
    await until(() => fetch(agency.url(3000, '/readyz')).then((answer) => answer.ok, () => false), Boolean);
    // The same client object, no new initialize: its session is in its id.
    const again = await until(() => call({ name: 'queue_stats', arguments: {} }, { timeout: 2000 }).catch((error) => ({ isError: true, error: String(error) })), (got) => !got.isError);
    assert.equal(typeof again.structuredContent.ready, 'number');
    assert.ok((await client.listTools()).tools.length >= tools.length);
    await client.close();
  });
}

// The client of the extension for tasks, which also speaks tasks as 2025-11-25 has them.
for (const era of ['2026-07-28', 'legacy']) {
  test(`a task by the official client of the extension, ${era}`, async () => {
    const client = new Client(info, era === 'legacy' ? {} : { versionNegotiation: { mode: { pin: era } } });
    await client.connect(new StreamableHTTPClientTransport(agency.url()));
    const rawDispatch = async (request) => {
      const { name, taskId } = request.params, named = name ?? taskId;
      const { json } = await until(() => post(agency.url(), { jsonrpc: '2.0', id: 1, ...request }, { 'mcp-protocol-version': era, 'mcp-method': request.method, ...(named ? { 'mcp-name': named } : {}) }).catch(() => ({})), (got) => got.json);
      return json.error ? { kind: 'error', error: json.error } : { kind: 'result', result: json.result };
    };
    const v2RequestFraming = { protocolVersion: era, clientInfo: info, clientCapabilities: { extensions: { 'io.modelcontextprotocol/tasks': {} } } };
    const session = createTaskSessionFromClient(client, { endpointId: 'agency', ...(era === 'legacy' ? {} : { rawDispatch, v2RequestFraming }) });
    const execution = await session.callTool('sop_execute', { name: 'three' });
    if (era !== 'legacy') { // whose requests this test repeats
      const killed = await pid('agent');
      process.kill(killed, 'SIGKILL');
    }
    const result = resultFromTaskOutcome((await execution.settle()).outcome);
    assert.equal(result.structuredContent.state, 'completed', JSON.stringify(result));
    await session.close();
  });
}

// The Inspector's command line, as people try a server with it.
const inspector = join(source, 'tests', 'e2e', 'node_modules', '@modelcontextprotocol', 'inspector', 'clients', 'cli', 'build', 'index.js');
function inspect(home, url, ...words) {
  return new Promise((resolve) => {
    execFile(process.execPath, [inspector, url.href, ...words], { timeout: 120000, maxBuffer: 64 << 20, env: { ...process.env, HOME: home } },
      (error, stdout, stderr) => {
        let json;
        try { json = JSON.parse(stdout); } catch { /* an error has none */ }
        resolve({ code: error ? error.code ?? error.signal : 0, json, stdout, stderr });
      });
  });
}

test('the Inspector lists, calls and reads, in every era; no schema is an error to it', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'agency-inspector-'));
  t.after(() => rm(home, { recursive: true, force: true }));
  const run = async (era, ...words) => {
    const got = era === 'sse' ? await inspect(home, agency.url(3000, '/sse'), '--transport', 'sse', ...words)
      : await inspect(home, agency.url(), '--transport', 'http', '--protocol-era', era, ...words);
    assert.equal(got.code, 0, `${era} ${words.join(' ')}: ${got.stdout}${got.stderr}`);
    return got;
  };
  const call = async (era) => {
    const called = await run(era, '--method', 'tools/call', '--tool-name', 'task_submit', '--tool-arg', 'kind=inspected');
    assert.match(called.json.structuredContent.id, /^t/, era);
  };
  await legacyCall(agency.url(), 'brain_store', { id: 'seen', taskId: 't', request: 'what', solution: 'that' });
  const [strict, read] = await Promise.all([
    run('legacy', '--method', 'tools/list', '--strict'),
    run('modern', '--method', 'resources/read', '--uri', 'agency://memory/seen'),
    call('auto'), call('sse'),
  ]);
  assert.match(strict.stderr, /(^|\n)0 errors/);
  assert.match(read.json.contents[0].text, /that/);
});

test('the clients are the pinned ones', async () => {
  const lock = JSON.parse(await readFile(join(source, 'tests', 'e2e', 'package-lock.json'), 'utf8'));
  const version = (name) => lock.packages[`node_modules/@modelcontextprotocol/${name}`].version;
  assert.deepEqual([version('sdk'), version('client'), version('ext-tasks'), version('inspector')], ['1.32.2', '2.4.0', '0.2.2', '2.12.0']);
});
