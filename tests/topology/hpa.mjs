// A HorizontalPodAutoscaler (autoscaling/v2) over a rendered spec: the arithmetic of the controller of
// Kubernetes, with CPU and memory of the pods' processes and the external metric as Prometheus and the
// adapter would give it. It looks four times a second, where the real one looks every 15 s.
import { setTimeout as pause } from "node:timers/promises";

const tolerance = 0.1;
const quantity = (text) => {
  const [, number, unit] = /^([0-9.]+)([A-Za-z]*)$/.exec(String(text));
  return Number(number) * { "": 1, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30 }[unit];
};

export class Autoscaler {
  // external(name, selector) resolves to the value of a metric, or null when nobody knows it.
  constructor(cluster, object, external) {
    const { metadata: { namespace }, spec } = object;
    Object.assign(this, { cluster, spec, external });
    this.set = cluster.sets.get(`${namespace}/${spec.scaleTargetRef.name}`);
    this.wishes = []; // {at, count}: recommendations of the window
    this.changes = []; // {at, by}
    this.history = [this.set.replicas];
    this.cpu = new Map();
  }

  run() {
    const stop = new AbortController();
    const loop = (async () => {
      while (!stop.signal.aborted) {
        await this.look();
        await pause(250);
      }
    })();
    return async () => { stop.abort(); await loop; };
  }

  pods() {
    return [...this.set.pods.values()].filter((pod) => !pod.leaving);
  }

  // Percent of what is requested, over all pods; null while a pod is too young to tell.
  utilization(resource) {
    let used = 0, requested = 0;
    for (const pod of this.pods()) {
      const now = Date.now();
      const usage = pod.containers.reduce((all, at) => { const own = at.usage(); return { cpu: all.cpu + own.cpu, memory: all.memory + own.memory }; }, { cpu: 0, memory: 0 });
      for (const at of pod.containers) requested += quantity(at.spec.resources.requests[resource]);
      if (resource === "memory") { used += usage.memory; continue; }
      const samples = (this.cpu.get(pod) ?? []).filter((at) => now - at.now < 5000).concat({ now, cpu: usage.cpu });
      this.cpu.set(pod, samples);
      const [first] = samples;
      if (now - first.now < 1000) continue; // a pod that starts counts as idle
      used += Math.max(0, (usage.cpu - first.cpu) / ((now - first.now) / 1000));
    }
    return requested ? (used / requested) * 100 : null;
  }

  // What each metric calls for; null: unknown.
  async proposals(replicas) {
    return Promise.all(this.spec.metrics.map(async (metric) => {
      let ratio;
      if (metric.type === "Resource") {
        const now = this.utilization(metric.resource.name);
        if (now === null) return null;
        ratio = now / metric.resource.target.averageUtilization;
      } else {
        const value = await this.external(metric.external.metric.name, metric.external.metric.selector);
        if (value === null) return null;
        const target = quantity(metric.external.target.averageValue);
        ratio = value / (target * replicas);
        return Math.abs(1 - ratio) <= tolerance ? replicas : Math.ceil(value / target);
      }
      return Math.abs(1 - ratio) <= tolerance ? replicas : Math.ceil(ratio * replicas);
    }));
  }

  changed(since, sign) {
    return this.changes.filter(({ at, by }) => at > since && Math.sign(by) === sign).reduce((all, { by }) => all + Math.abs(by), 0);
  }

  limit(rules, now, replicas, sign) {
    const start = (period) => replicas - sign * this.changed(now - period * 1000, sign);
    const ends = rules.policies.map(({ type, value, periodSeconds }) => {
      const from = start(periodSeconds);
      return type === "Pods" ? from + sign * value : sign > 0 ? Math.ceil(from * (1 + value / 100)) : Math.floor(from * (1 - value / 100));
    });
    return sign > 0 ? Math.max(...ends) : Math.min(...ends); // selectPolicy Max: the largest change
  }

  async look() {
    const { replicas } = this.set, now = Date.now();
    const proposals = await this.proposals(replicas);
    const known = proposals.filter((at) => at !== null);
    this.last = { replicas, proposals };
    let wish = known.length ? Math.max(...known) : replicas;
    if (known.length < proposals.length && wish < replicas) wish = replicas; // never down on a guess
    wish = Math.min(Math.max(wish, this.spec.minReplicas), this.spec.maxReplicas);
    const { scaleUp, scaleDown } = this.spec.behavior;
    this.wishes = this.wishes.filter(({ at }) => now - at < scaleDown.stabilizationWindowSeconds * 1000);
    if (!this.wishes.length) this.wishes.push({ at: now, count: Math.max(wish, replicas) }); // the first look
    this.wishes.push({ at: now, count: wish });
    let next = replicas;
    if (wish > replicas) next = Math.min(wish, this.limit(scaleUp, now, replicas, 1));
    else next = Math.max(Math.min(Math.max(...this.wishes.map(({ count }) => count)), replicas), this.limit(scaleDown, now, replicas, -1));
    if (next === replicas) return;
    this.changes.push({ at: now, by: next - replicas });
    this.history.push(next);
    this.cluster.scale(this.set, next);
  }
}
