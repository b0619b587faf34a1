// What lasts longer than a request: sessions, streams, resources, prompts, tasks, with real clients.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { Client as OldClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as OldTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { ElicitRequestSchema, ResourceUpdatedNotificationSchema, PromptListChangedNotificationSchema, LoggingMessageNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { startAgency, post, modern, legacyCall, asked, answerTo } from './agency.mjs';
import { readFile, readdir } from 'node:fs/promises';
import net from 'node:net';
import { startFixture } from './fixture.mjs';

const info = { name: 'test', version: '1' };
const tasksMeta = { 'io.modelcontextprotocol/clientCapabilities': { elicitation: {}, extensions: { 'io.modelcontextprotocol/tasks': {} } } };
let agency, fixture;
before(async () => { agency = await startAgency(); fixture = await startFixture(); });
after(async () => { await agency?.stop(); await fixture?.stop(); });

async function connect(url, capabilities = {}, Transport = OldTransport) {
  const client = new OldClient(info, { capabilities });
  await client.connect(new Transport(url));
  return client;
}

async function until(ask, want, ms = 20000) {
  const end = Date.now() + ms;
  let last;
  while (Date.now() < end) {
    last = await ask();
    if (want(last)) return last;
  }
  throw new Error(`in vain: ${JSON.stringify(last)}`);
}

const sop = (title, body) => `---\ninputs: who\n---\n# ${title}\n\n1. **Say it**\n\n   \`\`\`sh\n   ${body}\n   \`\`\`\n`;

