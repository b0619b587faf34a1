// Every rendered object has the type that Kubernetes, KEDA or the Prometheus operator gives it; a
// field that the type does not know is an error.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { here } from "./chart.mjs";
import { rendered } from "./matrix.mjs";

const core = (module) => (kind) => `import("kubernetes-types/${module}").${kind}`;
const model = (path) => (kind) => `import("@kubernetes-models/${path}/${kind}").I${kind}`;
const types = {
  v1: core("core/v1"),
  "apps/v1": core("apps/v1"),
  "autoscaling/v2": core("autoscaling/v2"),
  "batch/v1": core("batch/v1"),
  "networking.k8s.io/v1": core("networking/v1"),
  "policy/v1": core("policy/v1"),
  "rbac.authorization.k8s.io/v1": core("rbac/v1"),
  "keda.sh/v1alpha1": model("keda/keda.sh/v1alpha1"),
  "monitoring.coreos.com/v1": model("prometheus-operator/monitoring.coreos.com/v1"),
};

// TypeScript over one file with a constant for each object.
function check(source) {
  const dir = mkdtempSync(join(tmpdir(), "agency-types-"));
  try {
    symlinkSync(join(here, "node_modules"), join(dir, "node_modules"));
    writeFileSync(join(dir, "objects.ts"), source);
    return spawnSync(process.execPath, [join(here, "node_modules/typescript/bin/tsc"), "--strict", "--noEmit", "--skipLibCheck", "--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler", "--typeRoots", join(dir, "none"), join(dir, "objects.ts")], { encoding: "utf8" });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

test("every object has its type, and what the type does not know is noticed", () => {
  const seen = new Map(); // many values give the same object
  for (const object of Object.values(rendered).flat()) {
    assert.ok(types[object.apiVersion], `no type for ${object.apiVersion} ${object.kind}`);
    seen.set(JSON.stringify(object), object);
  }
  const text = [...seen].map(([json, o], i) => `export const o${i}: ${types[o.apiVersion](o.kind)} = ${json};\n`);
  for (const kind of ["StatefulSet", "HorizontalPodAutoscaler", "ScaledObject", "PodMonitor", "ServiceMonitor", "PrometheusRule", "Job"])
    assert.ok([...seen.values()].some((o) => o.kind === kind), `no ${kind} was rendered`);
  const wrong = [["replicas", '"podManagementPolicy":', '"podManagementPolicies":'], ["ScaledObject", '"maxReplicaCount":', '"maxReplicas":'], ["PodMonitor", '"podMetricsEndpoints":', '"endpoints":'], ["policy", '"endPort":5507', '"endPort":"5507"']];
  const broken = wrong.map(([, from, to], i) => {
    const line = text.find((at) => at.includes(from));
    assert.ok(line, from);
    return line.replace(/const o\d+/, `const wrong${i}`).replace(from, to);
  });
  const out = check(text.join("") + broken.join(""));
  const bad = out.stdout.split("\n").filter((line) => /error TS/.test(line));
  const lines = new Set(bad.map((line) => Number(/\((\d+),/.exec(line)?.[1])));
  const mistakes = wrong.map((_, i) => text.length + 1 + i);
  assert.deepEqual(bad.filter((line) => !mistakes.includes(Number(/\((\d+),/.exec(line)?.[1]))), []);
  assert.deepEqual([...lines], mistakes, "each mistake that was put in is found");
});
