// From `agency up` to the first good MCP answer, and the resident memory of each process once idle.
//     node tests/e2e/bench_start.mjs [ROUNDS]
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { binary, legacyCall } from './agency.mjs';

const rounds = Number(process.argv[2] ?? 5);
const times = [];
const memory = new Map();
for (let round = 0; round < rounds; round++) {
  const data = await mkdtemp(join(tmpdir(), 'agency-start-'));
  const offset = 20000 + round * 10;
  const url = `http://127.0.0.1:${3000 + offset}/mcp`;
  const began = performance.now();
  const child = spawn(binary, ['up', '--data', data, `--port-offset=${offset}`], { stdio: 'ignore' });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  for (;;) {
    try {
      const answer = await legacyCall(url, 'brain_list', {});
      if (answer.json?.result && !answer.json.result.isError) break;
    } catch { /* not listening yet */ }
  }
  times.push(performance.now() - began);
  for (const file of await readdir(join(data, 'run'))) {
    if (!file.endsWith('.pid')) continue;
    const status = await readFile(`/proc/${(await readFile(join(data, 'run', file), 'utf8')).trim()}/status`, 'utf8');
    memory.set(file.slice(0, -4), Number(/VmRSS:\s+(\d+)/.exec(status)[1]));
  }
  child.kill('SIGTERM');
  await exited;
  await rm(data, { recursive: true, force: true });
}
times.sort((a, b) => a - b);
console.log(`start to first good tools/call of the brain: median ${times[rounds >> 1].toFixed(0)} ms (${rounds} rounds)`);
let total = 0;
for (const [name, kib] of memory) { console.log(`${name.padEnd(10)} ${(kib / 1024).toFixed(1)} MiB resident`); total += kib; }
console.log(`all        ${(total / 1024).toFixed(1)} MiB`);
