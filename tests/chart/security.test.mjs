// The rendered objects against the rules of @monokle/validation that need no network: Pod Security
// Standards (restricted), good practices, links between objects, YAML.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createDefaultMonokleValidator, processRefs, ResourceParser } from "@monokle/validation";
import yaml from "yaml";
import { renderText } from "./chart.mjs";
import { matrix } from "./matrix.mjs";

globalThis.fetch = (url) => assert.fail(`the rules must not need the network: ${url}`);

// What the matrix takes as made by others: Secrets and claims of the user, and the Secret of the Job.
const given = [...["doors", "keys", "llm", "vectors", "scraper", "r", "others", "house-curve"].map((name) => ["Secret", name]), ...["mine", "yours", "ours"].map((name) => ["PersistentVolumeClaim", name])]
  .map(([kind, name]) => {
    const text = `apiVersion: v1\nkind: ${kind}\nmetadata: {name: ${name}, namespace: acme}\n`;
    return { id: name, fileId: name, filePath: `${name}.yaml`, fileOffset: 0, name, apiVersion: "v1", kind, namespace: "acme", content: yaml.parse(text), text };
  });

let texts = 0; // the library caches by id

async function problems(text) {
  texts++;
  const resources = text.split(/^---\n/m).filter((part) => /^kind:/m.test(part)).map((part, i) => {
    const content = yaml.parse(part);
    return { id: `${texts}.${i}`, fileId: `f${i}`, filePath: `${content.kind}-${content.metadata.name}.yaml`, fileOffset: 0, name: content.metadata.name, apiVersion: content.apiVersion, kind: content.kind, namespace: content.metadata.namespace, content, text: part };
  });
  resources.push(...structuredClone(given));
  processRefs(resources, new ResourceParser());
  const validator = createDefaultMonokleValidator();
  const plugins = { "pod-security-standards": true, practices: true, "resource-links": true, "yaml-syntax": true, metadata: false, "kubernetes-schema": false, "open-policy-agent": false };
  await validator.preload({ plugins }); // some rules, those of `restricted` among them, are off by themselves
  const rules = Object.fromEntries(Object.entries(validator.rules).flatMap(([plugin, list]) => list.map((rule) => [`${plugin}/${rule.name}`, "err"])));
  assert.ok(Object.keys(rules).length > 55, "all rules are known");
  await validator.preload({ plugins, rules });
  const { runs } = await validator.validate({ resources });
  return runs.flatMap((run) => run.results).map((at) => `${at.ruleId}: ${at.message.text} ${at.locations[1]?.logicalLocations?.[0]?.fullyQualifiedName}:${at.locations[1]?.physicalLocation?.region?.startLine}`);
}

test("no rule of security is broken, whatever the values", async () => {
  for (const [name, values] of Object.entries(matrix)) {
    assert.deepEqual(await problems(renderText(values)), [], name);
  }
});

test("the rules do bite", async () => {
  const text = renderText({});
  for (const [from, to, rule] of [
    [/allowPrivilegeEscalation: false/g, "allowPrivilegeEscalation: true", /PSS|privilege/i],
    [/readOnlyRootFilesystem: true/g, "readOnlyRootFilesystem: false", /KBP|writable|filesystem/i],
    [/type: RuntimeDefault/g, "type: Unconfined", /seccomp/i],
    [/secretName: house-tokens/g, "secretName: nothing", /LNK|link|unsatisfied/i]]) {
    assert.match(text, from);
    assert.match((await problems(text.replace(from, to))).join("\n"), rule, to);
  }
});
