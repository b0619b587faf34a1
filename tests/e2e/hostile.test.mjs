// Headers, ids, cursors and tokens of somebody who means no good: each is refused with its status, and
// kind values of honest clients are not.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import http from 'node:http';
import { startAgency, post, modern } from './agency.mjs';

let agency;
before(async () => { agency = await startAgency(); });
after(async () => { await agency.stop(); });

// fetch sets Host and Accept by itself; this one sends what it is told.
function raw(headers, body = { jsonrpc: '2.0', id: 1, method: 'ping' }, path = '/mcp', method = 'POST') {
  const url = agency.url(3000, path);
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port: url.port, path, method, headers: { 'content-type': 'application/json', ...headers } }, (answer) => {
      let text = '';
      answer.on('data', (part) => { text += part; });
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, text }));
    });
    request.on('error', reject);
    request.end(method === 'POST' ? JSON.stringify(body) : undefined);
  });
}

test('Host and Origin', async () => {
  const own = agency.url().host;
  for (const host of [own, `localhost:${agency.url().port}`, '[::1]:80', 'LOCALHOST'])
    assert.equal((await raw({ host })).status, 200, host);
  for (const host of ['evil.example.com', 'localhost.evil.example', 'localhost:80@evil.example', '127.0.0.1.evil.example', 'localhost:x', '[::1'])
    assert.ok([400, 403].includes((await raw({ host })).status), host);
  for (const origin of ['http://localhost', 'https://127.0.0.1:8080', 'http://[::1]:3000'])
    assert.equal((await raw({ origin })).status, 200, origin);
  for (const origin of ['null', 'http://evil.example', 'http://localhost@evil.example', 'http://localhost:80@evil.example', 'http://localhost.evil.example', 'evil://localhost', 'http://localhost/x', '']) {
    const answer = await raw({ origin });
    assert.equal(answer.status, 403, origin);
    assert.match(answer.text, /gateway\.allowed_origins/);
  }
});

test('Accept of every kind is answered in kind', async () => {
  for (const accept of [undefined, '*/*', 'application/json', 'application/*', 'text/event-stream', 'application/json, text/event-stream', 'Application/JSON;q=0.1', 'text/html, */*;q=0.1', '']) {
    const answer = await raw(accept === undefined ? {} : { accept });
    assert.equal(answer.status, 200, String(accept));
    assert.match(answer.headers['content-type'], accept === 'text/event-stream' ? /event-stream/ : /json/, String(accept));
  }
  for (const accept of ['text/html', 'application/json;q=0', 'application/jsonx'])
    assert.equal((await raw({ accept })).status, 406, accept);
});

test('a browser asks before it posts', async () => {
  const answer = await raw({ origin: 'http://localhost:6274', 'access-control-request-method': 'POST', 'access-control-request-headers': 'content-type, mcp-param-x' }, undefined, '/mcp', 'OPTIONS');
  assert.equal(answer.status, 204);
  assert.equal(answer.headers['access-control-allow-origin'], 'http://localhost:6274');
  assert.match(answer.headers['access-control-allow-headers'], /mcp-param-x/);
  assert.equal((await raw({ origin: 'http://evil.example' }, undefined, '/mcp', 'OPTIONS')).status, 403);
});

test('mirrored headers with bad Base64, and names in Base64', async () => {
  const call = (name) => modern(agency.url(), 'tools/call', { name: 'queue_stats', arguments: {} }, { headers: { 'mcp-name': name } });
  assert.equal((await call(`=?base64?${Buffer.from('queue_stats').toString('base64')}?=`)).status, 200);
  for (const bad of ['=?base64?cXVldWVfc3RhdHM?=', '=?base64?@@@@?=', '=?base64?AA==?=', '=?base64?/////w==?=', 'x', 'a'.repeat(8000)]) {
    const answer = await call(bad);
    assert.equal(answer.status, 400, bad);
    assert.equal(answer.json.error.code, -32020, bad);
  }
});

