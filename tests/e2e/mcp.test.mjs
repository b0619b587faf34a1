// Real clients of both eras, and what they must never see.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { Client as OldClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as OldTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { startAgency, post, modern, legacyCall } from './agency.mjs';

let agency;
before(async () => { agency = await startAgency(); });
after(async () => { await agency.stop(); });

const info = { name: 'test', version: '1' };
const eras = {
  legacy: async () => {
    const client = new OldClient(info);
    await client.connect(new OldTransport(agency.url()));
    return client;
  },
  'v2 client': async () => {
    const client = new Client(info);
    await client.connect(new StreamableHTTPClientTransport(agency.url()));
    return client;
  },
  modern: async () => {
    const client = new Client(info, { versionNegotiation: { mode: { pin: '2026-07-28' } } });
    await client.connect(new StreamableHTTPClientTransport(agency.url()));
    return client;
  },
};

for (const [era, connect] of Object.entries(eras)) {
  test(`${era}: list, call, errors`, async () => {
    const client = await connect();
    const { tools } = await client.listTools();
    const names = tools.map((tool) => tool.name);
    for (const name of ['task_submit', 'sop_execute', 'brain_store', 'brain_query'])
      assert.ok(names.includes(name), `${name} is listed`);
    const query = tools.find((tool) => tool.name === 'brain_query');
    assert.equal(query.annotations.readOnlyHint, true);
    assert.equal(query.inputSchema.type, 'object');
    const made = await client.callTool({ name: 'task_submit', arguments: { kind: 'greet', input: { n: 1 } } });
    assert.ok(!made.isError, JSON.stringify(made));
    const got = await client.callTool({ name: 'task_get', arguments: { id: made.structuredContent.id } });
    assert.equal(got.structuredContent.task.state, 'ready');
    assert.deepEqual(got.structuredContent.task.input, { n: 1 });
    const wrong = await client.callTool({ name: 'task_submit', arguments: { kind: 7 } });
    assert.equal(wrong.isError, true);
    assert.match(wrong.content[0].text, /kind/);
    const unknown = await client.callTool({ name: 'task_submit', arguments: { kind: 'a', inptu: 1 } });
    assert.match(unknown.content[0].text, /did you mean 'input'/);
    await assert.rejects(client.callTool({ name: 'no_such_tool', arguments: {} }), /no tool/);
    await client.close();
  });
}

test('50 pairs of clients with the same ids, two companies: every answer is right', async () => {
  const one = async (company, pair) => {
    const secret = `${company}-${pair}`;
    const stored = await legacyCall(agency.url(), 'task_submit', { kind: 'secret', input: secret, company }, pair);
    assert.equal(stored.json.id, pair);
    const id = stored.json.result.structuredContent.id;
    for (let i = 0; i < 5; i++) {
      const got = await legacyCall(agency.url(), 'task_get', { id, company }, 1);
      assert.equal(got.json.id, 1);
      assert.equal(got.json.result.structuredContent.task.input, secret);
      assert.equal(got.json.result.structuredContent.task.company, company);
    }
  };
  const all = [];
  for (let pair = 0; pair < 50; pair++) all.push(one('alpha', pair), one('beta', pair));
  await Promise.all(all);
});

test('the modern era answers as the specification says', async () => {
  const url = agency.url();
  const discover = await modern(url, 'server/discover');
  assert.deepEqual(discover.json.result.supportedVersions, ['2026-07-28']);
  assert.equal(discover.json.result.resultType, 'complete');
  assert.ok(Number.isInteger(discover.json.result.ttlMs));
  const gone = await modern(url, 'ping');
  assert.equal(gone.status, 404);
  assert.equal(gone.json.error.code, -32601);
  const mismatch = await modern(url, 'tools/list', {}, { headers: { 'mcp-method': 'tools/call' } });
  assert.equal(mismatch.status, 400);
  assert.equal(mismatch.json.error.code, -32020);
  const version = await modern(url, 'tools/list', {}, {
    headers: { 'mcp-protocol-version': '2099-01-01' },
    more: { 'io.modelcontextprotocol/protocolVersion': '2099-01-01' },
  });
  assert.equal(version.json.error.code, -32022);
  assert.deepEqual(version.json.error.data.supported, ['2026-07-28']);
  const bare = await post(url, { jsonrpc: '2.0', id: 1, method: 'tools/list' }, { 'mcp-protocol-version': '2026-07-28' });
  assert.equal(bare.json.error.code, -32602);
});

