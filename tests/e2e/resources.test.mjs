// What the pillars keep, as resources: every kind is listed, read, completed; changes are told to
// those whose company it is, and only to them.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, writeFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ResourceUpdatedNotificationSchema, ResourceListChangedNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { startAgency, post } from './agency.mjs';

let agency, folder, tokens;
const secrets = { ann: 'ann-secret', bob: 'bob-secret', two: 'two-secret', thin: 'thin-secret' };
const line = (name, more) => `sha256:${createHash('sha256').update(secrets[name]).digest('hex')} ${more} name=${name}\n`;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'agency-resources-'));
  tokens = join(folder, 'tokens');
  await writeFile(tokens, line('ann', 'companies=acme role=operator') + line('bob', 'companies=beta role=operator')
    + line('two', 'companies=acme,beta role=operator') + line('thin', 'companies=acme role=operator toolsets=brain,health'));
  agency = await startAgency({ flags: ['--tokens', tokens], env: { AGENCY_GATEWAY_MAX_SUBSCRIPTIONS: '3', AGENCY_GATEWAY_MAX_BATCH: '2' } });
});
after(async () => {
  await agency.stop();
  await rm(folder, { recursive: true, force: true });
});

async function connect(name) {
  const client = new Client({ name: 'test', version: '1' });
  await client.connect(new StreamableHTTPClientTransport(agency.url(), { requestInit: { headers: { authorization: `Bearer ${secrets[name]}` } } }));
  return client;
}
const call = async (client, name, args = {}) => {
  const got = await client.callTool({ name, arguments: args });
  assert.ok(!got.isError, JSON.stringify(got));
  return got.structuredContent;
};

test('every kind is listed, read and completed', async () => {
  const client = await connect('ann');
  await call(client, 'sop_create', { name: 'hello', content: '---\ninputs: who\n---\n# Hello\n\n1. **Say**\n\n   ```sh\n   echo {{input.who}}\n   ```\n' });
  const run = await call(client, 'sop_execute', { name: 'hello', input: { who: 'Ada' } });
  await call(client, 'brain_store', { id: 'm1', taskId: 't', request: 'tea', solution: 'water' });
  await call(client, 'brain_update_graph', { operation: 'add_node', args: { id: 'node-1', type: 'thing' } });
  await call(client, 'track_metric', { agent: 'a', metric: 'm', value: 7 });
  const proposal = await call(client, 'propose_change', { title: 'Better', description: 'because', affectedFiles: ['sops/hello.md'], patch: '--- a/sops/hello.md\n+++ b/sops/hello.md\n@@ -3,3 +3,3 @@\n ---\n-# Hello\n+# Hello there\n \n' });
  const uris = new Map();
  let cursor;
  do {
    const page = await client.listResources(cursor ? { cursor } : {});
    for (const one of page.resources) uris.set(one.uri.split('/')[2], one.uri);
    cursor = page.nextCursor;
  } while (cursor);
  for (const kind of ['sop', 'task', 'run', 'proposal', 'log', 'memory', 'node', 'report', 'daily']) {
    assert.ok(uris.has(kind), `${kind} of ${[...uris.keys()]}`);
    const { contents } = await client.readResource({ uri: uris.get(kind) });
    assert.ok(contents[0].text.length > 2, kind);
  }
  assert.match((await client.readResource({ uri: 'agency://log/steps' })).contents[0].text, /"step":"say","status":"success"/);
  assert.match((await client.readResource({ uri: 'agency://report/last_day' })).contents[0].text, /a:m/);
  assert.match((await client.readResource({ uri: 'agency://node/node-1' })).contents[0].text, /thing/);
  for (const uri of ['agency://report/never', 'agency://log/other', 'agency://memory/%', 'agency://memory/', 'agency://', 'agency:///x', 'agency://memory/m1?company=beta'])
    await assert.rejects(client.readResource({ uri }), (error) => error.code === -32002 || /company/.test(error.message), uri);
  const { resourceTemplates } = await client.listResourceTemplates();
  assert.ok(resourceTemplates.some((one) => one.uriTemplate === 'agency://node/{id}{?company}'));
  const complete = async (uri, name, value) => (await client.complete({ ref: { type: 'ref/resource', uri }, argument: { name, value } })).completion.values;
  assert.deepEqual(await complete('agency://sop/{id}{?company}', 'id', 'he'), ['hello']);
  assert.deepEqual(await complete('agency://node/{id}{?company}', 'id', 'node'), ['node-1']);
  assert.deepEqual(await complete('agency://run/{id}{?company}', 'id', run.id.slice(0, 4)), [run.id]);
  assert.deepEqual(await complete('agency://proposal/{id}{?company}', 'id', ''), [proposal.id ?? proposal.proposal.id]);
  assert.deepEqual(await complete('agency://report/{id}{?company}', 'id', 'last_w'), ['last_week']);
  assert.deepEqual(await complete('agency://memory/{id}{?company}', 'company', ''), ['acme'], 'only what the token may see');
  const earlier = await client.complete({ ref: { type: 'ref/prompt', name: 'hello' }, argument: { name: 'who', value: 'A' } });
  assert.deepEqual(earlier.completion.values, ['Ada'], 'what earlier runs were given');
  await assert.rejects(complete('agency://memory/{id}{?company}', 'colour', ''), (error) => error.code === -32002 || error.code === -32602);
  await client.close();
});

