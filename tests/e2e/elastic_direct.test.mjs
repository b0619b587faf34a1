// Elastic in mode direct, against a server that answers as the API server of a cluster does.
import test from 'node:test';
import assert from 'node:assert/strict';
import { spawn, execFile } from 'node:child_process';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { setTimeout as pause } from 'node:timers/promises';
import { binary, legacyCall, freeOffset } from './agency.mjs';

const run = promisify(execFile);

// ---- The API server: Scale, Lease, lists of scalers; only the rights of our Role ----

const status = (code, reason, message) => ({ kind: 'Status', apiVersion: 'v1', status: 'Failure', code, reason, message });

class Api {
  constructor() {
    this.token = 'first';
    this.version = 100;
    this.replicas = 1;
    this.running = 1; // the kubelet follows at once unless `slowPods`
    this.lease = null;
    this.hpas = [];
    this.scaledObjects = null; // null: KEDA is not installed
    this.log = [];
    this.next = []; // what happens to the next requests: fn(req, res) => true when it answered
  }

  scale() {
    return { kind: 'Scale', apiVersion: 'autoscaling/v1',
      metadata: { name: 'agency', namespace: 'ns', resourceVersion: String(this.version) },
      spec: this.replicas ? { replicas: this.replicas } : {},
      status: { replicas: this.running, selector: 'app=agency' } };
  }

  answer(method, path, headers, body) {
    if (headers.authorization !== `Bearer ${this.token}`) return [401, status(401, 'Unauthorized', 'Unauthorized')];
    const scale = '/apis/apps/v1/namespaces/ns/statefulsets/agency/scale';
    const leases = '/apis/coordination.k8s.io/v1/namespaces/ns/leases';
    if (path === scale && method === 'GET') return this.gone ? [404, status(404, 'NotFound', 'statefulsets.apps "agency" not found')] : [200, this.scale()];
    if (path === scale && method === 'PATCH') {
      if (headers['content-type'] !== 'application/merge-patch+json') return [415, status(415, 'UnsupportedMediaType', '')];
      const patch = JSON.parse(body);
      if (patch.spec.replicas < 0) return [422, status(422, 'Invalid', 'spec.replicas: must be greater than or equal to 0')];
      if (patch.metadata?.resourceVersion && patch.metadata.resourceVersion !== String(this.version)) return [409, status(409, 'Conflict', 'the object has been modified')];
      this.replicas = this.running = patch.spec.replicas;
      this.version++;
      return [200, this.scale()];
    }
    if (path === `${leases}/agency-elastic` && method === 'GET') return this.lease ? [200, this.lease] : [404, status(404, 'NotFound', '')];
    if ((path === leases && method === 'POST') || (path === `${leases}/agency-elastic` && method === 'PUT')) {
      const lease = JSON.parse(body);
      if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/.test(lease.spec.renewTime)) return [400, status(400, 'BadRequest', 'MicroTime')];
      if (method === 'POST' && this.lease) return [409, status(409, 'AlreadyExists', '')];
      if (method === 'PUT' && lease.metadata.resourceVersion !== this.lease.metadata.resourceVersion) return [409, status(409, 'Conflict', '')];
      lease.metadata.resourceVersion = String(++this.version * 7);
      this.lease = lease;
      return [method === 'POST' ? 201 : 200, lease];
    }
    if (path === '/apis/autoscaling/v2/namespaces/ns/horizontalpodautoscalers' && method === 'GET')
      return [200, { kind: 'HorizontalPodAutoscalerList', items: this.hpas }];
    if (path === '/apis/keda.sh/v1alpha1/namespaces/ns/scaledobjects' && method === 'GET')
      return this.scaledObjects ? [200, { kind: 'ScaledObjectList', items: this.scaledObjects }]
        : [404, status(404, 'NotFound', 'the server could not find the requested resource')];
    return [403, status(403, 'Forbidden', `cannot ${method} ${path}`)];
  }

  on(req, res) {
    let body = '';
    req.on('data', (chunk) => { body += chunk; });
    req.on('end', () => {
      const odd = this.next.find((at) => at.match(req));
      if (odd) {
        if (odd.times && --odd.times === 0) this.next.splice(this.next.indexOf(odd), 1);
        if (odd.answer(req, res)) return;
      }
      const [code, answer] = this.answer(req.method, req.url, req.headers, body);
      this.log.push(`${req.method} ${req.url.split('/').pop()} ${code}`);
      res.writeHead(code, { 'content-type': 'application/json' });
      res.end(JSON.stringify(answer));
    });
  }

  async listen(tls) {
    this.server = tls ? createTlsServer(tls, (req, res) => this.on(req, res)) : createServer((req, res) => this.on(req, res));
    await new Promise((done) => this.server.listen(this.port ?? 0, '127.0.0.1', done));
    this.port = this.server.address().port;
  }

  async close() {
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }
}

