// A headless Chromium for one test, driven over its debugging pipe: nothing to install but Debian's
// chromium-headless-shell (or chromium).
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// Where there is one; null: there is none.
export function chromium() {
  const named = process.env.CHROMIUM ? [process.env.CHROMIUM] : [];
  for (const path of [...named, '/usr/bin/chromium-headless-shell', '/usr/bin/chromium', '/usr/bin/chromium-browser']) {
    try { accessSync(path, constants.X_OK); return path; } catch { /* the next */ }
  }
  return null;
}

export async function openBrowser({ width = 1280, height = 900, dark = false } = {}) {
  const home = await mkdtemp(join(tmpdir(), 'agency-chromium-'));
  const child = spawn(chromium(), ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--hide-scrollbars',
    '--no-first-run', '--disable-background-networking', '--disable-component-update', '--remote-debugging-pipe', `--user-data-dir=${home}`],
  { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  const waiting = new Map(), heard = [];
  let next = 1, rest = '', session;
  child.stdio[4].setEncoding('utf8').on('data', (text) => {
    const parts = (rest + text).split('\0');
    rest = parts.pop();
    for (const part of parts) {
      const message = JSON.parse(part);
      if (!message.id) heard.push(message);
      else if (message.error) waiting.get(message.id).reject(new Error(message.error.message));
      else waiting.get(message.id).resolve(message.result);
      waiting.delete(message.id);
    }
  });
  gone.then((code) => { for (const one of waiting.values()) one.reject(new Error(`chromium ended with ${code}`)); });
  const send = (method, params = {}) => new Promise((resolve, reject) => {
    waiting.set(next, { resolve, reject });
    child.stdio[3].write(`${JSON.stringify({ id: next++, method, params, sessionId: session })}\0`);
  });
  const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
  session = (await send('Target.attachToTarget', { targetId, flatten: true })).sessionId;
  await send('Page.enable');
  await send('Runtime.enable');
  await send('Network.enable');
  await send('Log.enable');
  const size = (w, h, isDark = dark) => Promise.all([
    send('Emulation.setDeviceMetricsOverride', { width: w, height: h, deviceScaleFactor: 1, mobile: false }),
    send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: isDark ? 'dark' : 'light' }] })]);
  await size(width, height);

  const run = async (expression) => {
    const answer = await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.exception?.description ?? answer.exceptionDetails.text);
    return answer.result.value;
  };
  return {
    size, run, heard,
    go: (url) => send('Page.navigate', { url: String(url) }),
    // Waits until the expression is true; looks again whenever the page changes.
    until: (expression, ms = 30000) => run(`new Promise((resolve, reject) => {
      const look = () => { let value; try { value = (${expression}); } catch { value = false; } if (value) { watch.disconnect(); clearTimeout(alarm); resolve(value); } };
      const watch = new MutationObserver(look);
      const alarm = setTimeout(() => { watch.disconnect(); reject(new Error(${JSON.stringify(`in vain: ${expression}`)} + '\\n' + document.body.innerText.slice(0, 3000))); }, ${ms});
      watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
      look();
    })`),
    picture: async (whole = false) => Buffer.from((await send('Page.captureScreenshot', { format: 'png', captureBeyondViewport: whole })).data, 'base64'),
    // What went wrong in the page: exceptions, blocked content, failed loads.
    complaints: () => heard.filter((one) => one.method === 'Runtime.exceptionThrown' || (one.method === 'Log.entryAdded' && one.params.entry.level === 'error'))
      .map((one) => JSON.stringify(one.params.entry?.text ?? one.params.exceptionDetails.exception?.description)),
    close: async () => {
      child.kill('SIGKILL');
      await gone;
      for (const pipe of child.stdio) pipe?.destroy(); // its own children hold the other ends
      await rm(home, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
