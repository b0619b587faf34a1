// The validation of the topology, without a cluster: two companies, each a release in a namespace of its
// own, run with what the rendered chart says and nothing else. See cluster.mjs, pod.mjs, container.mjs.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test as plain } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { render } from "../chart/chart.mjs";
import { Cluster, until } from "./cluster.mjs";
import { Autoscaler } from "./hpa.mjs";
import { isolated, nodeAddress } from "./network.mjs";

const fast = { "scaling.stabilizationSeconds": 5, "scaling.downPeriodSeconds": 1, "scaling.upPeriodSeconds": 1 };
const digest = (token) => createHash("sha256").update(token).digest("hex");
const doors = `sha256:${digest("ann's")} companies=beta role=admin name=ann\nsha256:${digest("bob's")} companies=beta role=admin name=bob\n`;
const canary = `canary-${process.pid}-of-beta`;

let cluster, acme, beta, broken = false;

const test = (name, body) => plain(name, { timeout: 120000 }, async (t) => {
  try { await body(t); } catch (error) { broken = true; throw error; }
});

// A release, as its clients see it.
class Company {
  constructor(namespace, values) {
    this.namespace = namespace;
    this.objects = render({ ...fast, ...values }, "house", namespace);
  }

  pod(name) {
    return cluster.pod(this.namespace, `house-${name}`) ?? assert.fail(`there is no pod ${name}`);
  }

  claim(name) {
    return join(cluster.claims, this.namespace, `data-house-${name}`);
  }

  replicas() {
    return cluster.sets.get(`${this.namespace}/house-agent`);
  }

