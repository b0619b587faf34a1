// A whole agency for one test: `agency up` on a data directory and ports of its own.
import { spawn, execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { setTimeout as pause } from 'node:timers/promises';
import net from 'node:net';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
export const binary = process.env.AGENCY_BINARY ?? join(root, 'build', 'agency');
export const source = root;
const run = promisify(execFile);

// An offset at which the ports of all pillars are free; below those that outgoing connections get.
export async function freeOffset() {
  for (let tries = 0; tries < 50; tries++) {
    const offset = 5000 + Math.floor(Math.random() * 24000);
    const free = await Promise.all([3000, 3002, 3004, 3005, 3006].map((port) => new Promise((resolve) => {
      const probe = net.createServer();
      probe.once('error', () => resolve(false));
      probe.listen(port + offset, '127.0.0.1', () => probe.close(() => resolve(true)));
    })));
    if (free.every(Boolean)) return offset;
  }
  throw new Error('no free ports');
}

export async function startAgency({ flags = [], env = {}, data, offset } = {}) {
  data ??= await mkdtemp(join(tmpdir(), 'agency-e2e-'));
  offset ??= await freeOffset();
  const child = spawn(binary, ['up', '--data', data, `--port-offset=${offset}`, ...flags],
    { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const exited = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not ready in 20 s:\n${output}`)), 20000);
    const look = (chunk) => {
      output += chunk;
      if (output.includes('agency is ready')) { clearTimeout(timer); resolve(); }
    };
    child.stdout.on('data', look);
    child.stderr.on('data', look);
    exited.then((code) => { clearTimeout(timer); reject(new Error(`ended with ${code}:\n${output}`)); });
  });
  return {
    data, offset, child, exited,
    output: () => output,
    url: (port = 3000, path = '/mcp') => new URL(`http://127.0.0.1:${port + offset}${path}`),
    cli: async (...words) => {
      try {
        const { stdout, stderr } = await run(binary, [...words, '--data', data], { timeout: 60000 });
        return { code: 0, stdout, stderr };
      } catch (error) {
        return { code: error.code, stdout: error.stdout ?? '', stderr: error.stderr ?? '' };
      }
    },
    stop: async ({ keep = false } = {}) => {
      if (child.exitCode === null) child.kill('SIGTERM');
      await exited;
      if (!keep) await rm(data, { recursive: true, force: true });
    },
  };
}

// One JSON-RPC message by plain HTTP.
export async function post(url, body, headers = {}) {
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  const text = await answer.text();
  let json;
  try { json = JSON.parse(text); } catch { /* not every answer has a body */ }
  return { status: answer.status, headers: answer.headers, text, json };
}

const meta = (more = {}) => ({
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {}, ...more,
});

// A request of the modern era, with the headers it needs.
export function modern(url, method, params = {}, { id = 1, headers = {}, more } = {}) {
  const named = params.name ?? params.uri;
  return post(url, { jsonrpc: '2.0', id, method, params: { ...params, _meta: meta(more) } }, {
    'mcp-protocol-version': '2026-07-28', 'mcp-method': method,
    ...(named ? { 'mcp-name': named } : {}), ...headers,
  });
}

export function legacyCall(url, name, args = {}, id = 1) {
  return post(url, { jsonrpc: '2.0', id, method: 'tools/call', params: { name, arguments: args } });
}

// A tool as a test wants it: what it answers, its text, and whether it is an error.
export async function callTool(agency, name, args = {}, port = 3000) {
  const { json } = await legacyCall(agency.url(port), name, args);
  if (!json?.result) throw new Error(JSON.stringify(json));
  const { structuredContent = {}, content, isError } = json.result;
  return { ...structuredContent, text: content?.[0]?.text, error: isError };
}

// Asks until it is enough. While something is killed and comes back an answer may fail: then it is
// { failed: why }.
export async function askUntil(ask, enough, ms = 20000) {
  const end = Date.now() + ms;
  for (;;) {
    const answer = await Promise.resolve().then(ask).catch((error) => ({ failed: error.message }));
    if (enough(answer)) return answer;
    if (Date.now() >= end) throw new Error(`still: ${JSON.stringify(answer).slice(0, 2000)}`);
    await pause(20);
  }
}

// The only question of what waits for input, and an answer to it.
export const asked = (inputRequests) => Object.values(inputRequests)[0];
export const answerTo = (inputRequests, answer) => ({ [Object.keys(inputRequests)[0]]: answer });

export const pidOf = async (agency, name) =>
  Number(await readFile(join(agency.data, 'run', `${name}.pid`), 'utf8'));
