// Bearer tokens of an authorisation server: who is let in, who is not, and what clients are told.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { generateKeyPairSync, createSign, createHmac, sign as signRaw } from 'node:crypto';
import { mkdtemp, writeFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer } from 'node:http';
import { startAgency, legacyCall, post } from './agency.mjs';

const issuer = 'https://login.example', audience = 'https://agency.example/mcp';
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const weak = generateKeyPairSync('rsa', { modulusLength: 1024 });
const stranger = generateKeyPairSync('rsa', { modulusLength: 2048 });
const jwk = (pair, kid) => ({ ...pair.publicKey.export({ format: 'jwk' }), kid, use: 'sig' });
const text = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

function token(claims = {}, { alg = 'RS256', kid = 'r', pair = alg === 'ES256' ? ec : rsa, head = {} } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const body = `${text({ alg, kid, typ: 'JWT', ...head })}.${text({ iss: issuer, aud: audience, sub: 'ada', exp: now + 300, scope: 'agency:operate', companies: ['acme'], ...claims })}`;
  if (alg === 'none') return `${body}.`;
  if (alg === 'HS256') return `${body}.${createHmac('sha256', pair.publicKey.export({ type: 'spki', format: 'pem' })).update(body).digest('base64url')}`;
  if (alg === 'ES256') return `${body}.${signRaw('sha256', Buffer.from(body), { key: pair.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  return `${body}.${createSign('sha256').update(body).sign(pair.privateKey).toString('base64url')}`;
}

let agency, folder, keys;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'agency-oauth-'));
  keys = join(folder, 'jwks.json');
  await writeFile(keys, JSON.stringify({ keys: [jwk(rsa, 'r'), jwk(ec, 'e'), jwk(weak, 'w')] }));
  agency = await startAgency({ env: { AGENCY_GATEWAY_OAUTH_KEYS: keys, AGENCY_GATEWAY_OAUTH_ISSUER: issuer, AGENCY_GATEWAY_OAUTH_AUDIENCE: audience } });
});
after(async () => {
  await agency.stop();
  await rm(folder, { recursive: true, force: true });
});

const list = (bearer, headers = {}) => post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/list' },
  { ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }), ...headers });
const now = () => Math.floor(Date.now() / 1000);

test('who has a good token comes in, as the principal and for the companies it names', async () => {
  for (const good of [token(), token({}, { alg: 'ES256', kid: 'e' }), token({ aud: ['x', audience] }), token({}, { head: { kid: undefined } }), token({ exp: now() - 10 })])
    assert.equal((await list(good)).status, 200);
  const call = (bearer, args) => post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'task_submit', arguments: args } }, { authorization: `Bearer ${bearer}` });
  const made = await call(token(), { kind: 'a' });
  assert.ok(!made.json.result.isError, made.text);
  const foreign = await call(token(), { kind: 'a', company: 'other' });
  assert.equal(foreign.json.result.isError, true);
  // A reader does not write, and is told which scopes to come back with.
  const reader = await call(token({ scope: 'agency:read' }), { kind: 'a' });
  assert.equal(reader.status, 403, reader.text);
  assert.match(reader.headers.get('www-authenticate'), /scope="agency:read agency:operate", error="insufficient_scope"/);
  const scale = await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'scale_agents', arguments: { count: 1 } } }, { authorization: `Bearer ${token()}` });
  assert.match(scale.headers.get('www-authenticate') ?? '', /agency:admin", error="insufficient_scope"/, scale.text);
  assert.match(scale.json.error.message, /agency:admin/);
});

test('everything else is refused', async () => {
  const bad = {
    'no signature': token({}, { alg: 'none' }),
    'signed with the public key as a secret': token({}, { alg: 'HS256' }),
    'a key that is not in the set': token({}, { pair: stranger }),
    'the wrong key of the set': token({}, { kid: 'e' }),
    'a key that is too short': token({}, { pair: weak, kid: 'w' }),
    'another issuer': token({ iss: 'https://evil.example' }),
    'another audience': token({ aud: 'https://other.example/mcp' }),
    'no audience': token({ aud: undefined }),
    'expired': token({ exp: now() - 60 }),
    'no end': token({ exp: undefined }),
    'not yet': token({ nbf: now() + 600 }),
    'an end that is text': token({ exp: '9999999999' }),
    'no subject': token({ sub: undefined }),
    'no company': token({ companies: undefined }),
    'companies of nothing': token({ companies: [] }),
    'a critical extension': token({}, { head: { crit: ['b64'], b64: false } }),
    'huge': token({ x: 'x'.repeat(20000) }),
    'not a token': 'x', 'dots': '..', 'four parts': `${token()}.x`, 'padding': `${token()}=`,
  };
  for (const [what, bearer] of Object.entries(bad)) {
    const answer = await list(bearer);
    assert.equal(answer.status, 401, `${what}: ${answer.text}`);
    assert.match(answer.headers.get('www-authenticate'), /error="invalid_token"/, what);
  }
  const [head, body, signature] = token().split('.');
  const claims = JSON.parse(Buffer.from(body, 'base64url'));
  const altered = `${head}.${text({ ...claims, companies: '*' })}.${signature}`;
  assert.equal((await list(altered)).status, 401);
  assert.equal((await list(undefined, { authorization: 'Basic eDp4' })).status, 401);
});

test('clients are told where to get a token, and which scopes', async () => {
  const answer = await list();
  assert.equal(answer.status, 401);
  const challenge = answer.headers.get('www-authenticate');
  assert.match(challenge, /^Bearer resource_metadata="https:\/\/agency\.example\/\.well-known\/oauth-protected-resource\/mcp", scope="agency:read agency:operate"$/);
  for (const path of ['', '/mcp', '/mcp/brain', '/sse'].map((resource) => `/.well-known/oauth-protected-resource${resource}`)) {
    const metadata = await (await fetch(agency.url(3000, path))).json();
    assert.equal(metadata.resource, audience);
    assert.deepEqual(metadata.authorization_servers, [issuer]);
  }
  const small = await list(token({ scope: 'email' }));
  assert.equal(small.status, 403);
  assert.match(small.headers.get('www-authenticate'), /error="insufficient_scope"/);
  assert.equal((await fetch(agency.url(3000, '/livez'))).status, 200, 'probes need no token');
});

test('an endpoint below a path of its proxy is found by that path', async (t) => {
  const below = 'https://example.org/team/agency/mcp';
  const own = await startAgency({ env: { AGENCY_GATEWAY_OAUTH_KEYS: keys, AGENCY_GATEWAY_OAUTH_ISSUER: issuer, AGENCY_GATEWAY_OAUTH_AUDIENCE: below } });
  t.after(() => own.stop());
  const answer = await post(own.url(), { jsonrpc: '2.0', id: 1, method: 'ping' });
  const [, where] = /resource_metadata="([^"]*)"/.exec(answer.headers.get('www-authenticate'));
  assert.equal(where, 'https://example.org/.well-known/oauth-protected-resource/team/agency/mcp');
  const metadata = await (await fetch(own.url(3000, new URL(where).pathname))).json();
  assert.equal(metadata.resource, below);
});

test('a key that is taken out of the file opens nothing any more', async () => {
  const bearer = token({}, { alg: 'ES256', kid: 'e' });
  assert.equal((await list(bearer)).status, 200);
  await writeFile(keys, JSON.stringify({ keys: [jwk(rsa, 'r')] }));
  assert.equal((await list(bearer)).status, 401);
  assert.equal((await list(token())).status, 200);
});

// An authorisation server that publishes its keys, and counts how often it is asked.
async function keyServer(paths) {
  const asked = [];
  const server = createServer((request, response) => {
    asked.push(request.url);
    const body = paths()[request.url];
    response.writeHead(body ? 200 : 404, { 'content-type': 'application/json' });
    response.end(body ? JSON.stringify(body) : '{}');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { asked, url: `http://127.0.0.1:${server.address().port}`, stop: () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); }) };
}
const listAt = (at, bearer, port) => post(at.url(port), { jsonrpc: '2.0', id: 1, method: 'tools/list' }, { authorization: `Bearer ${bearer}` });