  async rpc(method, params, { token = this.token, door = "agent-0", port = 3000, company = this } = {}) {
    const answer = await fetch(`http://${company.pod(door).address}:${port}/mcp`, { method: "POST", signal: AbortSignal.timeout(20000),
      headers: { "content-type": "application/json", accept: "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }) });
    return { status: answer.status, body: await answer.text() };
  }

  // {error, text, ...what is structured}; throws when there is no answer of a tool.
  async call(name, args = {}, options) {
    const { status, body } = await this.rpc("tools/call", { name, arguments: args }, options);
    const result = status === 200 && JSON.parse(body).result;
    if (!result) throw new Error(`${name}: ${status} ${body}`);
    return { error: result.isError, text: result.content[0].text, ...result.structuredContent };
  }

  async done(name, args, options) {
    const answer = await this.call(name, args, options);
    assert.ok(!answer.error, `${name}: ${answer.text}`);
    return answer;
  }
}

before(async () => {
  cluster = await Cluster.open();
  acme = new Company("acme", { "scaling.mode": "hpa", "shared.enabled": true });
  const account = "/var/run/secrets/kubernetes.io/serviceaccount"; // without a root of its own, elastic must be told
  const outside = isolated ? {} : { AGENCY_ELASTIC_API_URL: "https://kubernetes.default.svc", AGENCY_ELASTIC_TOKEN_FILE: `${account}/token`, AGENCY_ELASTIC_CA_FILE: `${account}/ca.crt` };
  beta = new Company("beta", { "scaling.mode": "direct", "auth.tokens": doors, "networkPolicy.apiServer": [{ ipBlock: { cidr: `${nodeAddress}/32` } }],
    settings: { AGENCY_ELASTIC_API_POLL_MS: "200", ...outside } });
  await Promise.all([cluster.install(acme.objects), cluster.install(beta.objects)]);
  acme.token = String(cluster.secret("acme", "house-tokens").admin);
  beta.token = "ann's";
});
after(async () => {
  if (!cluster) return;
  if (broken || process.env.AGENCY_TOPOLOGY_LOGS) {
    const file = process.env.AGENCY_TOPOLOGY_LOGS ?? join(tmpdir(), "agency-topology.log");
    writeFileSync(file, `${cluster.logs()}\n${cluster.api.log.join("\n")}\n`);
    console.log(`what the containers said: ${file}`);
  }
  await cluster.close();
});

test("the release: helm test succeeds, and an upgrade keeps the keys", async () => {
  await Promise.all([acme, beta].map((company) => cluster.hooks(company.objects, /^test$/)));
  const keys = () => Object.entries(cluster.secret("acme", "house-curve")).map(([name, key]) => `${name}: ${key}`);
  const before = keys();
  assert.equal(new Set(before).size, 4);
  assert.match((await cluster.hooks(acme.objects, /pre-upgrade/)).join(), /is there and stays/);
  assert.deepEqual(keys(), before);
  assert.ok(!cluster.objects.some((o) => o.metadata.name === "house-keygen"), "its account and rights are gone");
});

// ---- (a) ----

test("tenants: no tool of one company shows, changes or takes anything of the other", async () => {
  const sop = await beta.done("sop_create", { name: "known", content: `# Known\n\n1. **Say**\n\n   \`\`\`sh\n   echo ${canary}\n   \`\`\`\n` });
  const run = await beta.done("sop_execute", { name: "known", input: { text: canary } });
  assert.equal(run.state, "completed", run.text);
  const task = await beta.done("task_submit", { kind: "known", input: { text: canary }, run_at: "2090-01-01T00:00:00Z" });
  await beta.done("brain_store", { id: "known", taskId: "known", request: `the ${canary} plan`, solution: canary });
  await beta.done("brain_update_graph", { operation: "add_node", args: { id: "known", type: "known", properties: { name: canary } } });
  await beta.done("log_experience", { taskId: "known", task_type: "known", agent_used: "known", outcome: "success", summary: canary });
  await beta.done("track_metric", { agent: "known", metric: canary, value: 1 });
  await beta.done("alert_on_threshold", { id: "known", metric: canary, operator: ">", threshold: 0 });
  await beta.done("schedule_add", { id: "known", cron: "0 0 1 1 *", task: { kind: "known", input: canary } });
  const agent = await beta.done("spawn_subagent", { role: "known", task: canary, parent_agent_id: "known" });
  const proposal = await beta.done("suggest_agent_improvement", { agent_name: "known", title: canary, description: canary, changes: canary });
  assert.ok(sop && JSON.stringify(await beta.call("brain_query", { query: "plan" })).includes(canary), "the canary sings");

  // Arguments that a tool accepts, with the ids of the other company wherever an id may stand.
  const ids = { id: task.id, task_id: task.id, run_id: run.id ?? run.task_id, agent_id: agent.agent_id, proposal_id: proposal.proposal.id };
  const value = (name, schema) => {
    if (ids[name]) return ids[name];
    if (schema.enum) return schema.enum[0];
    if (schema.type === "integer" || schema.type === "number") return Math.max(schema.minimum ?? 1, 1);
    if (schema.type === "array") return schema.minItems ? [value(name, schema.items ?? {})] : [];
    return { boolean: false, object: {} }[schema.type] ?? "known";
  };
  const { tools } = JSON.parse((await acme.rpc("tools/list", {})).body).result;
  assert.ok(tools.length > 80, `${tools.length} tools`);
  const memories = async () => (await beta.done("brain_export", {})).text.split("\n").filter((line) => !line.includes("swarm_event")); // the swarm goes on writing
  const kept = await memories();
  const attack = async ({ name, inputSchema, annotations }) => {
    const args = Object.fromEntries((inputSchema.required ?? []).map((key) => [key, value(key, inputSchema.properties[key])]));
    const named = await acme.rpc("tools/call", { name, arguments: { ...args, company: "beta" } });
    assert.ok(!named.body.includes(canary), `${name} gives the canary away: ${named.body}`);
    const answer = JSON.parse(named.body);
    assert.ok(answer.error || answer.result.isError, `${name} works for another company: ${named.body}`);
    const theirs = await acme.rpc("tools/call", { name, arguments: args }, { company: beta });
    assert.equal(theirs.status, 401, `${name} at the door of the other company`);
    if (!annotations?.readOnlyHint) return;
    const own = await acme.rpc("tools/call", { name, arguments: args });
    assert.ok(!own.body.includes(canary), `${name} shows the canary: ${own.body}`);
  };
  const left = [...tools];
  await Promise.all(Array.from({ length: 8 }, async () => { while (left.length) await attack(left.pop()); }));
  assert.ok(kept.length > 3);
  assert.deepEqual(await memories(), kept, "nothing has changed");
  assert.equal((await beta.done("task_get", { id: task.id })).task.state, "scheduled");

  const files = readdirSync(join(cluster.claims, "acme"), { recursive: true, withFileTypes: true }).filter((at) => at.isFile());
  assert.ok(files.length > 5);
  for (const file of files) assert.ok(!readFileSync(join(file.parentPath, file.name)).includes(canary), `${file.name} holds the canary`);
  if (!isolated) return;
  const knock = (company, where) => acme.pod("agent-0").container("agent").exec(["curl", "-s", "--max-time", "5", "-o", "/dev/null", `telnet://${company.pod(where[0]).address}:${where[1]}`], 8000);
  for (const where of [["agent-0", 3000], ["agent-0", 5500], ["brain-0", 3002], ["brain-0", 5502]])
    assert.equal((await knock(beta, where)).code, 7, `${where} of the other company is reached`); // 7: no connection
  assert.notEqual((await knock(acme, ["brain-0", 5502])).code, 7, "the own brain is reached");
  assert.equal((await knock(acme, ["brain-0", 3002])).code, 7, "a flow without a name");
});

// ---- (b) ----

// Writes until it is stopped; what was acknowledged must be there afterwards.
async function writeWhile(write, during) {
  const acknowledged = [];
  let on = true, next = 0;
  const hands = Array.from({ length: 6 }, async () => {
    while (on) {
      const n = next++;
      try {
        const kept = await write(n);
        if (kept) acknowledged.push(kept);
      } catch { await pause(20); } // the pillar is away; nothing was promised
    }
  });
  try { await during(acknowledged); } finally { on = false; await Promise.all(hands); }
  return { acknowledged, begun: next };
}

test("kill -9 of each container with writes in flight, then pods that are replaced: what was acknowledged is there", async () => {
  const unless = (answer, kept) => (answer.error ? null : kept(answer));
  const cases = [
    { pod: "agent-0", container: "agent", port: 3000,
      write: async (n) => unless(await acme.call("task_submit", { kind: "kept", input: n, run_at: "2090-01-01T00:00:00Z", idempotency_key: `k${n}` }), ({ id }) => id),
      check: async (ids) => { for (const id of ids) assert.equal((await acme.done("task_get", { id })).task.state, "scheduled"); } },
    { pod: "brain-0", container: "brain", port: 3002,
      write: async (n) => unless(await acme.call("brain_store", { id: `kept-${n}`, taskId: "kept", request: `number ${n}`, solution: `it is ${n}` }, { door: "brain-0", port: 3002 }), () => `kept-${n}`),
      check: async (ids) => { for (const id of ids) assert.match((await acme.done("brain_get", { id })).text, /it is/); } },
    { pod: "agent-0", container: "health-monitor", port: 3004,
      write: async (n) => unless(await acme.call("track_metric", { agent: "kept", metric: "points", value: n }, { port: 3004 }), () => n),
      check: async (points, begun) => {
        const report = await until("all points are counted", () => acme.call("get_health_report", { agent: "kept" }), ({ metrics }) => metrics?.["kept:points"]?.count >= points.length);
        assert.ok(report.metrics["kept:points"].count <= begun, "none is counted twice");
      } },
    { pod: "agent-0", container: "swarm", port: 3005,
      write: async (n) => { if (n > 40) return pause(20); return unless(await acme.call("spawn_subagent", { role: `kept-${n}`, task: "wait", parent_agent_id: "test" }, { port: 3005 }), ({ agent_id }) => agent_id); },
      check: async (ids) => { for (const agent_id of ids) assert.match((await acme.done("agent_card", { agent_id })).text, /kept/); } },
    { pod: "agent-0", container: "elastic-swarm", port: 3006,
      write: async (n) => unless(await acme.call("scale_policy_set", { age_ms: 1000 + n }, { port: 3006 }), () => n),
      check: async (numbers, begun) => {
        const { age_ms } = await acme.done("scale_policy_get");
        assert.ok(age_ms >= 1000 + Math.max(...numbers) - 6 && age_ms < 1000 + begun, `${age_ms} is one of the last`);
        await acme.done("scale_policy_set", { reset: true });
      } },
  ];
  const kept = [];
  for (const { pod, container: name, port, write, check } of cases) {
    const at = acme.pod(pod), container = at.container(name);
    const { acknowledged, begun } = await writeWhile(write, async (promised) => {
      await until(`${name} has kept something`, () => promised.length > 10);
      const { restarts } = container, first = promised.length;
      container.kill("SIGKILL");
      await until(`${name} lives again`, () => container.restarts > restarts && at.ready);
      if (name !== "swarm") await until(`${name} keeps again`, () => promised.length > first + 10);
    });
    assert.ok(acknowledged.length > 10 && container.restarts > 0, port);
    await until("it answers", () => acme.call("queue_stats"), ({ error }) => !error);
    await check(acknowledged, begun);
    if (name !== "elastic-swarm") kept.push(() => check(acknowledged.slice(0, 20), begun));
  }
  // The pods themselves go, in order, and others take over their claims.
  const sets = ["house-agent", "house-brain"].map((name) => cluster.sets.get(`acme/${name}`));
  const old = sets.map((set) => set.pods.get(0));
  await Promise.all(sets.map((set, i) => cluster.end(set, 0, old[i])));
  await Promise.all(sets.map((set) => cluster.settled(set)));
  for (const [i, set] of sets.entries()) {
    assert.notEqual(set.pods.get(0), old[i]);
    assert.deepEqual(old[i].killed, []);
  }
  for (const look of kept) await look();
});

// ---- (c) ----

test("sidecar: what the agent writes on the shared volume is served, also when the monitor was down", async () => {
  const pod = acme.pod("agent-0"), agent = pod.container("agent"), monitor = pod.container("health-monitor");
  const today = new Date().toISOString();
  const append = async (value) => {
    const line = JSON.stringify({ timestamp: today, agent: "bot", metric: "cost", value });
    const { code, output } = await agent.exec(["sh", "-c", `printf '%s\\n' '${line}' >>/data/metrics/${today.slice(0, 10)}.ndjson`], 5000);
    assert.equal(code, 0, output);
  };
  const report = (count) => until(`${count} points`, () => acme.call("get_health_report", { agent: "bot" }, { port: 3004 }), ({ metrics }) => metrics?.["bot:cost"]?.count >= count);
  await append(1);
  await append(2);
  assert.equal((await report(2)).metrics["bot:cost"].sum, 3);
  pod.held.add("health-monitor");
  monitor.kill("SIGKILL");
  await monitor.gone;
  await append(4);
  await append(8);
  const { restarts } = monitor;
  pod.held.delete("health-monitor");
  await until("the monitor lives again", () => monitor.restarts >= restarts && pod.ready);
  const { metrics } = await report(4);
  assert.deepEqual([metrics["bot:cost"].count, metrics["bot:cost"].sum], [4, 15], "each is counted once");
});

// ---- (d) ----

test("four pillars: a procedure runs and is remembered; failures become a proposal that is applied and taken back", async () => {
  await beta.done("sop_create", { name: "survey", content: `# Survey

1. **Count**

   \`\`\`sh replay=safe
   ls / | wc -l
   \`\`\`

2. **Remember**

   \`\`\`tool replay=keyed
   brain_store {"id": "survey-{{run.id}}", "taskId": "{{run.id}}", "request": "survey of the root", "solution": "{{steps.count.result.stdout}} entries"}
   \`\`\`

3. **Measure**

   \`\`\`tool replay=safe
   track_metric {"agent": "survey", "metric": "entries", "value": 1}
   \`\`\`

4. **Who**

   \`\`\`tool
   list_agents {}
   \`\`\`
` });
  const run = await beta.done("sop_execute", { name: "survey", input: {} });
  assert.equal(run.state, "completed", run.text);
  const found = await beta.done("brain_query", { query: "survey of the root", format: "json" });
  assert.match(found.text, /entries/);
  await until("the run is logged to the brain", () => beta.call("recall_delegation_patterns", { task_type: "sop_execution" }), ({ text }) => /sop_engine/.test(text) && /100%/.test(text));
  await until("the metric is served", () => beta.call("get_health_report", { agent: "survey" }), ({ metrics }) => metrics?.["survey:entries"]?.count === 1);
  const lines = readFileSync(join(beta.claim("agent-0"), "sop_logs.ndjson"), "utf8").trim().split("\n").map((line) => JSON.parse(line));
  assert.ok(lines.filter((line) => JSON.stringify(line).includes("survey")).length >= 4, "each step is a line for the sidecars");

  await beta.done("sop_create", { name: "ship", content: '# Ship\n\n1. **Push** it\n\n   ```sh retries=0\n   echo "no route to host 10.0.0.$RANDOM" >&2; exit 7\n   ```\n' });
  for (let i = 0; i < 3; i++) assert.equal((await beta.call("sop_execute", { name: "ship", input: {} })).state, "failed");
  const review = await beta.done("perform_weekly_review");
  assert.equal(review.analysis.failed, 3, review.text);
  const proposal_id = review.proposals[0];
  assert.ok((await beta.call("update_agent_soul", { proposal_id })).error, "not before it is approved");
  assert.equal((await beta.done("proposal_approve", { proposal_id })).proposal.status, "approved");
  assert.equal((await beta.done("update_agent_soul", { proposal_id })).proposal.status, "applied");
  const soul = join(beta.claim("agent-0"), "souls/sop_engine.md");
  assert.match(readFileSync(soul, "utf8"), /Known failure of ship/);
  assert.equal((await beta.done("proposal_rollback", { proposal_id })).proposal.status, "rolled_back");
  assert.ok(!existsSync(soul));
  const own = await beta.done("suggest_agent_improvement", { agent_name: "writer", title: "t", description: "d", changes: "Be brief." });
  assert.match((await beta.call("proposal_approve", { proposal_id: own.proposal.id })).text, /cannot approve it/, "not by whom it came from");
  assert.equal((await beta.done("proposal_approve", { proposal_id: own.proposal.id }, { token: "bob's" })).proposal.status, "approved");
});

// ---- (e) ----

const workload = (seconds) => `# Work

1. **Work**

   \`\`\`sh replay=manual
   echo "{{run.id}}" >>ran
   sleep ${seconds}
   \`\`\`
`;

// Each run leaves a line in its workspace, on the volume of the pod that worked: run → pods.
function traces(company) {
  const found = new Map();
  for (const claim of readdirSync(join(cluster.claims, company.namespace)).filter((name) => /agent-\d+$/.test(name))) {
    const work = join(cluster.claims, company.namespace, claim, "work");
    for (const file of existsSync(work) ? readdirSync(work, { recursive: true }).filter((name) => /(^|\/)ran$/.test(name)) : [])
      for (const id of readFileSync(join(work, file), "utf8").trim().split("\n")) found.set(id, [...(found.get(id) ?? []), claim]);
  }
  return found;
}

// 40 tasks: 35 short ones at once, and 5 long ones when five replicas are wanted, so that the way down
// begins while replicas work.
async function burst(company) {
  const set = company.replicas(), counts = [set.replicas];
  const watch = setInterval(() => { if (counts.at(-1) !== set.replicas) counts.push(set.replicas); }, 20);
  try {
    await company.done("sop_create", { name: "short", content: workload(1.5) });
    await company.done("sop_create", { name: "long", content: workload(8) });
    const submit = async (name) => (await company.done("sop_execute", { name, input: {}, wait_ms: 0 })).id;
    await company.done("queue_pause"); // all at once
    const ids = await Promise.all(Array.from({ length: 35 }, () => submit("short")));
    await company.done("queue_resume");
    await until(`${company.namespace} has five replicas`, () => set.replicas, (replicas) => replicas === 5);
    ids.push(...await Promise.all(Array.from({ length: 5 }, () => submit("long"))));
    await until(`${company.namespace} has one replica again`, () => ({ replicas: set.replicas, pods: set.pods.size }), ({ replicas, pods }) => replicas === 1 && pods === 1, 90000);
    for (const id of ids) {
      const { task } = await until("it is done", () => company.call("task_get", { id }), ({ task: at }) => ["completed", "failed", "buried", "cancelled", "input_required"].includes(at?.state));
      assert.deepEqual([task.state, task.attempts, task.crashes], ["completed", 0, 0], JSON.stringify(task));
    }
    const seen = traces(company);
    for (const id of ids) assert.equal(seen.get(id)?.length, 1, `${id} ran once: ${seen.get(id)}`);
    assert.ok(new Set(ids.flatMap((id) => seen.get(id))).size > 1, "the work was spread");
    assert.equal(Math.max(...counts), 5);
    const top = counts.indexOf(5);
    assert.deepEqual(counts.slice(top), [5, 4, 3, 2, 1].slice(0, 5), `down one by one: ${counts}`);
    for (const pod of cluster.gone.filter((at) => at.namespace === company.namespace)) {
      assert.deepEqual(pod.killed, [], `${pod.name} left by itself within its grace period`);
      for (const container of pod.containers) assert.equal(container.exit, 0, `${pod.name} ${container.name}: ${container.log}`);
    }
    return counts;
  } finally {
    clearInterval(watch);
  }
}

test("40 tasks arrive: replicas go 1 → 5 → 1; none is lost, run twice, or killed at work", async () => {
  const token = String(cluster.secret("acme", "house-tokens").reader);
  const hpa = new Autoscaler(cluster, acme.objects.find((o) => o.kind === "HorizontalPodAutoscaler"), async (name) => {
    const answer = await fetch(`http://${acme.pod("agent-0").address}:3000/metrics`, { headers: { authorization: `Bearer ${token}` }, signal: AbortSignal.timeout(3000) }).catch(() => null);
    const line = answer?.ok && new RegExp(`^agency_${name}(?:\\{[^}]*\\})? (\\S+)$`, "m").exec(await answer.text());
    return line ? Number(line[1]) : null;
  });
  const stop = hpa.run();
  try {
    await Promise.all([burst(acme), burst(beta)]); // by an autoscaler; by elastic itself
  } finally {
    await stop();
  }
  assert.ok(cluster.api.log.some((line) => /PATCH .*\/beta\/statefulsets\/house-agent\/scale 200/.test(line)));
  assert.ok(!cluster.api.log.some((line) => / 403$/.test(line)), "the Role is enough");
});

test("what monitors, rules, dashboard and scalers ask for is exported", async () => {
  const token = String(cluster.secret("acme", "house-tokens").reader); // what the monitors are given
  const families = async () => {
    const exported = new Set();
    for (const [pod, port] of [["agent-0", 3000], ["agent-0", 3004], ["agent-0", 3005], ["agent-0", 3006], ["brain-0", 3002]]) {
      const answer = await fetch(`http://${acme.pod(pod).address}:${port}/metrics`, { headers: { authorization: `Bearer ${token}` } });
      assert.equal(answer.status, 200, `${port}`);
      for (const [, family] of (await answer.text()).matchAll(/^# TYPE (\S+) /gm)) exported.add(family);
    }
    return exported;
  };
  const monitored = render({ "scaling.mode": "keda", ...Object.fromEntries(["podMonitor", "rules", "dashboard", "adapterRule"].map((at) => [`metrics.${at}.enabled`, true])) }, "house", "acme")
    .filter((o) => /PrometheusRule|ScaledObject|ConfigMap/.test(o.kind));
  const names = new Set(JSON.stringify(monitored).match(/\bagency_[a-z_]+[a-z]\b(?=[^a-z_:/])/g));
  assert.ok(names.size > 8, [...names].join());
  await until("all are exported", async () => {
    const exported = await families();
    return [...names].filter((name) => !exported.has(name.replace(/_bucket$/, "")));
  }, (missing) => missing.length === 0, 20000);
});

test("no probe has failed for good, and everything leaves in order", async () => {
  for (const pod of [...cluster.pods(), ...cluster.gone]) assert.deepEqual(pod.failedProbes, [], pod.name);
  const sets = [...cluster.sets.values()];
  const pods = sets.flatMap((set) => [...set.pods.values()]);
  for (const set of sets) cluster.scale(set, 0);
  await until("all pods are gone", () => sets.reduce((all, set) => all + set.pods.size, 0), (left) => left === 0);
  for (const pod of pods) {
    assert.deepEqual(pod.killed, [], pod.name);
    for (const container of pod.containers) assert.equal(container.exit, 0, `${pod.name} ${container.name}: ${container.log}`);
  }
});
