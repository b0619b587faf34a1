// A cluster of one node, as far as the chart needs one: it takes the rendered objects, runs their hooks,
// and makes StatefulSets, names of Services, NetworkPolicies and autoscalers true.
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Api } from "./api.mjs";
import { Image } from "./container.mjs";
import { isolated, Network, nodeAddress } from "./network.mjs";
import { Pod } from "./pod.mjs";

// Asks until `enough` is true of the answer.
export async function until(what, ask, enough = Boolean, ms = 60000) {
  const end = Date.now() + ms;
  let last;
  for (;;) {
    try { last = await ask(); } catch (error) { last = { failed: String(error) }; }
    if (enough(last)) return last;
    if (Date.now() > end) throw new Error(`in vain: ${what}: ${JSON.stringify(last)?.slice(0, 2000)}`);
    await pause(30);
  }
}

const hookOf = (object) => object.metadata.annotations?.["helm.sh/hook"] ?? "";

export class Cluster {
  static async open() {
    const cluster = new Cluster();
    cluster.dir = mkdtempSync(join(tmpdir(), "agency-t-"));
    cluster.claims = join(cluster.dir, "claims"); // the volumes that outlive pods
    mkdirSync(cluster.claims);
    cluster.objects = [];
    cluster.sets = new Map();
    cluster.gone = []; // pods that have left
    cluster.leaving = [];
    cluster.jobs = [];
    cluster.network = new Network();
    cluster.image = new Image(cluster.dir);
    cluster.api = new Api(cluster, cluster.dir);
    await cluster.api.listen();
    return cluster;
  }

  pods(namespace) {
    return [...this.sets.values()].flatMap((set) => [...set.pods.values()]).concat(this.jobs).filter((pod) => !namespace || pod.namespace === namespace);
  }

  pod(namespace, name) {
    return this.pods(namespace).find((pod) => pod.name === name);
  }

  secret(namespace, name) {
    const found = this.objects.find((o) => o.kind === "Secret" && o.metadata.namespace === namespace && o.metadata.name === name);
    if (!found) throw new Error(`there is no Secret ${name} in ${namespace}`);
    return Object.fromEntries(Object.entries(found.data).map(([key, text]) => [key, Buffer.from(text, "base64")]));
  }

  // As `helm install` and the controllers do. Resolves when all pods are ready.
  async install(objects) {
    await this.hooks(objects, /pre-install/);
    this.objects.push(...objects.filter((o) => !hookOf(o)));
    const sets = objects.filter((o) => o.kind === "StatefulSet").map((object) => {
      const set = { object, key: `${object.metadata.namespace}/${object.metadata.name}`, pods: new Map(), replicas: 0 };
      this.sets.set(set.key, set);
      this.scale(set, object.spec.replicas ?? 1);
      return set;
    });
    await Promise.all(sets.map((set) => this.settled(set)));
  }

  // Runs the hooks of an event to their end; policy hook-succeeded. Resolves to what their pods said.
  async hooks(objects, event) {
    const hooks = objects.filter((o) => event.test(hookOf(o))), said = [];
    this.objects.push(...hooks.filter((o) => !/^(Job|Pod)$/.test(o.kind)));
    for (const hook of hooks.filter((o) => o.kind === "Job" || o.kind === "Pod")) {
      const { metadata, spec } = hook.spec.template ?? hook;
      const pod = new Pod(this, { name: hook.metadata.name, namespace: hook.metadata.namespace, labels: metadata.labels, spec });
      this.jobs.push(pod);
      await pod.start();
      await Promise.all(pod.lives);
      this.jobs.splice(this.jobs.indexOf(pod), 1);
      pod.destroy();
      said.push(pod.containers.map((at) => at.log).join(""));
      if (pod.containers.some((at) => at.exit !== 0)) throw new Error(`the hook ${hook.metadata.name} failed: ${pod.logs()}`);
    }
    this.objects = this.objects.filter((o) => !hooks.includes(o));
    this.podsChanged();
    return said;
  }

  // ---- StatefulSets, podManagementPolicy Parallel ----