test('keys are fetched from an URL, anew when a token names an unknown one, and not too often', async () => {
  let served = [jwk(rsa, 'r')];
  const server = await keyServer(() => ({ '/keys': { keys: served } }));
  const own = await startAgency({ env: { AGENCY_GATEWAY_OAUTH_KEYS: `${server.url}/keys`, AGENCY_GATEWAY_OAUTH_ISSUER: issuer, AGENCY_GATEWAY_OAUTH_AUDIENCE: audience, AGENCY_GATEWAY_OAUTH_UNKNOWN_MS: '500' } });
  try {
    assert.equal((await listAt(own, token())).status, 200);
    served = [jwk(rsa, 'r'), jwk(ec, 'fresh')];
    const fresh = token({}, { alg: 'ES256', kid: 'fresh' });
    let answer;
    for (const until = Date.now() + 20000; Date.now() < until && (answer = await listAt(own, fresh)).status !== 200;);
    assert.equal(answer.status, 200, 'the request itself waits for the keys, or the next one does');
    const before = server.asked.length, began = Date.now();
    await Promise.all(Array.from({ length: 200 }, (_, i) => listAt(own, token({}, { kid: `made-up-${i}` })).then(({ status }) => assert.equal(status, 401))));
    // Each pillar's gateway asks for itself, but only one of them was asked here.
    assert.ok(server.asked.length - before <= 2 + Math.ceil((Date.now() - began) / 500), `${server.asked.length - before} fetches`);
    const foreign = server.asked.length;
    await listAt(own, token({ iss: 'https://other.example' }, { kid: 'unknown' }));
    assert.equal(server.asked.length, foreign, 'a token of another issuer is not worth a fetch');
    await server.stop();
    assert.equal((await listAt(own, fresh)).status, 200, 'what was fetched stays');
  } finally {
    await own.stop();
  }
});