// ---- The pod: the agent and elastic, as the chart starts them ----

async function start(pod, what, flags, env) {
  const child = spawn(binary, ['run', ...what, '--data', pod.data, `--port-offset=${pod.offset}`, ...flags],
    { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  child.output = '';
  child.gone = new Promise((done) => child.once('exit', done));
  pod.children.push(child);
  await new Promise((done, fail) => {
    const look = (chunk) => { child.output += chunk; if (child.output.includes('is ready')) done(); };
    child.stdout.on('data', look);
    child.stderr.on('data', look);
    child.gone.then((code) => fail(new Error(`${what} ended with ${code}: ${child.output}`)));
  });
  return child;
}

async function pod(t, api, env = {}, url = `http://127.0.0.1:${api.port}`) {
  const data = await mkdtemp(join(tmpdir(), 'agency-e2e-'));
  const at = { data, children: [], offset: await freeOffset() };
  at.token = join(data, 'token');
  await writeFile(at.token, 'first\n');
  at.env = { AGENCY_ELASTIC_MODE: 'direct', AGENCY_ELASTIC_STATEFULSET: 'agency', AGENCY_ELASTIC_NAMESPACE: 'ns',
    AGENCY_ELASTIC_API_URL: url, AGENCY_ELASTIC_TOKEN_FILE: at.token, AGENCY_ELASTIC_API_POLL_MS: '50',
    AGENCY_ELASTIC_POLL_MS: '50', AGENCY_ELASTIC_DOWN_STABILIZATION_MS: '500', AGENCY_ELASTIC_DOWN_PERIOD_MS: '100',
    AGENCY_ELASTIC_LEASE_S: '1', ...env };
  at.call = async (name, args = {}, port = 3006) => {
    const { json } = await legacyCall(new URL(`http://127.0.0.1:${port + at.offset}/mcp`), name, args);
    if (!json?.result) throw new Error(JSON.stringify(json));
    const { structuredContent = {}, content, isError } = json.result;
    return { ...structuredContent, text: content?.[0]?.text, error: isError };
  };
  t.after(async () => {
    for (const child of at.children) child.kill('SIGTERM');
    await Promise.all(at.children.map((child) => child.gone));
    await rm(data, { recursive: true, force: true });
  });
  await start(at, ['agent'], [], {});
  at.elastic = await start(at, ['elastic'], [], at.env);
  return at;
}

async function until(ask, enough, ms = 15000) {
  const end = Date.now() + ms;
  for (;;) {
    const answer = await Promise.resolve().then(ask).catch((error) => ({ failed: error.message }));
    if (enough(answer)) return answer;
    assert.ok(Date.now() < end, `still: ${JSON.stringify(answer).slice(0, 1500)}`);
    await pause(20);
  }
}

const submit = async (at, count) => {
  const ids = [];
  await until(() => at.call('queue_stats', {}, 3000), (answer) => answer.queue_length !== undefined);
  for (let i = 0; i < count; i++) ids.push((await at.call('task_submit', { kind: 'k', input: i }, 3000)).id);
  return ids;
};
const problem = (at, pattern) => until(() => at.call('get_scaling_status'), (answer) => pattern.test(answer.problem ?? ''));
const well = (at) => until(() => at.call('get_scaling_status'), (answer) => answer.mode && !answer.problem && answer.leads);

test('up by PATCH, down only after the last replica holds nothing', async (t) => {
  const api = new Api();
  await api.listen();
  t.after(() => api.close());
  const at = await pod(t, api);
  await start(at, ['worker', 'agency-4'], [], {}); // of the pod with the highest ordinal
  const gate = join(at.data, 'gate');
  await until(() => at.call('sop_create', { name: 'hold', content: `# hold

1. **Hold**

   \`\`\`sh
   until [ -e ${gate} ]; do sleep 0.05; done
   \`\`\`
` }, 3000), (answer) => answer.text && !answer.error);
  const held = await at.call('sop_execute', { name: 'hold', wait_ms: 0 }, 3000);
  const state = async (id) => (await at.call('task_get', { id }, 3000)).task?.state;
  await until(() => state(held.id), (now) => now === 'running');
  const ids = await submit(at, 24);
  await until(() => api.replicas, (replicas) => replicas === 5);
  for (const id of ids) await at.call('task_cancel', { id }, 3000);
  await until(() => at.elastic.output, (output) => /agency-4 is cordoned; it holds 1 leases/.test(output));
  const later = await at.call('sop_execute', { name: 'hold', wait_ms: 0 }, 3000);
  const began = Date.now();
  while (Date.now() - began < 700) {
    assert.equal(api.replicas, 5, 'not while it holds a lease');
    assert.equal(await state(later.id), 'ready', 'a cordoned worker gets nothing');
    await pause(20);
  }
  await writeFile(gate, '');
  await until(() => api.replicas, (replicas) => replicas === 1);
  assert.match(at.elastic.output, /agency-4 has drained: it holds no lease and gets none/);
  assert.equal((await at.call('task_get', { id: held.id }, 3000)).task.crashes, 0);
  await until(() => state(later.id), (now) => now === 'completed'); // the cordon was lifted
  await well(at);
});

test('every answer of the API server is understood, and nothing is scaled blindly', async (t) => {
  const api = new Api();
  await api.listen();
  t.after(() => api.close());
  const at = await pod(t, api);
  await well(at);
  api.token = 'second'; // rotated: the old one is refused until the file is written
  await problem(at, /401.*token_file/);
  await writeFile(at.token, 'second\n');
  await well(at);
  const once = (match, answer, times = 1) => api.next.push({ match, answer, times });
  const scale = (req) => req.url.endsWith('/scale');
  const patch = (req) => scale(req) && req.method === 'PATCH';
  const say = (code, reason) => (req, res) => { res.writeHead(code, { 'content-type': 'application/json' }); res.end(JSON.stringify(status(code, reason, ''))); return true; };
  api.gone = true;
  await problem(at, /404.*elastic\.statefulset/);
  api.gone = false;
  await well(at);
  const bad = { match: scale, answer: say(403, 'Forbidden') };
  api.next.push(bad);
  await problem(at, /403.*Role/);
  api.next.length = 0;
  await well(at);
  const cut = { match: scale, answer: (req, res) => { res.writeHead(200, { 'content-type': 'application/json', 'content-length': '1000' }); res.write('{"kind":'); setImmediate(() => res.destroy()); return true; } };
  api.next.push(cut);
  await problem(at, /no answer that can be read/);
  api.next.length = 0;
  await well(at);
  const slow = { match: scale, answer: () => true };
  api.next.push(slow);
  await problem(at, /no answer that can be read.*in time/);
  api.next.length = 0;
  once(patch, say(409, 'Conflict'));
  once(patch, say(422, 'Invalid'));
  await submit(at, 11);
  await until(() => api.replicas, (replicas) => replicas === 3);
  assert.match(at.elastic.output, /409; somebody else changed it/);
  assert.match(at.elastic.output, /422; the API server does not take this number/);
  await api.close(); // away, and back
  await problem(at, /no answer/);
  assert.equal(api.replicas, 3);
  await api.listen();
  await well(at);
});

test('a rival is found and refused; there is one leader, and a dead one is followed', async (t) => {
  const api = new Api();
  api.hpas = [{ metadata: { name: 'other' }, spec: { scaleTargetRef: { kind: 'StatefulSet', name: 'someone' } } },
    { metadata: { name: 'agency-hpa' }, spec: { scaleTargetRef: { kind: 'StatefulSet', name: 'agency' } } }];
  await api.listen();
  t.after(() => api.close());
  const at = await pod(t, api, { AGENCY_ELASTIC_IDENTITY: 'one' });
  await submit(at, 30);
  await problem(at, /HorizontalPodAutoscaler agency-hpa scales the same StatefulSet/);
  assert.ok(!api.log.some((line) => line.startsWith('PATCH')), 'nothing was changed');
  api.hpas.pop();
  // A ScaledObject's target is a Deployment unless it says otherwise.
  const deployment = { metadata: { name: 'of-a-deployment' }, spec: { scaleTargetRef: { name: 'agency' } } };
  api.scaledObjects = [deployment, { metadata: { name: 'by-keda' }, spec: { scaleTargetRef: { kind: 'StatefulSet', name: 'agency' } } }];
  await problem(at, /ScaledObject by-keda scales the same StatefulSet/);
  assert.ok(!api.log.some((line) => line.startsWith('PATCH')), 'nothing was changed');
  api.scaledObjects = [deployment];
  await until(() => api.replicas, (replicas) => replicas === 5);
  assert.equal(api.lease.spec.holderIdentity, 'one');
  const two = await pod(t, api, { AGENCY_ELASTIC_IDENTITY: 'two' });
  await problem(two, /one leads; this one waits/);
  at.elastic.kill('SIGKILL');
  await until(() => api.lease.spec.holderIdentity, (holder) => holder === 'two');
  assert.equal(api.lease.spec.leaseTransitions, 1);
});

test('two elastics on one volume: the second is refused', async (t) => {
  const api = new Api();
  await api.listen();
  t.after(() => api.close());
  const at = await pod(t, api);
  await assert.rejects(start({ ...at, offset: at.offset + 7, children: [] }, ['elastic'], [], at.env), /ended with [1-9]/);
});

test('settings that cannot be are refused at the start, with what to change', async (t) => {
  const data = await mkdtemp(join(tmpdir(), 'agency-e2e-'));
  t.after(() => rm(data, { recursive: true, force: true }));
  for (const [env, says] of [
    [{ AGENCY_ELASTIC_MIN_REPLICAS: '9' }, /min_replicas 9 is more than max_replicas 5/],
    [{ AGENCY_ELASTIC_MODE: 'direct' }, /mode direct needs elastic\.statefulset/],
    [{ AGENCY_ELASTIC_MODE: 'direct', AGENCY_ELASTIC_STATEFULSET: 'agency', AGENCY_ELASTIC_NAMESPACE_FILE: join(data, 'none') }, /needs elastic\.namespace, or the file/],
    [{ AGENCY_ELASTIC_MODE: 'loca' }, /local/],
    [{ AGENCY_ELASTIC_TOLERANCE: '2' }, /tolerance/]])
    await assert.rejects(start({ data, offset: 20000 + Math.floor(Math.random() * 20000), children: [] }, ['elastic'], [], env), says);
});

test('the certificate must lead to the CA file, which may be rotated', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'agency-e2e-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const make = (name) => run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', '/CN=kubernetes', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', join(dir, `${name}.key`), '-out', join(dir, `${name}.crt`)]);
  await make('a');
  await make('b');
  const tls = async (name) => ({ key: await readFile(join(dir, `${name}.key`)), cert: await readFile(join(dir, `${name}.crt`)) });
  const api = new Api();
  await api.listen(await tls('a'));
  t.after(() => api.close());
  const ca = join(dir, 'ca.crt');
  await writeFile(ca, await readFile(join(dir, 'b.crt')));
  const at = await pod(t, api, { AGENCY_ELASTIC_CA_FILE: ca }, `https://127.0.0.1:${api.port}`);
  await problem(at, /no answer.*certificate/i);
  assert.equal(api.log.length, 0, 'the token was not shown to a stranger');
  await writeFile(ca, await readFile(join(dir, 'a.crt')));
  await well(at);
  await api.close();
  await api.listen(await tls('b'));
  await problem(at, /certificate/i);
  await writeFile(ca, await readFile(join(dir, 'b.crt')));
  await well(at);
});