test('procedures are prompts, and procedures, tasks and memories are resources', async () => {
  const client = await connect(agency.url());
  const changed = new Promise((resolve) => client.setNotificationHandler(PromptListChangedNotificationSchema, resolve));
  const made = await client.callTool({ name: 'sop_create', arguments: { name: 'hello', content: sop('Say hello', 'echo hello') } });
  assert.ok(!made.isError, JSON.stringify(made));
  await changed;
  const { prompts } = await client.listPrompts();
  const prompt = prompts.find((one) => one.name === 'hello');
  assert.equal(prompt.title, 'Say hello');
  assert.deepEqual(prompt.arguments, [{ name: 'who', required: true }]);
  const got = await client.getPrompt({ name: 'hello', arguments: { who: 'Ada' } });
  assert.match(got.messages[0].content.text, /- who: Ada/);
  assert.match(got.messages[0].content.text, /echo hello/);
  await assert.rejects(client.getPrompt({ name: 'nothing-there' }), /there is no prompt/);

  const task = await client.callTool({ name: 'task_submit', arguments: { kind: 'greet' } });
  await client.callTool({ name: 'brain_store', arguments: { taskId: 't', request: 'How is tea made?', solution: 'With hot water.' } });
  const { resources } = await client.listResources();
  const uris = resources.map((one) => one.uri);
  assert.ok(uris.includes('agency://sop/hello'), uris.join());
  assert.ok(uris.includes(`agency://task/${task.structuredContent.id}`), uris.join());
  const memory = resources.find((one) => one.uri.startsWith('agency://memory/'));
  assert.match((await client.readResource({ uri: memory.uri })).contents[0].text, /hot water/);
  const text = await client.readResource({ uri: 'agency://sop/hello' });
  assert.equal(text.contents[0].mimeType, 'text/markdown');
  assert.match(text.contents[0].text, /# Say hello/);
  await assert.rejects(client.readResource({ uri: 'agency://memory/nothing' }), (error) => error.code === -32002);
  await assert.rejects(client.readResource({ uri: 'file:///etc/passwd' }), (error) => error.code === -32002);
  const { resourceTemplates } = await client.listResourceTemplates();
  assert.ok(resourceTemplates.some((one) => one.uriTemplate === 'agency://run/{id}{?company}'));
  const completion = await client.complete({ ref: { type: 'ref/resource', uri: 'agency://sop/{id}' }, argument: { name: 'id', value: 'he' } });
  assert.deepEqual(completion.completion.values, ['hello']);
  await client.close();
});

test('a list longer than a page goes on where it ended; a made-up cursor is refused', async () => {
  const url = agency.url();
  const items = [];
  for (let i = 0; i < 130; i++) items.push({ kind: 'page', input: i });
  const many = await legacyCall(url, 'task_submit_batch', { tasks: items, company: 'default' });
  assert.ok(!many.json.result.isError, many.text);
  const seen = new Set();
  let cursor;
  do {
    const page = await modern(url, 'resources/list', cursor ? { cursor } : {});
    for (const one of page.json.result.resources) {
      assert.ok(!seen.has(one.uri), `${one.uri} twice`);
      seen.add(one.uri);
    }
    cursor = page.json.result.nextCursor;
  } while (cursor);
  assert.ok([...seen].filter((uri) => uri.startsWith('agency://task/')).length >= 130);
  for (const bad of ['x', '', 'a.b', 'A'.repeat(5000)]) {
    const answer = await modern(url, 'resources/list', { cursor: bad });
    assert.equal(answer.json.error.code, -32602, bad);
  }
});

test('a run is a task that outlives the agent and the gateway', async (t) => {
  const alone = await startAgency();
  t.after(() => alone.stop());
  const body = 'sleep 1; echo done with it';
  const written = await legacyCall(alone.url(), 'sop_create', { name: 'slow', content: `# Slow\n\n1. **Work**\n\n   \`\`\`sh\n   ${body}\n   \`\`\`\n2. **Ask**\n\n   \`\`\`approve\n   Shall it go out?\n   \`\`\`\n` });
  assert.ok(!written.json.result.isError, written.text);
  const made = await modern(alone.url(), 'tools/call', { name: 'sop_execute', arguments: { name: 'slow' } }, { more: tasksMeta });
  assert.equal(made.json.result.resultType, 'task', made.text);
  const { taskId } = made.json.result;
  assert.ok(taskId);
  const task = (method, more = {}, id = taskId) => modern(alone.url(), method, { taskId: id, ...more }, { more: tasksMeta, headers: { 'mcp-name': id } });
  assert.match((await task('tasks/get')).json.result.status, /working|input_required/);
  await alone.stop({ keep: true });
  const again = await startAgency({ data: alone.data, offset: alone.offset });
  try {
    const waiting = await until(async () => (await task('tasks/get')).json.result, (got) => got?.status === 'input_required', 60000);
    assert.match(asked(waiting.inputRequests).params.message, /Ask|Shall it go out/);
    const foreign = await modern(again.url(), 'tasks/get', { taskId }, { headers: { 'mcp-name': taskId } });
    assert.equal(foreign.json.error.code, -32021);
    const forged = await task('tasks/get', {}, `${taskId.slice(0, -1)}${taskId.endsWith('A') ? 'B' : 'A'}`);
    assert.equal(forged.json.error.code, -32602);
    const ack = await task('tasks/update', { inputResponses: answerTo(waiting.inputRequests, { action: 'accept', content: { approve: true } }) });
    assert.equal(ack.json.result.resultType, 'complete', ack.text);
    const done = await until(async () => (await task('tasks/get')).json.result, (got) => got.status === 'completed');
    assert.ok(!done.result.isError, JSON.stringify(done));
    assert.match(done.result.content[0].text, /executed successfully/);
  } finally {
    await again.stop();
  }
});

test('a session is its id: it outlives the gateway, cannot be made up, and ends for good', async () => {
  const one = await startFixture();
  const open = await post(one.url(), { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: info } });
  const id = open.headers.get('mcp-session-id');
  assert.match(id, /^[\x21-\x7e]+$/);
  const ping = (session, url = one.url()) => post(url, { jsonrpc: '2.0', id: 2, method: 'ping' }, { 'mcp-session-id': session });
  assert.equal((await ping(id)).status, 200);
  assert.equal((await ping(`${id}x`)).status, 404);
  assert.equal((await ping(`x${id}`)).status, 404);
  assert.equal((await ping('made-up')).status, 404);
  assert.equal((await ping(id, fixture.url())).status, 404, 'another house has another key');
  const remove = () => fetch(one.url(), { method: 'DELETE', headers: { 'mcp-session-id': id } });
  assert.equal((await remove()).status, 204);
  assert.equal((await ping(id)).status, 404);
  assert.equal((await remove()).status, 404);
  await one.stop();
});

test('one process after another takes the same session', async () => {
  const { mkdtemp, rm } = await import('node:fs/promises');
  const { tmpdir } = await import('node:os');
  const { join } = await import('node:path');
  const data = await mkdtemp(join(tmpdir(), 'agency-fixture-'));
  const first = await startFixture({ data });
  const client = await connect(first.url(), { elicitation: {} });
  await client.ping();
  await first.stop();
  const second = await startFixture({ data, port: first.port });
  client.setRequestHandler(ElicitRequestSchema, async () => ({ action: 'accept', content: { response: 'yes' } }));
  const answer = await client.callTool({ name: 'test_elicitation', arguments: { message: 'well?' } });
  assert.match(answer.content[0].text, /accept/, 'what the client can do is in its id');
  await client.close();
  await second.stop();
  await rm(data, { recursive: true, force: true });
});

