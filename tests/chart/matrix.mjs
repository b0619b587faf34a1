// The matrix of values, and everything rendered from it.
import { render } from "./chart.mjs";

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
  model: { "llm.url": "https://models.example/v1", "llm.model": "m", "llm.existingSecret": "llm", embeddings: { url: "https://models.example/v1", model: "e", existingSecret: "vectors" }, allowedHosts: ["agency.example.com"], settings: { AGENCY_AGENT_DUE_SOON_MS: "5000" } },
  "mcp servers": { "agent.mcpServers.servers": { tickets: { url: "https://tickets.example/mcp", headers: { Authorization: "Bearer <&>" }, companies: ["acme"], timeout_ms: 1000 }, files: { command: "files", args: ["/srv"] } } },
  "mcp servers own": { "agent.mcpServers.existingSecret": "others" },
  placed: { "image.pullSecrets": [{ name: "r" }], "image.digest": `sha256:${"0".repeat(64)}`, "agent.nodeSelector": { disk: "ssd" }, "agent.tolerations": [{ key: "x", operator: "Exists" }], "agent.podAnnotations": { a: "1" } },
  named: { company: "Acme_1", "scaling.minReplicas": 2, "scaling.maxReplicas": 9, "scaling.stabilizationSeconds": 5, "scaling.downPeriodSeconds": 1 },
};
export const rendered = Object.fromEntries(Object.entries(matrix).map(([name, values]) => [name, render(values)]));
