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

test('a traceparent that is none is not passed on; settings that make no sense are refused', async () => {
  for (const traceparent of ['x', '00-00000000000000000000000000000000-00f067aa0ba902b7-01', `00-${'f'.repeat(32)}-${'0'.repeat(16)}-01`, 'a'.repeat(3000)])
    assert.equal((await raw({ traceparent })).status, 200);
  for (const [key, value, say] of [['TOOL_TIMEOUTS', 'sop_execute', /TOOL=MS/], ['TOOL_TIMEOUTS', 'a=1', /TOOL=MS/], ['ACCESS_LOG', '/nowhere/at/all', /access_log/]])
    await assert.rejects(startAgency({ env: { [`AGENCY_GATEWAY_${key}`]: value } }), say);
});