test('HTTP with SSE, the pair of doors of 2024: list, call, log, question', async () => {
  const client = await connect(fixture.url('/sse'), { elicitation: {} }, SSEClientTransport);
  client.setRequestHandler(ElicitRequestSchema, async () => ({ action: 'accept', content: { response: 'tea' } }));
  const lines = [];
  client.setNotificationHandler(LoggingMessageNotificationSchema, (note) => { lines.push(note.params.data); });
  assert.ok((await client.listTools()).tools.length > 30);
  const text = await client.callTool({ name: 'test_simple_text', arguments: {} });
  assert.match(text.content[0].text, /simple text/);
  await client.callTool({ name: 'test_tool_with_logging', arguments: {} });
  assert.equal(lines.length, 3);
  const answer = await client.callTool({ name: 'test_elicitation', arguments: { message: 'tea?' } });
  assert.match(answer.content[0].text, /tea/);
  await client.close();
});

test('a level of logging is kept to; cancelling ends a call', async () => {
  const client = await connect(fixture.url());
  const lines = [];
  client.setNotificationHandler(LoggingMessageNotificationSchema, (note) => { lines.push(note.params.data); });
  await client.setLoggingLevel('error');
  await client.callTool({ name: 'test_tool_with_logging', arguments: {} });
  assert.equal(lines.length, 0);
  await client.setLoggingLevel('debug');
  await client.callTool({ name: 'test_tool_with_logging', arguments: {} });
  assert.equal(lines.length, 3);
  const stop = new AbortController();
  const call = client.callTool({ name: 'slow_compute', arguments: { seconds: 60 } }, undefined, { signal: stop.signal });
  setImmediate(() => stop.abort('enough'));
  await assert.rejects(call, /enough/);
  await client.ping();
  await client.close();
});

test('a run that is watched reports each step', async () => {
  const client = await connect(agency.url());
  await client.callTool({ name: 'sop_create', arguments: { name: 'watched', content: `# Watched\n\n1. **Ask**\n\n   \`\`\`approve\n   Go on?\n   \`\`\`\n2. **Work**\n\n   \`\`\`sh\n   echo yes\n   \`\`\`\n` } });
  const run = await client.callTool({ name: 'sop_execute', arguments: { name: 'watched', wait_ms: 0 } });
  const { id } = run.structuredContent;
  const uri = `agency://run/${id}`;
  const told = new Promise((resolve) => client.setNotificationHandler(ResourceUpdatedNotificationSchema, (note) => resolve(note.params.uri)));
  await client.subscribeResource({ uri });
  await until(() => client.callTool({ name: 'approve', arguments: { id } }), (answer) => !answer.isError);
  assert.equal(await told, uri);
  await client.close();
});

// ---- Many ----

// A connection that sends requests as they stand and yields the status and body of each answer.
function wire(port) {
  const socket = net.connect(port, '127.0.0.1');
  let rest = '', next, failed;
  const wanted = [];
  const fail = (error) => { failed = error ?? new Error('the connection was closed'); for (const one of wanted.splice(0)) one.reject(failed); };
  socket.setEncoding('latin1').on('error', fail).on('close', () => fail());
  socket.on('data', (chunk) => {
    rest += chunk;
    for (;;) {
      const head = rest.indexOf('\r\n\r\n');
      const size = head < 0 ? -1 : Number(/content-length: (\d+)/i.exec(rest.slice(0, head))?.[1] ?? 0);
      if (head < 0 || rest.length < head + 4 + size) return;
      next = wanted.shift();
      next?.resolve({ status: Number(rest.slice(9, 12)), head: rest.slice(0, head), body: rest.slice(head + 4, head + 4 + size) });
      rest = rest.slice(head + 4 + size);
    }
  });
  return {
    socket,
    ask: (body, headers = '') => new Promise((resolve, reject) => {
      if (failed) return reject(failed);
      wanted.push({ resolve, reject });
      socket.write(`POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`);
    }),
  };
}

const rpc = (id, method, params = {}) => JSON.stringify({ jsonrpc: '2.0', id, method, params });
const hello = rpc(1, 'initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: info });
const residentKiB = async (pid) => Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))[1]);
const sessionsKnown = async (one) => Number(/agency_http_sessions_known\{pillar="agent"\} (\d+)/.exec(await (await fetch(one.url(3000, '/metrics'))).text())[1]);