// An endpoint that answers when the test says so.
test('who names an unknown key waits for one fetch, however slow; more than may wait do not, and nobody does for an endpoint that is down', { timeout: 60000 }, async () => {
  const keys = { keys: [jwk(rsa, 'r')] }, unknownMs = 100, most = 2;
  const held = [];
  let hold = false, asked = 0, heard = () => {};
  const server = createServer((request, response) => {
    asked++;
    const answer = () => response.end(JSON.stringify(keys));
    if (hold) held.push(answer); else answer();
    heard();
  });
  const askedTimes = (count) => new Promise((resolve) => { heard = () => asked >= count && resolve(); heard(); });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const own = await startAgency({ env: { AGENCY_GATEWAY_OAUTH_KEYS: `http://127.0.0.1:${server.address().port}/keys`, AGENCY_GATEWAY_OAUTH_ISSUER: issuer, AGENCY_GATEWAY_OAUTH_AUDIENCE: audience,
    AGENCY_GATEWAY_OAUTH_UNKNOWN_MS: `${unknownMs}`, AGENCY_GATEWAY_OAUTH_FETCH_MS: '60000', AGENCY_GATEWAY_OAUTH_MAX_WAITING: `${most}` } });
  const unknown = () => listAt(own, token({}, { alg: 'ES256', kid: 'late' }));
  // Refused at once as long as the last fetch is too fresh: asks until one of them begins a fetch.
  const beginFetch = async () => {
    const seen = asked;
    for (const until = Date.now() + 20000; Date.now() < until;) {
      const answer = unknown();
      const first = await Promise.race([answer.then(() => 'answered'), askedTimes(seen + 1).then(() => 'asked')]);
      if (first === 'asked') return { answer, began: Date.now() };
    }
    throw new Error('no fetch begins');
  };
  try {
    // Each pillar's gateway fetches for itself at its start: those fetches must not be taken for ours.
    for (const port of [3000, 3002, 3004, 3005, 3006]) assert.equal((await listAt(own, token(), port)).status, 200);
    hold = true;
    const { answer, began } = await beginFetch(), before = asked;
    const waits = Array.from({ length: most + 3 }, unknown); // one waits beside the first, the others may not
    let refused = 0; // of five, one is let wait
    await new Promise((resolve) => waits.forEach((one) => one.then(({ status }) => { assert.equal(status, 401); if (++refused === 4) resolve(); }, () => {}))); // what fails below is said, not that its agency is gone
    assert.equal((await listAt(own, token())).status, 200, 'a known key waits for nothing');
    while (Date.now() - began < 2 * unknownMs) await listAt(own, token()); // longer than oauth_unknown_ms
    const second = askedTimes(before + 1).then(() => 'asked again');
    held.shift()();
    assert.equal((await Promise.race([answer, second])).status, 401, 'told no, without another fetch');
    for (const { status } of await Promise.all(waits)) assert.equal(status, 401);
    assert.equal(asked, before);
    // The key is there when the slow answer comes.
    const found = await beginFetch();
    keys.keys.push(jwk(ec, 'late'));
    held.shift()();
    assert.equal((await found.answer).status, 200);
    // Down: no key, no connection.
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    const made = () => listAt(own, token({}, { kid: 'made-up' }));
    for (const until = Date.now() + 2 * unknownMs; Date.now() < until;) assert.equal((await made()).status, 401);
    assert.equal((await unknown()).status, 200, 'what was fetched stays');
  } finally {
    for (const answer of held) answer();
    await own.stop();
    server.close();
    server.closeAllConnections();
  }
});