test('bad input gets a clear error and loses nothing', async () => {
  const url = agency.url();
  assert.equal((await post(url, '{"jsonrpc":')).status, 400);
  assert.equal((await post(url, '{"jsonrpc":')).json.error.code, -32700);
  assert.equal((await post(url, '')).status, 400);
  assert.equal((await post(url, '[]')).status, 400);
  assert.equal((await post(url, '['.repeat(100000))).status, 400);
  assert.equal((await post(url, { jsonrpc: '2.0', id: null, method: 'ping' })).status, 400);
  assert.equal((await post(url, { jsonrpc: '2.0', id: 1, method: 'ping' }, { 'content-type': 'text/plain' })).status, 415);
  assert.equal((await post(url, { jsonrpc: '2.0', id: 1, method: 'ping' }, { origin: 'http://evil.example.com' })).status, 403);
  assert.equal((await fetch(url)).status, 405);
  assert.equal((await fetch(agency.url(3000, '/nowhere'))).status, 404);
  const big = await post(url, `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"${'x'.repeat(5 << 20)}"}}`);
  assert.equal(big.status, 413);
  for (const company of ['../x', '', 'a'.repeat(400), 'a/b', "a'b"]) {
    const answer = await legacyCall(url, 'task_submit', { kind: 'a', company });
    assert.equal(answer.json.result.isError, true, company);
    assert.match(answer.json.result.content[0].text, /company name/);
  }
  const other = await legacyCall(url, 'task_submit', { kind: 'mine', company: 'alpha' });
  const stolen = await legacyCall(url, 'task_get', { id: other.json.result.structuredContent.id + "' OR 1", company: 'beta' });
  assert.equal(stolen.json.result.isError, true);
  const sop = await legacyCall(url, 'sop_create', { name: '../../etc/passwd', content: '# x' });
  assert.equal(sop.json.result.isError, true);
  const empty = await legacyCall(url, 'sop_create', { name: 'empty', content: '# Nothing to do' });
  assert.equal(empty.json.result.isError, true);
  assert.match(empty.json.result.content[0].text, /step/);
});

test('the old door answers directly, as one event', async () => {
  const answer = await fetch(agency.url(3000, '/messages'), {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 'x', method: 'tools/call', params: { name: 'queue_stats', arguments: {} } }),
  });
  assert.equal(answer.headers.get('content-type'), 'text/event-stream');
  const text = await answer.text();
  assert.match(text, /^event: message\ndata: \{/);
  assert.equal(JSON.parse(text.split('data: ')[1]).id, 'x');
});

test('health, readiness and demand', async () => {
  assert.equal(await (await fetch(agency.url(3000, '/health'))).text(), 'OK');
  assert.equal((await fetch(agency.url(3000, '/livez'))).status, 200);
  assert.equal((await fetch(agency.url(3000, '/readyz'))).status, 200);
  assert.equal((await fetch(agency.url(3002, '/readyz'))).status, 200);
  const scale = await (await fetch(agency.url(3000, '/api/v1/scale'))).json();
  assert.deepEqual(Object.keys(scale).sort(), ['desired_replicas', 'due_soon', 'leased',
    'oldest_ready_age_seconds', 'queue_length', 'ready', 'target_per_replica'].sort());
});

test('a path of a pillar offers its tools only', async () => {
  const list = await post(agency.url(3000, '/mcp/brain'), { jsonrpc: '2.0', id: 1, method: 'tools/list' });
  const names = list.json.result.tools.map((tool) => tool.name);
  assert.ok(names.includes('brain_query'));
  assert.ok(!names.includes('task_submit'));
  const refused = await legacyCall(agency.url(3000, '/mcp/brain'), 'task_submit', { kind: 'a' });
  assert.match(refused.json.error.message, /no tool/);
});
