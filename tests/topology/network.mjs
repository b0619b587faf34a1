// The network of the pods. With namespaces: each pod has one of its own, a pair of interfaces to
// ours, which routes between them, and packets are filtered as the rendered NetworkPolicies say.
// Without: each pod has a loopback address.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";

export const isolated = Boolean(process.env.AGENCY_NETNS);
export const nodeAddress = isolated ? "10.88.0.1" : "127.88.0.1"; // ours: the node, the API server
const gateway = "169.254.1.1"; // what pods send to; answered at the other end of each pair

const run = (command, words, options) => execFileSync(command, words, { encoding: "utf8", ...options });
const ip = (...words) => run("ip", words);

export class Network {
  constructor() {
    this.count = 1;
    this.pods = new Map(); // address → pod
    this.numbers = new Map();
    this.pauses = [];
    if (!isolated) return;
    ip("link", "set", "lo", "up");
    ip("addr", "add", `${nodeAddress}/32`, "dev", "lo");
    ip("addr", "add", `${gateway}/32`, "dev", "lo");
    run("sh", ["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]);
  }

  // A new address for each pod, as in a cluster. Loopback addresses stand in the environment of other
  // pods in place of names, so there a pod of the same name gets the same one.
  freeAddress({ namespace, name }) {
    const key = `${namespace}/${name}`, number = (!isolated && this.numbers.get(key)) || ++this.count;
    this.numbers.set(key, number);
    return `${isolated ? 10 : 127}.88.${number >> 8}.${number & 255}`;
  }

  // Holds the namespaces of a pod, as the pause container of Kubernetes does. Resolves to
  // {enter: words in front of a command, leave()}.
  async join(pod) {
    const { address } = pod;
    if (!isolated) {
      this.pods.set(address, pod);
      return { enter: [], leave: () => this.pods.delete(address) };
    }
    const pause = this.pauses[this.pauses.length] = spawn("unshare", ["--net", "--uts", "sh", "-c", `hostname ${pod.name} && echo up && read forever`], { stdio: ["pipe", "pipe", "inherit"] });
    await once(pause.stdout, "data");
    const name = `pod${address.split(".").slice(2).join("-")}`;
    ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", String(pause.pid));
    ip("link", "set", name, "up");
    ip("route", "add", `${address}/32`, "dev", name, "src", nodeAddress);
    const enter = ["nsenter", `--net=/proc/${pause.pid}/ns/net`, `--uts=/proc/${pause.pid}/ns/uts`, "--"];
    run(enter[0], [...enter.slice(1), "sh", "-ec", `
      ip link set lo up
      ip addr add ${address}/32 dev eth0
      ip link set eth0 up
      ip route add ${gateway} dev eth0
      ip route add default via ${gateway}`]);
    this.pods.set(address, pod);
    return { enter, leave: () => { this.pods.delete(address); pause.kill("SIGKILL"); } };
  }

  close() {
    for (const pause of this.pauses) pause.kill("SIGKILL");
  }

  // What the policies let through, and nothing else, for the pods that they select. The node itself
  // (probes of the kubelet) comes in always, as in a cluster.
  enforce(policies) {
    if (!isolated) return;
    const pods = [...this.pods];
    const matches = (labels = {}, selector = {}) =>
      Object.entries(selector.matchLabels ?? {}).every(([key, value]) => labels[key] === value) && !selector.matchExpressions;
    const peerAddresses = (policy, peer) => {
      if (peer.ipBlock) return [peer.ipBlock.cidr];
      const from = (pod) => (peer.namespaceSelector ? matches({ "kubernetes.io/metadata.name": pod.namespace }, peer.namespaceSelector) : pod.namespace === policy.metadata.namespace);
      return pods.filter(([, pod]) => from(pod) && (!peer.podSelector || matches(pod.labels, peer.podSelector))).map(([address]) => address);
    };
    const lets = (policy, way, rule) => {
      const peers = rule[way.peers]?.flatMap((peer) => peerAddresses(policy, peer));
      if (peers && !peers.length) return [];
      const whom = peers ? `ip ${way.other} { ${peers.join(", ")} } ` : "";
      return (rule.ports ?? [{}]).map(({ protocol = "TCP", port, endPort }) =>
        `${whom}${port ? `${protocol.toLowerCase()} dport ${port}${endPort ? `-${endPort}` : ""} ` : ""}return`);
    };
    const ways = [{ type: "Egress", rules: "egress", peers: "to", own: "saddr", other: "daddr" }, { type: "Ingress", rules: "ingress", peers: "from", own: "daddr", other: "saddr" }];
    let chains = "", jumps = "ct state established,related return\n";
    for (const way of ways)
      for (const [address, pod] of pods) {
        const mine = policies.filter((p) => p.metadata.namespace === pod.namespace && p.spec.policyTypes.includes(way.type) && matches(pod.labels, p.spec.podSelector));
        if (!mine.length) continue;
        const chain = `${way.rules}_${address.replaceAll(".", "_")}`;
        const rules = mine.flatMap((p) => (p.spec[way.rules] ?? []).flatMap((rule) => lets(p, way, rule)));
        chains += `chain ${chain} {\n${rules.join("\n")}\nreject with icmpx admin-prohibited\n}\n`;
        jumps += `ip ${way.own} ${address} jump ${chain}\n`;
      }
    const text = `table inet pods\ndelete table inet pods\ntable inet pods {\n${chains}chain check {\n${jumps}}\n
      chain forward { type filter hook forward priority 0; jump check; }
      chain input { type filter hook input priority 0; iifname "pod*" jump check; }\n}\n`;
    run("nft", ["-f", "-"], { input: text });
  }
}