test('ids of sessions and events, cursors and states that nobody gave out', async () => {
  const init = await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'x', version: '1' } } });
  const session = init.headers.get('mcp-session-id');
  const ping = (id, more = {}) => post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'ping' }, { 'mcp-session-id': id, ...more });
  assert.equal((await ping(session)).status, 200);
  for (const bad of ['x', session.slice(1), `${session}A`, session.replace('.', '..'), `${session.split('.')[0]}.`, 'a'.repeat(5000), '../../etc/passwd'])
    assert.equal((await ping(bad)).status, 404, bad);
  for (const last of ['x', '-1', 'x-', 'x-99999999999999999999', '%00', `${'f'.repeat(3000)}-1`]) {
    const stream = new AbortController();
    const answer = await fetch(agency.url(), { headers: { accept: 'text/event-stream', 'mcp-session-id': session, 'last-event-id': last }, signal: stream.signal });
    assert.ok([200, 409].includes(answer.status), `${last}: an unknown event begins a plain stream`);
    stream.abort();
  }
  for (const requestState of ['x', 'a.b', session, 'A'.repeat(100000)]) {
    const answer = await modern(agency.url(), 'tools/call', { name: 'sop_execute', arguments: { name: 'x' }, requestState, inputResponses: {} });
    assert.equal(answer.status, 400, requestState.slice(0, 20));
    assert.equal(answer.json.error.code, -32602);
  }
  for (const cursor of [session, 'x', 'A'.repeat(100000)])
    assert.equal((await modern(agency.url(), 'resources/list', { cursor })).json.error.code, -32602);
  for (const taskId of [session, 'x', 'A'.repeat(100000)]) {
    const answer = await modern(agency.url(), 'tasks/get', { taskId }, { headers: { 'mcp-name': taskId.slice(0, 4000) }, more: { 'io.modelcontextprotocol/clientCapabilities': { extensions: { 'io.modelcontextprotocol/tasks': {} } } } });
    assert.ok([-32602, -32020].includes(answer.json?.error.code) || answer.status === 431, answer.text);
  }
});

const ping = (id) => ({ jsonrpc: '2.0', id, method: 'ping' });
const initialize = (protocolVersion, id = 1) => ({ jsonrpc: '2.0', id, method: 'initialize', params: { protocolVersion, capabilities: {}, clientInfo: { name: 'x', version: '1' } } });
const session = async (version) => (await post(agency.url(), initialize(version))).headers.get('mcp-session-id');

test('batches are of 2025-03-26 only, and each message in them gets what it deserves', async () => {
  const note = { jsonrpc: '2.0', method: 'notifications/initialized' }, answer = { jsonrpc: '2.0', id: 'nobody-asked', result: {} };
  const mixed = await post(agency.url(), [ping(1), note, 7, answer, {}, ping(2), initialize('2025-03-26', 3), { jsonrpc: '1.0', method: 'x' }]);
  assert.deepEqual(mixed.json.map((one) => [one.id, one.error?.code ?? 0]), [[1, 0], [null, -32600], [null, -32600], [2, 0], [3, -32600], [null, -32600]]);
  const quiet = await post(agency.url(), [note, answer]);
  assert.deepEqual([quiet.status, quiet.text], [202, '']);
  for (const [version, status] of [['2025-03-26', 200], ['2025-06-18', 400], ['2025-11-25', 400], ['2024-11-05', 400]])
    assert.equal((await post(agency.url(), [ping(1)], { 'mcp-session-id': await session(version) })).status, status, version);
  assert.equal((await post(agency.url(), [ping(1)], { 'mcp-session-id': 'x' })).status, 404, 'so that the client begins again');

  // A cancellation in a batch reaches the request that it names.
  const id = await session('2025-03-26');
  await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'sop_create', arguments: { name: 'batched', content: '# Batched\n\n1. **Work**\n\n   ```sh replay=safe\n   sleep 600\n   ```\n' } } });
  const long = post(agency.url(), { jsonrpc: '2.0', id: 'long', method: 'tools/call', params: { name: 'sop_execute', arguments: { name: 'batched' } } }, { 'mcp-session-id': id });
  const newest = async () => (await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'task_list', arguments: { kind: 'sop', limit: 1 } } })).json.result.structuredContent.tasks[0]?.state;
  while (await newest() !== 'running');
  await post(agency.url(), [{ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'long' } }], { 'mcp-session-id': id });
  await long;
  while (await newest() !== 'cancelled');
});

test('GET and DELETE are for the versions that have them, and GET for who takes a stream', async () => {
  const id = await session('2025-11-25');
  const status = async (method, headers) => {
    const stop = new AbortController();
    const answer = await fetch(agency.url(), { method, headers: { 'mcp-session-id': id, accept: 'text/event-stream', ...headers }, signal: stop.signal });
    stop.abort();
    return answer.status;
  };
  for (const method of ['GET', 'DELETE']) {
    assert.equal(await status(method, { 'mcp-protocol-version': '2026-07-28' }), 405);
    assert.equal(await status(method, { 'mcp-protocol-version': '1999-01-01' }), 400);
  }
  assert.equal(await status('GET', { accept: 'application/json' }), 406);
  assert.equal(await status('GET', { accept: '*/*', 'mcp-protocol-version': '2025-11-25' }), 200);
});