test('a token of two companies sees both, and says which', async () => {
  const bob = await connect('bob');
  await call(bob, 'brain_store', { id: 'b1', taskId: 't', request: 'coffee', solution: 'beans' });
  const two = await connect('two');
  const { resources } = await two.listResources();
  const memories = resources.map((one) => one.uri).filter((uri) => /^agency:..memory.[bm]1/.test(uri)).sort();
  assert.deepEqual(memories, ['agency://memory/b1?company=beta', 'agency://memory/m1?company=acme']);
  assert.match((await two.readResource({ uri: memories[0] })).contents[0].text, /beans/);
  await bob.close();
  await two.close();
});

test('changes are told to their own company only', async () => {
  const [ann, bob] = [await connect('ann'), await connect('bob')];
  const told = { ann: [], bob: [] };
  let heard;
  const first = new Promise((resolve) => { heard = resolve; });
  ann.setNotificationHandler(ResourceUpdatedNotificationSchema, (note) => { told.ann.push(note.params.uri); heard(); });
  bob.setNotificationHandler(ResourceUpdatedNotificationSchema, (note) => told.bob.push(note.params.uri));
  for (const client of [ann, bob]) await client.subscribeResource({ uri: 'agency://memory/shared-name' });
  await assert.rejects(bob.subscribeResource({ uri: 'agency://memory/shared-name?company=acme' }), /company/);
  await call(ann, 'brain_store', { id: 'shared-name', taskId: 't', request: 'a', solution: 'b' });
  await first;
  await call(bob, 'brain_store', { id: 'other', taskId: 't', request: 'a', solution: 'b' });
  assert.deepEqual(told, { ann: ['agency://memory/shared-name'], bob: [] });
  await ann.close();
  await bob.close();
});

test('a list that changes is told once, and to its own company', async () => {
  const [ann, bob] = [await connect('ann'), await connect('bob')];
  const told = { ann: 0, bob: 0 };
  for (const [name, client] of Object.entries({ ann, bob }))
    client.setNotificationHandler(ResourceListChangedNotificationSchema, () => { told[name]++; });
  const first = new Promise((resolve) => {
    ann.setNotificationHandler(ResourceUpdatedNotificationSchema, resolve);
    bob.setNotificationHandler(ResourceUpdatedNotificationSchema, resolve);
  });
  await bob.subscribeResource({ uri: 'agency://memory/mine' });
  await Promise.all(Array.from({ length: 40 }, (_, i) => call(ann, 'brain_store', { id: `many-${i}`, taskId: 't', request: 'a', solution: 'b' })));
  while (!told.ann) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(told.bob, 0, 'of what acme stored');
  await call(bob, 'brain_store', { id: 'mine', taskId: 't', request: 'a', solution: 'b' });
  await first;
  while (!told.bob) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(told.ann < 10 && told.bob === 1, JSON.stringify(told));
  // The same address, written in another way.
  const again = new Promise((resolve) => ann.setNotificationHandler(ResourceUpdatedNotificationSchema, (note) => resolve(note.params.uri)));
  await ann.subscribeResource({ uri: 'agency://memory/a%2fb' });
  await call(ann, 'brain_store', { id: 'a/b', taskId: 't', request: 'a', solution: 'b' });
  assert.equal(await again, 'agency://memory/a%2fb');
  await ann.close();
  await bob.close();
});

