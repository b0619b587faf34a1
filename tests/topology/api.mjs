// What the pods ask of the API server: Secrets, the scale of StatefulSets, Leases, and lists of scalers.
// It answers as the real one does and lets nobody do more than the rendered Roles say.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { join } from "node:path";
import { isolated, nodeAddress } from "./network.mjs";

const status = (code, reason, message = "") => [code, { kind: "Status", apiVersion: "v1", status: "Failure", code, reason, message }];

export class Api {
  constructor(cluster, dir) {
    this.cluster = cluster;
    this.tokens = new Map();
    this.version = 100;
    this.leases = new Map();
    this.log = [];
    const key = join(dir, "api.key"), cert = join(dir, "api.crt");
    execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=kubernetes",
      "-addext", `subjectAltName=DNS:kubernetes.default.svc,IP:${nodeAddress}`, "-keyout", key, "-out", cert], { stdio: "ignore" });
    this.ca = readFileSync(cert, "utf8");
    this.server = createServer({ key: readFileSync(key), cert: this.ca }, (req, res) => this.on(req, res));
  }

  async listen() {
    await new Promise((done) => this.server.listen(isolated ? 443 : 0, nodeAddress, done));
    this.url = isolated ? "https://kubernetes.default.svc" : `https://${nodeAddress}:${this.server.address().port}`;
  }

  close() {
    this.server.closeAllConnections();
    return new Promise((done) => this.server.close(done));
  }

  // A token of a ServiceAccount, as the kubelet asks for one.
  token(namespace, account) {
    const token = randomBytes(24).toString("hex");
    this.tokens.set(token, { namespace, account });
    return `${token}\n`;
  }

  on(req, res) {
    let body = "";
    req.on("data", (chunk) => { body += chunk; });
    req.on("end", () => {
      const [code, answer] = this.answer(req, body);
      this.log.push(`${req.method} ${req.url} ${code}`);
      res.writeHead(code, { "content-type": "application/json" });
      res.end(JSON.stringify(answer));
    });
  }

  may({ namespace, account }, at, verb) {
    const { objects } = this.cluster;
    const names = objects.filter((o) => o.kind === "RoleBinding" && o.metadata.namespace === at.namespace && o.subjects.some((s) => s.kind === "ServiceAccount" && s.name === account && s.namespace === namespace)).map((o) => o.roleRef.name);
    return objects.some((o) => o.kind === "Role" && o.metadata.namespace === at.namespace && names.includes(o.metadata.name)
      && o.rules.some((rule) => rule.apiGroups.includes(at.group) && rule.resources.includes(at.resource) && rule.verbs.includes(verb) && (!rule.resourceNames || rule.resourceNames.includes(at.name))));
  }

  answer({ method, url, headers }, body) {
    const who = this.tokens.get(/^Bearer (\S+)$/.exec(headers.authorization ?? "")?.[1]);
    if (!who) return status(401, "Unauthorized");
    const parts = /^\/(?:api\/v1|apis\/([^/]+)\/[^/]+)\/namespaces\/([^/]+)\/([^/]+)(?:\/([^/]+)(?:\/([^/]+))?)?$/.exec(url);
    if (!parts) return status(404, "NotFound", url);
    const [, group = "", namespace, kind, name, sub] = parts;
    const at = { group, namespace, resource: sub ? `${kind}/${sub}` : kind, name };
    const verb = { GET: name ? "get" : "list", POST: "create", PUT: "update", PATCH: "patch", DELETE: "delete" }[method];
    if (!this.may(who, at, verb)) return status(403, "Forbidden", `${who.account} cannot ${verb} ${at.resource} ${name ?? ""}`);
    const ways = { secrets: this.secrets, "statefulsets/scale": this.scale, leases: this.lease,
      horizontalpodautoscalers: () => [200, { kind: "HorizontalPodAutoscalerList", items: this.cluster.objects.filter((o) => o.kind === "HorizontalPodAutoscaler" && o.metadata.namespace === namespace) }] };
    return ways[at.resource]?.call(this, at, verb, body ? JSON.parse(body) : null, headers) ?? status(404, "NotFound", "the server could not find the requested resource");
  }

  secrets({ namespace, name }, verb, body) {
    const found = (wanted) => this.cluster.objects.find((o) => o.kind === "Secret" && o.metadata.namespace === namespace && o.metadata.name === wanted);
    if (verb === "get") return found(name) ? [200, found(name)] : status(404, "NotFound");
    if (found(body.metadata.name)) return status(409, "AlreadyExists");
    const { stringData, ...rest } = body;
    this.cluster.objects.push({ ...rest, metadata: { ...rest.metadata, namespace }, data: Object.fromEntries(Object.entries(stringData).map(([key, text]) => [key, Buffer.from(text).toString("base64")])) });
    return [201, body];
  }

  scale({ namespace, name }, verb, body, headers) {
    const set = this.cluster.sets.get(`${namespace}/${name}`);
    if (!set) return status(404, "NotFound");
    if (verb === "patch") {
      if (headers["content-type"] !== "application/merge-patch+json") return status(415, "UnsupportedMediaType");
      if (body.spec.replicas < 0) return status(422, "Invalid");
      if (body.metadata?.resourceVersion && body.metadata.resourceVersion !== String(this.version)) return status(409, "Conflict");
      this.version++;
      this.cluster.scale(set, body.spec.replicas);
    }
    return [200, { kind: "Scale", apiVersion: "autoscaling/v1", metadata: { name, namespace, resourceVersion: String(this.version) },
      spec: { replicas: set.replicas }, status: { replicas: set.pods.size, selector: "" } }];
  }

  lease({ namespace, name }, verb, body) {
    const key = `${namespace}/${name ?? body.metadata.name}`, lease = this.leases.get(key);
    if (verb === "get") return lease ? [200, lease] : status(404, "NotFound");
    if (verb === "create" && lease) return status(409, "AlreadyExists");
    if (verb === "update" && body.metadata.resourceVersion !== lease?.metadata.resourceVersion) return status(409, "Conflict");
    body.metadata.resourceVersion = String(++this.version);
    this.leases.set(key, body);
    return [verb === "create" ? 201 : 200, body];
  }
}