test('what is nearly right says what to change', async () => {
  const call = (method, params) => post(agency.url(), { jsonrpc: '2.0', id: 1, method, params }, { 'mcp-session-id': sessionId });
  const sessionId = await session('2025-11-25');
  const refused = async (method, params, code, words) => {
    const { json, text } = await call(method, params);
    assert.equal(json.error?.code, code, `${method} ${JSON.stringify(params)}: ${text}`);
    assert.match(json.error.message, words);
  };
  await refused('tools/list', { cursor: 'x' }, -32602, /begin without one/);
  await refused('resources/subscribe', { uri: 'file:///etc/passwd' }, -32002, /no resource/);
  await refused('resources/subscribe', { uri: '' }, -32002, /no resource/);
  assert.ok((await call('resources/subscribe', { uri: 'agency://memory/not-there-yet' })).json.result);
  await refused('completion/complete', { ref: { type: 'ref/resource', uri: 'agency://sop/{id}{?company}' }, argument: { name: 'x', value: '' } }, -32602, /one of its variables/);
  await call('tools/call', { name: 'sop_create', arguments: { name: 'greet', content: '---\ninputs: who\n---\n# Greet\n\n1. **Say**\n\n   ```sh\n   echo {{input.who}}\n   ```\n' } });
  const prompts = (await call('prompts/list', {})).json.result.prompts;
  assert.deepEqual(prompts.find((one) => one.name === 'greet')?.arguments, [{ name: 'who', required: true }], JSON.stringify(prompts));
  await refused('prompts/get', { name: 'greet' }, -32602, /must have 'who'/);
  await refused('prompts/get', { name: 'greet', arguments: ['Ann'] }, -32602, /must be an object/);
  assert.match((await call('prompts/get', { name: 'greet', arguments: { who: 'Ann' } })).text, /who: Ann/);
  await refused('tools/call', { name: 'sop_execute', arguments: { name: 'greet' }, task: 5 }, -32602, /params\.task/);
  await refused('server/discover', {}, -32601, /of version 2026-07-28, which _meta/);
  const listed = await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tasks/list' }, { 'mcp-protocol-version': '2025-06-18' });
  assert.match(listed.json.error.message, /tasks are of version 2025-11-25/);
  const subscribed = await modern(agency.url(), 'resources/subscribe', { uri: 'agency://queue/now' }, { headers: { 'mcp-name': '' } });
  assert.deepEqual([subscribed.status, subscribed.json.error.code], [404, -32601]);
  assert.match(subscribed.json.error.message, /subscriptions\/listen/);
  const version = await post(agency.url(), ping(1), { 'mcp-protocol-version': '2030-01-01' });
  assert.deepEqual([version.status, version.json.error.code], [400, -32022]);
  assert.match(version.json.error.message, /2026-07-28.*2025-11-25/);
  assert.equal((await post(agency.url(), ping(1.5))).json.error.code, -32600);
  assert.equal((await post(agency.url(), '{"jsonrpc":"2.0","id":1.0,"method":"ping"}')).status, 200, 'as some languages write 1');
  assert.equal((await post(agency.url(3000, '/mcp/'), ping(1))).status, 200);
  for (const [type, status] of [['application/json; charset="UTF-8"', 200], ['application/jsonx', 415], ['application/json; charset=utf-16', 415]])
    assert.equal((await raw({ 'content-type': type })).status, status, type);
});

test('a filter of subscriptions/listen that makes no sense, and the id of a subscription', async () => {
  for (const notifications of [undefined, 7, [], { toolsListChanged: 'yes' }, { resourceSubscriptions: 'agency://queue/now' }, { resourceSubscriptions: [7] }]) {
    const answer = await modern(agency.url(), 'subscriptions/listen', { notifications }, { headers: { accept: 'application/json, text/event-stream' } });
    assert.equal(answer.json?.error.code, -32602, JSON.stringify(notifications));
  }
  const own = await startAgency();
  const stream = await fetch(own.url(), {
    method: 'POST', headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'subscriptions/listen' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 77, method: 'subscriptions/listen', params: { notifications: { toolsListChanged: true, resourceSubscriptions: ['agency://queue/now', 'file:///x'] }, _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} } } }),
  });
  const [all] = await Promise.all([stream.text(), own.stop()]);
  const [ack, end] = [...all.matchAll(/^data: (.*)$/gm)].map(([, json]) => JSON.parse(json));
  assert.deepEqual(ack.params.notifications, { toolsListChanged: true, resourceSubscriptions: ['agency://queue/now'] }, 'only what will be told');
  assert.deepEqual([ack.params._meta, end.id, end.result], [{ 'io.modelcontextprotocol/subscriptionId': 77 }, 77, { resultType: 'complete', _meta: { 'io.modelcontextprotocol/subscriptionId': 77 } }]);
});

test('a traceparent that is none is not passed on; settings that make no sense are refused', async () => {
  for (const traceparent of ['x', '00-00000000000000000000000000000000-00f067aa0ba902b7-01', `00-${'f'.repeat(32)}-${'0'.repeat(16)}-01`, 'a'.repeat(3000)])
    assert.equal((await raw({ traceparent })).status, 200);
  for (const [key, value, say] of [['TOOL_TIMEOUTS', 'sop_execute', /TOOL=MS/], ['TOOL_TIMEOUTS', 'a=1', /TOOL=MS/], ['ACCESS_LOG', '/nowhere/at/all', /access_log/]])
    await assert.rejects(startAgency({ env: { [`AGENCY_GATEWAY_${key}`]: value } }), say);
});
