// A pod as the kubelet runs it: volumes, environment, probes, restarts, and the end by preStop, SIGTERM
// and, after the grace period, SIGKILL. Everything comes from the rendered objects.
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { canBeOthers, Container } from "./container.mjs";
import { isolated, nodeAddress } from "./network.mjs";

function get(address, { path, port, httpHeaders = [] }, timeoutMs) {
  return new Promise((resolve) => {
    const headers = Object.fromEntries(httpHeaders.map(({ name, value }) => [name, value]));
    const asked = request({ host: address, port, path, headers, timeout: timeoutMs, agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode >= 200 && answer.statusCode < 400);
    });
    asked.on("timeout", () => asked.destroy());
    asked.on("error", () => resolve(false));
    asked.end();
  });
}

export class Pod {
  // cluster gives image, network, dir, claims, secret(), token(), hostsChanged() and names().
  constructor(cluster, { name, namespace, labels, spec }) {
    Object.assign(this, { cluster, name, namespace, labels, spec });
    this.address = cluster.network.freeAddress(this);
    this.containers = [];
    this.killed = []; // containers that had to be killed at the end of the grace period
    this.failedProbes = [];
    this.leaving = false;
    this.held = new Set(); // containers that are not started again, for tests
  }

  async start() {
    const { cluster } = this;
    this.dir = mkdtempSync(join(cluster.dir, "p")); // short: paths of sockets are
    this.net = await cluster.network.join(this);
    this.hosts = join(this.dir, "hosts");
    writeFileSync(this.hosts, "");
    cluster.podsChanged();
    const volumes = Object.fromEntries((this.spec.volumes ?? []).map((volume) => [volume.name, this.volume(volume)]));
    this.containers = this.spec.containers.map((spec) => new Container({
      image: cluster.image, enter: this.net.enter, spec, env: this.environment(spec),
      mounts: [...(spec.volumeMounts ?? []).map((mount) => this.mount(volumes, mount)), { source: this.hosts, path: "/etc/hosts", readOnly: true, isFile: true }],
      replace: (text) => this.outside(text) }));
    for (const { mounts } of this.containers) this.nest(mounts.sort((a, b) => a.path.length - b.path.length));
    this.lives = this.containers.map((container) => this.keep(container));
  }

  // ---- What it is given ----

  volume({ name, persistentVolumeClaim, secret, emptyDir, projected }) {
    if (persistentVolumeClaim) return this.owned(join(this.cluster.claims, this.namespace, persistentVolumeClaim.claimName), true);
    const dir = this.owned(join(this.dir, name), Boolean(emptyDir));
    // As the kubelet lays it out: links into a directory that can be replaced at once.
    const put = (path, data, mode) => {
      const at = join(dir, "..1", path), top = path.split("/")[0];
      mkdirSync(dirname(at), { recursive: true });
      writeFileSync(at, data);
      if (canBeOthers) chownSync(at, 0, this.spec.securityContext.fsGroup);
      chmodSync(at, mode ?? 0o644);
      for (const [link, target] of [["..data", "..1"], [top, `..data/${top}`]]) if (!existsSync(join(dir, link))) symlinkSync(target, join(dir, link));
    };
    if (secret) {
      const data = this.cluster.secret(this.namespace, secret.secretName);
      const items = secret.items ?? Object.keys(data).map((key) => ({ key, path: key }));
      for (const { key, path } of items) put(path, data[key] ?? this.missing(`key ${key} of the Secret ${secret.secretName}`), secret.defaultMode);
    } else if (projected) {
      for (const { serviceAccountToken, configMap, downwardAPI } of projected.sources) {
        if (serviceAccountToken) put(serviceAccountToken.path, this.cluster.api.token(this.namespace, this.spec.serviceAccountName), projected.defaultMode);
        if (configMap?.name === "kube-root-ca.crt") put(configMap.items[0].path, this.cluster.api.ca, projected.defaultMode);
        for (const { path, fieldRef } of downwardAPI?.items ?? []) put(path, this.field(fieldRef), projected.defaultMode);
      }
    } else if (!emptyDir) this.missing(`the kind of volume ${name}`);
    return dir;
  }

  missing(what) {
    throw new Error(`pod ${this.name}: ${what} is not there`);
  }

  owned(dir, writable) {
    if (!existsSync(dir)) mkdirSync(dir, { recursive: true });
    if (canBeOthers) chownSync(dir, 0, this.spec.securityContext.fsGroup);
    chmodSync(dir, writable ? 0o2775 : 0o755);
    return dir;
  }

  mount(volumes, { name, mountPath, subPath, readOnly }) {
    const source = volumes[name] ?? this.missing(`volume ${name}`);
    return { source: subPath ? this.owned(join(source, subPath), true) : source, path: mountPath, readOnly: Boolean(readOnly) };
  }

  // A mount below another one: the place for it, or without namespaces a link.
  nest(mounts) {
    for (const { path, source } of mounts)
      for (const outer of mounts.filter((at) => path.startsWith(`${at.path}/`))) {
        const place = join(outer.source, path.slice(outer.path.length));
        if (isolated) mkdirSync(place, { recursive: true });
        else if (!existsSync(place)) symlinkSync(source, place);
      }
  }

  field({ fieldPath }) {
    return { "metadata.name": this.name, "metadata.namespace": this.namespace, "status.podIP": this.address }[fieldPath] ?? this.missing(`field ${fieldPath}`);
  }