test('a token with toolsets is offered these only, and nothing of the others', async () => {
  const thin = await connect('thin');
  const { tools } = await thin.listTools();
  const names = tools.map((tool) => tool.name);
  assert.ok(names.includes('brain_query') && names.includes('track_metric'));
  assert.ok(!names.includes('task_submit'));
  await assert.rejects(thin.callTool({ name: 'task_submit', arguments: { kind: 'a' } }), /no tool/);
  const { resources } = await thin.listResources();
  assert.ok(resources.length && resources.every((one) => !/^agency:..(sop|task|run|proposal|log)\//.test(one.uri)), JSON.stringify(resources.map((one) => one.uri)));
  await assert.rejects(thin.readResource({ uri: 'agency://sop/hello' }));
  await thin.close();
  await assert.rejects(startAgency({ flags: ['--tokens', await bad()] }), /no pillar/);
});
async function bad() {
  const path = join(folder, 'bad');
  await writeFile(path, `sha256:${'0'.repeat(64)} companies=a name=x toolsets=brian\n`);
  return path;
}

test('the access log has a line for each request, and no secret', async () => {
  const { readFile } = await import('node:fs/promises');
  const log = join(folder, 'access.ndjson');
  const alone = await startAgency({ env: { AGENCY_GATEWAY_ACCESS_LOG: log } });
  try {
    const trace = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    await post(alone.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'queue_stats', arguments: { company: 'acme' } } }, { traceparent: trace, authorization: 'Bearer very-secret' });
    await post(alone.url(), '{');
    await post(alone.url(3000, '/messages?sessionId=hidden'), { jsonrpc: '2.0', id: 1, method: 'ping' });
    const lines = async () => (await readFile(log, 'utf8')).trim().split('\n').map(JSON.parse);
    let seen;
    for (const until = Date.now() + 20000; Date.now() < until && !(seen = await lines()).some((one) => one.path === '/messages');) await new Promise((resolve) => setImmediate(resolve));
    const one = seen.find((line) => line.name === 'queue_stats');
    assert.equal(one.method, 'tools/call');
    assert.equal(one.status, 200);
    assert.equal(one.company, 'acme');
    assert.equal(one.principal, 'local');
    assert.equal(one.trace, trace);
    assert.ok(one.ms >= 0 && one.bytes_in > 0 && one.bytes_out > 0);
    assert.ok(seen.some((line) => line.status === 400));
    assert.doesNotMatch(await readFile(log, 'utf8'), /secret|hidden/);
    const metrics = await (await fetch(alone.url(3000, '/metrics'))).text();
    assert.match(metrics, /agency_mcp_tool_calls_total\{pillar="agent",tool="queue_stats",outcome="(ok|error)"\} 1/);
    assert.match(metrics, /agency_mcp_tool_duration_seconds_bucket\{pillar="agent",tool="queue_stats",le="\+Inf"\} 1/);
  } finally {
    await alone.stop();
  }
});

test('limits are the settings, and say so', async () => {
  const client = await connect('ann');
  for (const uri of ['agency://log/steps', 'agency://log/runs', 'agency://sop/none']) await client.subscribeResource({ uri });
  await assert.rejects(client.subscribeResource({ uri: 'agency://sop/hello' }), /gateway\.max_subscriptions/);
  await client.close();
  const ping = (id) => ({ jsonrpc: '2.0', id, method: 'ping' });
  const headers = { authorization: `Bearer ${secrets.ann}` };
  assert.equal((await post(agency.url(), [ping(1), ping(2)], headers)).json.length, 2);
  assert.match((await post(agency.url(), [ping(1), ping(2), ping(3)], headers)).json.error.message, /1 to 2 messages \(gateway\.max_batch\)/);
});

// A subscriptions/listen; `over` resolves with all that came once the server has closed it.
async function listen(name) {
  const answer = await fetch(agency.url(), { method: 'POST', headers: { authorization: `Bearer ${secrets[name]}`, 'content-type': 'application/json',
    accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'subscriptions/listen' },
  body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'subscriptions/listen', params: { notifications: { resourceSubscriptions: ['agency://log/steps'] },
    _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} } } }) });
  assert.equal(answer.status, 200);
  const reader = answer.body.getReader(), stream = { text: '' };
  const read = async () => {
    const { done, value } = await reader.read();
    if (!done) stream.text += Buffer.from(value).toString();
    return !done;
  };
  await read(); // it is open
  stream.over = (async () => { while (await read()); })();
  stream.cancel = () => reader.cancel();
  return stream;
}

test('whose token is taken away, or grants something else, has its streams closed', async () => {
  const [ann, bob, two] = await Promise.all(['ann', 'bob', 'two'].map(listen));
  await writeFile(tokens, line('ann', 'companies=acme role=operator') + line('two', 'companies=acme role=operator'));
  await Promise.all([bob.over, two.over]);
  for (const stream of [bob, two]) assert.match(stream.text, /"resultType":"complete"/, 'it ends in good order');
  assert.ok(!ann.text.includes('"resultType"'), 'who has the same right stays');
  const answer = await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'ping' }, { authorization: `Bearer ${secrets.bob}` });
  assert.equal(answer.status, 401);
  await ann.cancel();
});
