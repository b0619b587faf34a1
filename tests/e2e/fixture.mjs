// The gateway in front of the fixture pillar (tests/fixture.c), on a free port.
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import net from 'node:net';
import { source } from './agency.mjs';

const binary = process.env.FIXTURE_BINARY ?? join(source, 'build', 'fixture');

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = net.createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

export async function startFixture({ port, data } = {}) {
  port ??= await freePort();
  const kept = data !== undefined;
  data ??= await mkdtemp(join(tmpdir(), 'agency-fixture-'));
  const child = spawn(binary, [String(port), data], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const exited = new Promise((resolve) => child.once('exit', resolve));
  await new Promise((resolve, reject) => {
    const look = (chunk) => {
      output += chunk;
      if (output.includes('fixture is ready')) resolve();
    };
    child.stdout.on('data', look);
    child.stderr.on('data', look);
    exited.then((code) => reject(new Error(`the fixture ended with ${code}:\n${output}`)));
  });
  const base = `http://127.0.0.1:${port}`;
  for (const until = Date.now() + 10000; ;) { // the tools are known a moment later
    if ((await fetch(`${base}/readyz`)).ok) break;
    if (Date.now() > until) throw new Error('the fixture does not get ready');
  }
  return {
    port, data,
    url: (path = '/mcp') => new URL(base + path),
    stop: async () => {
      child.kill('SIGTERM');
      await exited;
      if (!kept) await rm(data, { recursive: true, force: true });
    },
  };
}