  environment(spec) {
    const env = { HOSTNAME: this.name, KUBERNETES_SERVICE_HOST: nodeAddress, KUBERNETES_SERVICE_PORT: "443" };
    for (const { name, value, valueFrom } of spec.env ?? []) {
      if (valueFrom?.fieldRef) env[name] = this.field(valueFrom.fieldRef);
      else if (valueFrom) this.missing(`where ${name} comes from`);
      else env[name] = (value ?? "").replace(/\$\(([A-Za-z_][A-Za-z0-9_]*)\)/g, (all, other) => env[other] ?? all);
    }
    return env;
  }

  // Without namespaces: names become addresses, and "every interface" is the address of this pod.
  outside(text) {
    let all = text.replaceAll("https://kubernetes.default.svc", this.cluster.api.url).replace(/^(0\.0\.0\.0|\*)$/, this.address);
    for (const [name, address] of this.cluster.names(this.namespace)) all = all.replaceAll(name, address);
    return all;
  }

  // ---- Its life ----

  container(name) {
    return this.containers.find((at) => at.name === name);
  }

  get ready() {
    return !this.leaving && this.containers.length > 0 && this.containers.every((at) => at.ready);
  }

  // Starts a container, and again whenever it ends, until the pod leaves.
  async keep(container) {
    for (;;) {
      container.started = container.ready = false;
      container.start();
      const watched = new AbortController();
      const probing = this.probe(container, watched.signal).catch((error) => { if (error.name !== "AbortError") throw error; });
      const { code, signal } = await container.gone;
      watched.abort();
      await probing;
      this.setReady(container, false);
      container.exit = code ?? signal;
      if (this.leaving || this.spec.restartPolicy === "Never") return;
      container.restarts++;
      container.log += `\n-- ended with ${container.exit}; started again --\n`;
      const again = Date.now() + Math.min(container.restarts - 1, 20) * 100; // at once, then slower and slower
      while ((this.held.has(container.name) || Date.now() < again) && !this.leaving) await pause(20);
      if (this.leaving) return;
    }
  }

  setReady(container, ready) {
    if (container.ready === ready) return;
    container.ready = ready;
    this.cluster.podsChanged();
  }

  // Asks more often than the kubelet would, so that nobody waits; fails as late as the kubelet would.
  async probe(container, signal) {
    const { startupProbe, readinessProbe, livenessProbe } = container.spec;
    const ask = async (probe) => {
      const timeoutMs = (probe.timeoutSeconds ?? 1) * 1000;
      if (probe.exec) return (await container.exec(probe.exec.command, timeoutMs)).code === 0;
      const port = container.spec.ports.find(({ name }) => name === probe.httpGet.port)?.containerPort ?? probe.httpGet.port;
      return get(this.address, { ...probe.httpGet, port }, timeoutMs);
    };
    const failed = (kind) => {
      this.failedProbes.push(`${container.name}: ${kind}`);
      container.kill("SIGKILL");
    };
    const most = ({ periodSeconds = 10, failureThreshold = 3 }) => periodSeconds * failureThreshold * 1000;
    if (startupProbe) {
      const end = Date.now() + most(startupProbe);
      while (!(await ask(startupProbe))) {
        if (signal.aborted) return;
        if (Date.now() > end) return failed("startupProbe");
        await pause(50, null, { signal });
      }
    }
    container.started = true;
    if (!readinessProbe) return this.setReady(container, true);
    let well = Date.now(), alive = Date.now(), looked = 0;
    while (!signal.aborted) {
      const ready = await ask(readinessProbe);
      if (ready) well = Date.now();
      if (ready || Date.now() - well > most(readinessProbe)) this.setReady(container, ready);
      if (livenessProbe && Date.now() - looked > 2000) {
        looked = Date.now();
        if (await ask(livenessProbe)) alive = looked;
        else if (looked - alive > most(livenessProbe)) return failed("livenessProbe");
      }
      await pause(container.ready ? 500 : 100, null, { signal });
    }
  }

  // Resolves when all is gone.
  async leave() {
    this.leaving = true;
    this.cluster.podsChanged();
    const grace = this.spec.terminationGracePeriodSeconds * 1000;
    const end = Date.now() + grace;
    await Promise.all(this.containers.map(async (container) => {
      const { preStop } = container.spec.lifecycle ?? {};
      if (preStop?.exec) container.stopped = await container.exec(preStop.exec.command, grace);
      container.kill("SIGTERM");
      const late = Symbol("late");
      const timer = new AbortController();
      if (await Promise.race([container.gone, pause(Math.max(end - Date.now(), 2000), late, { signal: timer.signal }).catch(() => {})]) === late) {
        this.killed.push(container.name);
        container.kill("SIGKILL");
      }
      timer.abort();
    }));
    await Promise.all(this.lives);
    this.destroy();
  }

  destroy() {
    this.leaving = true;
    for (const container of this.containers) container.kill("SIGKILL");
    this.net.leave();
  }

  logs() {
    return this.containers.map((at) => `---- ${this.namespace}/${this.name} ${at.name} (restarts ${at.restarts}, exit ${at.exit})\n${at.log}${at.stopped ? `\n-- preStop: ${JSON.stringify(at.stopped)}\n` : ""}`).join("\n");
  }
}