  scale(set, replicas) {
    set.replicas = replicas;
    const { metadata: { name, namespace }, spec } = set.object;
    for (let i = 0; i < replicas; i++)
      if (!set.pods.has(i) && !this.leaving.some((pod) => pod.name === `${name}-${i}` && pod.namespace === namespace)) {
        const claims = (spec.volumeClaimTemplates ?? []).map((claim) => ({ name: claim.metadata.name, persistentVolumeClaim: { claimName: `${claim.metadata.name}-${name}-${i}` } }));
        const pod = new Pod(this, { name: `${name}-${i}`, namespace, labels: { ...spec.template.metadata.labels, "statefulset.kubernetes.io/pod-name": `${name}-${i}` },
          spec: { ...spec.template.spec, volumes: [...spec.template.spec.volumes, ...claims] } });
        pod.headless = spec.serviceName;
        set.pods.set(i, pod);
        pod.begun = pod.start().catch((error) => { this.broken = error; });
      }
    for (const [i, pod] of [...set.pods].sort(([a], [b]) => b - a))
      if (i >= replicas && !pod.leaving) this.end(set, i, pod);
    this.podsChanged();
  }

  end(set, i, pod) {
    this.leaving.push(pod);
    const left = pod.begun.then(() => pod.leave()).then(() => {
      set.pods.delete(i);
      this.leaving.splice(this.leaving.indexOf(pod), 1);
      this.gone.push(pod);
      this.scale(set, set.replicas); // wanted again meanwhile?
    });
    left.catch((error) => { this.broken = error; });
    return left;
  }

  async settled(set, ms) {
    await until(`the pods of ${set.key}`, () => {
      if (this.broken) throw this.broken;
      return [...set.pods.values()].map((pod) => `${pod.name}:${pod.leaving ? "leaving" : pod.ready}`);
    }, (pods) => pods.length === set.replicas && pods.every((pod) => pod.endsWith(":true")), ms);
  }

  // ---- Names and policies ----

  // [name, address] of what the DNS of a cluster answers in a namespace; ready pods behind a Service, all
  // behind one that says so, and each pod of a StatefulSet behind its headless Service.
  names(namespace) {
    const all = [["kubernetes.default.svc", nodeAddress]];
    for (const service of this.objects.filter((o) => o.kind === "Service")) {
      const { metadata: { name, namespace: own }, spec } = service;
      const chosen = this.pods(own).filter((pod) => Object.entries(spec.selector).every(([key, value]) => pod.labels[key] === value) && (pod.ready || spec.publishNotReadyAddresses));
      const ends = [`.${own}.svc.cluster.local`, `.${own}.svc`, `.${own}`, ...(own === namespace ? [""] : [])];
      for (const pod of chosen) for (const end of ends) {
        if (pod.headless === name) all.push([`${pod.name}.${name}${end}`, pod.address]);
        if (isolated || end || pod === chosen[0]) all.push([`${name}${end}`, pod.address]);
      }
    }
    return all.sort(([a], [b]) => b.length - a.length);
  }

  podsChanged() {
    if (this.closed) return;
    for (const pod of this.pods()) {
      if (!pod.hosts) continue;
      const lines = this.names(pod.namespace).map(([name, address]) => `${address} ${name}`);
      const text = `127.0.0.1 localhost\n${pod.address} ${pod.name}\n${lines.join("\n")}\n`;
      if (text !== pod.hostsText) writeFileSync(pod.hosts, pod.hostsText = text);
    }
    const addresses = [...this.network.pods.keys()].join();
    const policies = this.objects.filter((o) => o.kind === "NetworkPolicy");
    if (this.enforced === `${addresses}/${policies.length}`) return;
    this.enforced = `${addresses}/${policies.length}`;
    this.network.enforce(policies);
  }

  // ---- The end ----

  async close() {
    const pods = [...this.pods(), ...this.leaving];
    this.closed = true;
    for (const pod of pods) if (pod.net) pod.destroy();
    await Promise.all(pods.flatMap((pod) => pod.lives ?? []));
    this.network.close();
    await this.api.close();
    rmSync(this.dir, { recursive: true, force: true });
  }

  logs() {
    return [...this.pods(), ...this.gone].map((pod) => pod.logs()).join("\n");
  }
}