test('10,000 sessions that are opened and abandoned: memory returns', async (t) => {
  const one = await startAgency({ env: { AGENCY_GATEWAY_SESSION_TTL_S: '2' }, flags: ['--workers', '0'] });
  t.after(() => one.stop());
  const pid = Number(await readFile(`${one.data}/run/agent.pid`, 'utf8'));
  const abandon = async (count) => {
    let most = 0, left = count;
    await Promise.all(Array.from({ length: 8 }, async () => {
      const { ask, socket } = wire(3000 + one.offset);
      while (left-- > 0) {
        const opened = await ask(hello);
        assert.equal(opened.status, 200);
        const id = /mcp-session-id: (\S+)/i.exec(opened.head)[1];
        const kept = await ask(rpc(2, 'logging/setLevel', { level: 'error' }), `Mcp-Session-Id: ${id}\r\n`); // it is remembered
        assert.equal(kept.status, 200, kept.body);
        if (left % 1000 === 0) most = Math.max(most, await sessionsKnown(one));
      }
      socket.destroy();
    }));
    await until(() => sessionsKnown(one), (known) => known === 0, 30000);
    return most;
  };
  assert.ok(await abandon(2000) > 0); // caches are warm
  const before = await residentKiB(pid);
  assert.ok(await abandon(10000) > 0);
  const grown = await residentKiB(pid) - before;
  assert.ok(grown < 4096, `${grown} KiB more than before`);
});

// How often the threads of a process were woken up so far.
async function wakeUps(pid) {
  let sum = 0;
  for (const thread of await readdir(`/proc/${pid}/task`)) {
    const status = await readFile(`/proc/${pid}/task/${thread}/status`, 'utf8').catch(() => '');
    sum += Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)?.[1] ?? 0);
  }
  return sum;
}

// While nothing happens for a time, which is what is measured.
async function wakeUpsOfNothing(pid, ms) {
  const before = await wakeUps(pid);
  await new Promise((resolve) => setTimeout(resolve, ms));
  return await wakeUps(pid) - before;
}

test('1,000 idle streams wake nobody up; 200 slow clients are not noticed by others', async (t) => {
  const one = await startAgency({ env: { AGENCY_GATEWAY_KEEP_ALIVE_MS: '600000' }, flags: ['--workers', '0'] });
  t.after(() => one.stop());
  const port = 3000 + one.offset;
  const pid = Number(await readFile(`${one.data}/run/agent.pid`, 'utf8'));
  const quiet = await wakeUpsOfNothing(pid, 2000);
  const sockets = [];
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  const listen = (i) => new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1');
    sockets.push(socket);
    socket.once('data', (head) => (/200 OK/.test(head) ? resolve(socket) : reject(new Error(String(head))))).once('error', reject);
    const body = JSON.stringify({ jsonrpc: '2.0', id: i, method: 'subscriptions/listen', params: { notifications: { toolsListChanged: true }, _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} } } });
    socket.write(`POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: subscriptions/listen\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
  });
  for (let i = 0; i < 1000; i += 50) await Promise.all(Array.from({ length: 50 }, (_, j) => listen(i + j)));
  const idle = await wakeUpsOfNothing(pid, 2000);
  assert.ok(idle <= quiet + 30, `${idle} wake-ups in two seconds with 1,000 idle streams, ${quiet} without`);

  // 100 send a byte at a time, 100 ask for much and read nothing.
  const body = rpc(1, 'tools/list');
  const whole = `POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  const slow = Array.from({ length: 200 }, (_, i) => {
    const socket = net.connect(port, '127.0.0.1');
    sockets.push(socket);
    if (i % 2) { socket.pause(); for (let n = 0; n < 20; n++) socket.write(whole); }
    return socket;
  });
  let sent = 0, others = 0;
  const { ask, socket } = wire(port);
  sockets.push(socket);
  while (sent < whole.length - 1) { // the last byte never comes
    for (let i = 0; i < 200; i += 2) slow[i].write(whole[sent]);
    sent++;
    others += (await ask(rpc(sent, 'ping'))).status === 200;
  }
  assert.equal(others, sent, 'each of the others was answered in between');
  const last = (await Promise.all(Array.from({ length: 200 }, (_, i) => ask(rpc(i, 'tools/call', { name: 'queue_stats', arguments: {} }))))).filter(({ status }) => status === 200);
  assert.equal(last.length, 200);
  slow.forEach((one, i) => { if (i % 2 === 0) one.write(whole.at(-1)); }); // and now each is served as well
  const answers = await Promise.all(slow.filter((_, i) => i % 2 === 0).map((one) => new Promise((resolve, reject) => one.once('data', (data) => resolve(String(data))).once('error', reject))));
  assert.ok(answers.every((answer) => answer.startsWith('HTTP/1.1 200')));
});
