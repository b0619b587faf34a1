// The chart: linted, rendered over a matrix of values, and held to what it promises.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import yaml from "yaml";
import { chart, flags, helm, here, of, pods, refused, render } from "./chart.mjs";
import { matrix, monitors, rendered } from "./matrix.mjs";

test("lint --strict, whatever the values", () => {
  for (const values of Object.values(matrix)) {
    const out = helm("lint", "--strict", chart, ...flags(values));
    assert.equal(out.status, 0, out.stdout + out.stderr);
  }
});

test("unknown keys are refused, at every depth", () => {
  const walk = (value, path) => {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return;
    if (!/(labels|Labels|nodeSelector|podAnnotations)$/.test(path)) refused({ [path ? `${path}.nonsense` : "nonsense"]: 1 }, /nonsense/);
    for (const [key, inner] of Object.entries(value)) walk(inner, path ? `${path}.${key}` : key);
  };
  walk(yaml.parse(readFileSync(join(chart, "values.yaml"), "utf8")), "");
});

test("values that contradict each other are refused with what to change", () => {
  refused({ "curve.generate": false }, /agency keygen a;.*--from-file=agent\.key=a\/curve\.key.*curve\.existingSecret/s);
  refused({ "auth.tokens": "x", "auth.existingSecret": "y" }, /set one/);
  refused({ "scaling.minReplicas": 6 }, /minReplicas/);
  refused({ "agent.persistence.existingClaim": "one" }, /one writer/);
  refused({ settings: { AGENCY_ELASTIC_MODE: "off" } }, /settings\.AGENCY_ELASTIC_MODE: the chart gives/);
  refused({ "embeddings.url": "http://x" }, /embeddings\.model/);
  refused({ allowedHosts: ["a b"] }, /allowedHosts/);
  refused({ "scaling.mode": "sometimes" }, /mode/);
  refused({ company: "../x" }, /company/);
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

test("nobody but the scaler says how many replicas there are", () => {
  for (const [name, objects] of Object.entries(rendered))
    assert.equal(of(objects, "StatefulSet", "house-agent").spec.replicas, name === "off" ? 1 : undefined, name);
});

test("one scaler at a time", () => {
  const scalers = (objects) => objects.filter((o) => /HorizontalPodAutoscaler|ScaledObject/.test(o.kind)).map((o) => o.kind);
  assert.deepEqual(scalers(rendered.plain), ["HorizontalPodAutoscaler"]);
  assert.deepEqual(scalers(rendered.keda), ["ScaledObject"]);
  assert.deepEqual(scalers(rendered.direct), []);
  assert.deepEqual(scalers(rendered.off), []);
});

const rights = (role) => role.rules.map((r) => [r.resources[0], r.resourceNames ?? [], r.verbs]);

test("direct mode has the rights it needs and no more; the others have none", () => {
  assert.deepEqual(rights(of(rendered.direct, "Role", "house-agent")), [
    ["statefulsets/scale", ["house-agent"], ["get", "patch"]], ["leases", ["house-agent-elastic"], ["get", "update"]],
    ["leases", [], ["create"]], ["horizontalpodautoscalers", [], ["list"]], ["scaledobjects", [], ["list"]]]);
  for (const [name, objects] of Object.entries(rendered)) if (name !== "direct") assert.ok(!of(objects, "Role", "house-agent"), name);
  const spec = of(rendered.direct, "StatefulSet", "house-agent").spec.template.spec;
  for (const c of spec.containers) assert.equal(c.volumeMounts.some((m) => m.name === "api"), c.name === "elastic-swarm");
});

test("keys: a Job with the rights to make one Secret, or a Secret that is named; each pod has its own secret key", () => {
  const role = of(rendered.plain, "Role", "house-keygen");
  assert.deepEqual(rights(role), [["secrets", ["house-curve"], ["get"]], ["secrets", [], ["create"]]]);
  for (const object of rendered.plain.filter((o) => o.metadata.name === "house-keygen")) {
    assert.equal(object.metadata.annotations["helm.sh/hook"], "pre-install,pre-upgrade", object.kind);
    assert.match(object.metadata.annotations["helm.sh/hook-delete-policy"], /hook-succeeded/);
  }
  assert.ok(!rendered["own secrets"].some((o) => o.metadata.name === "house-keygen"));
  for (const [values, secret] of [["plain", "house-curve"], ["own secrets", "keys"]])
    for (const part of ["agent", "brain"]) {
      const { spec } = of(rendered[values], "StatefulSet", `house-${part}`).spec.template;
      const { secretName, items } = spec.volumes.find((v) => v.name === "curve").secret;
      assert.equal(secretName, secret);
      assert.deepEqual(items.filter((i) => i.key.endsWith(".key")), [{ key: `${part}.key`, path: "curve.key" }]);
    }
});

test("tokens: those that are given, or two that are made, of which only digests reach the pods", () => {
  const text = (secret, key) => Buffer.from(secret.data[key], "base64").toString();
  const digest = (token) => createHash("sha256").update(token).digest("hex");
  const made = of(rendered.plain, "Secret", "house-tokens");
  const lines = text(made, "tokens").trim().split("\n");
  assert.deepEqual(lines, ["admin", "reader"].map((role) => `sha256:${digest(text(made, role))} companies=acme role=${role} name=${role}`));
  assert.match(text(made, "admin"), /^[A-Za-z0-9]{40}$/);
  for (const pod of pods(rendered.plain)) for (const volume of pod.volumes ?? [])
    if (volume.secret?.secretName === "house-tokens") assert.deepEqual(volume.secret.items, [{ key: "tokens", path: "tokens" }]);
  assert.equal(text(of(rendered.tokens, "Secret"), "tokens"), matrix.tokens["auth.tokens"]);
  for (const name of ["own secrets", "proxy"]) assert.ok(!of(rendered[name], "Secret", "house-tokens"), name);
});

test("other MCP servers: one file for the agent's container, of a Secret that is made or given", () => {
  const file = Buffer.from(of(rendered["mcp servers"], "Secret", "house-mcp").data["mcp.json"], "base64").toString();
  assert.deepEqual(JSON.parse(file), { mcpServers: matrix["mcp servers"]["agent.mcpServers.servers"] });
  for (const [values, secretName] of [["mcp servers", "house-mcp"], ["mcp servers own", "others"]]) {
    const { containers, volumes } = of(rendered[values], "StatefulSet", "house-agent").spec.template.spec;
    assert.deepEqual(volumes.find((v) => v.name === "mcp").secret, { secretName, defaultMode: 288, items: [{ key: "mcp.json", path: "mcp.json" }] });
    const having = containers.filter((c) => c.volumeMounts.some((m) => m.name === "mcp" && m.mountPath === "/etc/agency/mcp" && m.readOnly));
    assert.deepEqual(having.map((c) => c.name), ["agent"]);
    assert.deepEqual(having[0].env.filter((e) => e.name === "AGENCY_OUTSIDE_FILE"), [{ name: "AGENCY_OUTSIDE_FILE", value: "/etc/agency/mcp/mcp.json" }]);
  }
  for (const name of ["plain", "mcp servers own"]) assert.ok(!of(rendered[name], "Secret", "house-mcp"), name);
  assert.ok(!JSON.stringify(rendered.plain).includes("AGENCY_OUTSIDE_FILE"));
  refused({ "agent.mcpServers.servers": { a: { comand: "x" } } }, /comand/);
  refused({ "agent.mcpServers.servers": { "1a": { command: "x" } } }, /1a/);
  refused({ "agent.mcpServers": { servers: { a: { command: "x" } }, existingSecret: "y" } }, /set one/);
  refused({ "agent.mcpServers.existingSecret": "y", settings: { AGENCY_OUTSIDE_FILE: "/x" } }, /AGENCY_OUTSIDE_FILE/);
});

test("the containers, ports and commands of the topology", () => {
  const list = (name) => of(rendered.plain, "StatefulSet", name).spec.template.spec.containers.map((c) => [c.name, c.ports?.[0].containerPort, c.args.join(" ")]);
  assert.deepEqual(list("house-agent"), [["agent", 3000, "run agent"], ["health-monitor", 3004, "run health"], ["swarm", 3005, "run swarm"], ["elastic-swarm", 3006, "run elastic"]]);
  assert.deepEqual(list("house-brain"), [["brain", 3002, "run brain"]]);
});

test("Pod Security restricted, probes, limits and the company in every container", () => {
  for (const [name, objects] of Object.entries(rendered)) for (const pod of pods(objects)) {
    const company = matrix[name].company ?? "acme";
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
      if (["test", "keygen"].includes(c.name)) continue;
      assert.deepEqual(c.lifecycle.preStop.exec.command.slice(0, 3), ["agency", "drain", c.args[1]]);
      assert.ok(Number(c.lifecycle.preStop.exec.command.at(-1)) < pod.terminationGracePeriodSeconds * 1000);
      assert.ok(c.livenessProbe && c.readinessProbe && c.startupProbe && c.lifecycle.preStop, c.name);
      const env = Object.fromEntries(c.env.map((e) => [e.name, e.value]));
      assert.deepEqual([env.company, env.AGENCY_COMPANY], [company, company]);
      assert.equal(new Set(c.env.map((e) => e.name)).size, c.env.length, "a name twice");
      assert.deepEqual(["startupProbe", "livenessProbe", "readinessProbe"].map((p) => c[p].httpGet.path), ["/startupz", "/livez", "/readyz"]);
    }
  }
});

test("every setting that the chart gives is a row of the program", () => {
  const sources = ["actors", "bus"].flatMap((room) => readdirSync(join(here, "../..", room), { recursive: true }).filter((f) => /\.[ch]$/.test(f)).map((f) => join(here, "../..", room, f)));
  const source = sources.map((f) => readFileSync(f, "utf8")).join("");
  const plain = new Set(["AGENCY_COMPANY", "AGENCY_DATA", "AGENCY_RUN", "AGENCY_BIND", "AGENCY_TOKENS", "AGENCY_LLM_URL", "AGENCY_LLM_MODEL"]);
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
  const bus = (name, way, peers) => of(rendered.plain, "NetworkPolicy", name).spec[way].filter((rule) => rule[peers][0].podSelector)
    .map((rule) => [rule[peers].map((peer) => peer.podSelector.matchLabels["app.kubernetes.io/component"]).join(), rule.ports.map(({ port, endPort }) => [port, ...(endPort ? [endPort] : [])].join("-")).join()]);
  assert.deepEqual(bus("house-brain", "ingress", "from"), [["agent", "5502,5602"], ["test", "3002"]]);
  assert.deepEqual(bus("house-brain", "egress", "to"), [["agent", "5500-5507,5600-5607"]]);
  assert.deepEqual(bus("house-agent", "ingress", "from"), [["agent", "5500-5507,5600-5607"], ["brain", "5500-5507,5600-5607"], ["test", "3000,3004,3005,3006"]]);
  assert.deepEqual(bus("house-agent", "egress", "to"), [["agent", "5500-5507,5600-5607"], ["brain", "5502,5602"]]);
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

test("the rules of Prometheus are those that are tested with it, over the own namespace", () => {
  const shipped = yaml.parse(readFileSync(join(chart, "prometheus-rules.yaml"), "utf8")).groups[0].rules;
  const { rules } = of(rendered.monitored, "PrometheusRule").spec.groups[0];
  const name = (rule) => rule.alert ?? rule.record;
  for (const rule of shipped) {
    const own = rules.find((at) => name(at) === name(rule));
    assert.equal(own.expr.replaceAll(/\{namespace="acme"\}/g, "").replaceAll(/namespace="acme",/g, ""), rule.expr);
    assert.deepEqual({ ...own, expr: "" }, { ...rule, expr: "" });
  }
  const dir = mkdtempSync(join(tmpdir(), "agency-rules-")), file = join(dir, "rules.yaml");
  // The dashboard in the same breath: each of its queries is one that Prometheus can read.
  const dashboard = JSON.parse(of(rendered.monitored, "ConfigMap", "house-dashboard").data["agency.json"]);
  const queries = dashboard.panels.flatMap((panel) => panel.targets.map(({ expr }) => expr));
  writeFileSync(file, yaml.stringify({ groups: [...of(rendered.monitored, "PrometheusRule").spec.groups, { name: "dashboard", rules: queries.map((expr, i) => ({ record: `dashboard:query:n${i}`, expr })) }] }));
  const out = spawnSync(join(here, "../../build/tools/usr/bin/promtool"), ["check", "rules", file], { encoding: "utf8" });
  rmSync(dir, { recursive: true });
  assert.equal(out.status, 0, `${out.stdout}${out.stderr}`);
  for (const { expr } of rules) assert.equal(expr.match(/\bagency_[a-z_]+/g).length, expr.match(/namespace="acme"/g).length, expr);
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