test('without keys the issuer\'s metadata say where they are', async () => {
  let base;
  const server = await keyServer(() => ({
    '/tenant/.well-known/openid-configuration': { issuer: `${base}/tenant`, jwks_uri: `${base}/found` },
    '/found': { keys: [jwk(rsa, 'r')] },
  }));
  base = server.url;
  const own = await startAgency({ env: { AGENCY_GATEWAY_OAUTH_ISSUER: `${base}/tenant`, AGENCY_GATEWAY_OAUTH_AUDIENCE: audience } });
  try {
    let answer;
    for (const until = Date.now() + 20000; Date.now() < until && (answer = await listAt(own, token({ iss: `${base}/tenant` }))).status !== 200;);
    assert.equal(answer.status, 200);
    assert.ok(server.asked.includes('/.well-known/oauth-authorization-server/tenant'), server.asked.join());
  } finally {
    await own.stop();
    await server.stop();
  }
});

test('keys that would come in clear over the network are refused at the start', async () => {
  for (const env of [{ AGENCY_GATEWAY_OAUTH_KEYS: 'http://login.example/keys', AGENCY_GATEWAY_OAUTH_ISSUER: issuer },
    { AGENCY_GATEWAY_OAUTH_ISSUER: 'http://login.example' }, { AGENCY_GATEWAY_OAUTH_KEYS: 'http://localhost.evil.example/keys', AGENCY_GATEWAY_OAUTH_ISSUER: issuer },
    { AGENCY_GATEWAY_OAUTH_KEYS: 'http://localhost:80@login.example/keys', AGENCY_GATEWAY_OAUTH_ISSUER: issuer }, { AGENCY_GATEWAY_OAUTH_KEYS: 'http://[::1]@login.example/keys', AGENCY_GATEWAY_OAUTH_ISSUER: issuer }])
    await assert.rejects(startAgency({ env: { ...env, AGENCY_GATEWAY_OAUTH_AUDIENCE: audience } }), /by https only/);
});
