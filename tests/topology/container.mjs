// One container: the root of the image, read-only, with the mounts, environment, user and command that
// its spec says, in a mount and process namespace of its own. Without namespaces: the same binary with
// the same environment, where paths of mounts and names of hosts are replaced by what they stand for.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { isolated } from "./network.mjs";

const project = join(dirname(fileURLToPath(import.meta.url)), "../..");
const binary = process.env.AGENCY_BINARY ?? join(project, "build/agency");
export const canBeOthers = isolated && execFileSync("cat", ["/proc/self/uid_map"], { encoding: "utf8" }).trim().split(/\s+/)[2] !== "1";

// Sets up the root and becomes the command. In a process namespace, so that this is number 1.
const enterRoot = `
set -e
path=$PATH
PATH=/usr/sbin:/usr/bin:/sbin:/bin
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
while [ "$1" != -- ]; do
  mount --bind "$1" "$root$2"
  [ "$3" = rw ] || mount -o remount,bind,ro "$root$2"
  shift 3
done
shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
if [ -n "$user" ]; then set -- "--userspec=$user" "$root" "$@"; else set -- "$root" "$@"; fi
exec env PATH="$path" /usr/bin/setpriv --no-new-privs /usr/sbin/chroot "$@"`;

// The image, unpacked once. Its own environment is the first that a container gets.
export class Image {
  constructor(dir) {
    this.root = join(dir, "image");
    if (!isolated) {
      mkdirSync(this.root);
      this.env = { PATH: `${this.root}:${process.env.PATH}`, SSL_CERT_FILE: "/etc/ssl/certs/ca-certificates.crt" };
      symlinkSync(binary, join(this.root, "agency"));
      return;
    }
    execFileSync(join(project, "scripts/image"), ["--root", this.root], { env: { ...process.env, AGENCY_BINARY: binary }, stdio: ["ignore", "ignore", "inherit"] });
    const config = JSON.parse(readFileSync(`${this.root}.json`, "utf8"));
    this.env = Object.fromEntries(config.Env.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
  }

  // A place to mount something at, as a container runtime makes it in the layer of the container.
  mountPoint(path, isFile) {
    const at = join(this.root, path);
    if (existsSync(at)) return;
    mkdirSync(isFile ? dirname(at) : at, { recursive: true });
    if (isFile) writeFileSync(at, "");
  }
}

// {image, enter, spec, env, mounts: [{source, path, readOnly}], replace: (text) => text}
export class Container {
  constructor(options) {
    Object.assign(this, options);
    this.name = this.spec.name;
    this.log = "";
    this.restarts = 0;
    if (isolated) for (const { path, isFile } of this.mounts) this.image.mountPoint(path, isFile);
  }

  security() {
    const { runAsUser, runAsGroup } = this.spec.securityContext;
    return canBeOthers ? [runAsUser, runAsGroup] : null;
  }

  // Without namespaces, what a text means outside of them.
  meant(text) {
    if (isolated) return text;
    const at = new Map(this.mounts.map(({ path, source }) => [path, source]));
    const paths = [...at.keys()].sort((a, b) => b.length - a.length).join("|");
    return this.replace(text).replaceAll(new RegExp(`(?<![\\w./-])(${paths})(?![\\w-])`, "g"), (path) => at.get(path));
  }

  environment() {
    const all = { ...this.image.env, ...this.env };
    return Object.fromEntries(Object.entries(all).map(([key, value]) => [key, key === "PATH" ? value : this.meant(value)]));
  }

  start() {
    const words = [...this.spec.command, ...(this.spec.args ?? [])].map((word) => this.meant(this.expand(word)));
    const user = this.security();
    const last = ["setpriv", "--pdeathsig", "KILL"]; // nothing outlives this test
    const inside = isolated
      ? [...last, ...this.enter, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enterRoot, "sh", this.image.root, user ? user.join(":") : "",
        ...this.mounts.flatMap(({ source, path, readOnly }) => [source, path, readOnly ? "ro" : "rw"]), "--", ...words]
      : [...last, ...words];
    this.process = spawn(inside[0], inside.slice(1), { env: this.environment(), stdio: ["ignore", "pipe", "pipe"], detached: !isolated });
    for (const out of [this.process.stdout, this.process.stderr]) out.on("data", (chunk) => { this.log += chunk; });
    const { pid } = this.process;
    this.gone = once(this.process, "exit").then(([code, signal]) => {
      if (!isolated) try { process.kill(-pid, "SIGKILL"); } catch { /* it left nobody behind */ }
      return { code, signal };
    });
  }

  // The process that is number 1 inside.
  pid() {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return null;
    if (!isolated) return this.process.pid;
    try {
      return Number(readFileSync(`/proc/${this.process.pid}/task/${this.process.pid}/children`, "utf8").trim().split(" ")[0]) || null;
    } catch { return null; }
  }

  kill(signal) {
    const pid = this.pid();
    if (pid) try { process.kill(pid, signal); } catch { /* gone meanwhile */ }
  }

  // Runs a command in the container: {code, output}.
  async exec(command, timeoutMs) {
    const pid = this.pid();
    if (!pid) return { code: -1, output: "the container is not running" };
    const user = this.security();
    const words = command.map((word) => this.meant(this.expand(word)));
    const inside = isolated ? ["nsenter", "-t", String(pid), "-m", "-p", "-n", "-u", "-r", "-w", ...(user ? ["-S", String(user[0]), "-G", String(user[1])] : []), "--", ...words] : words;
    const child = spawn(inside[0], inside.slice(1), { env: this.environment(), stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const out of [child.stdout, child.stderr]) out.on("data", (chunk) => { output += chunk; });
    const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
    const [code] = await once(child, "close").catch((error) => [-1, error]);
    clearTimeout(timer);
    return { code, output };
  }

  // $(NAME) of what stands before it, as Kubernetes does it.
  expand(text) {
    return text.replace(/\$\(([A-Za-z_][A-Za-z0-9_]*)\)/g, (all, name) => this.env[name] ?? all);
  }

  // CPU seconds and resident bytes of all its processes.
  usage() {
    const total = { cpu: 0, memory: 0 };
    const visit = (pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
        total.cpu += (Number(stat[11]) + Number(stat[12]) + Number(stat[13]) + Number(stat[14])) / 100;
        total.memory += Number(stat[21]) * 4096;
        for (const child of readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ")) if (child) visit(Number(child));
      } catch { /* gone meanwhile */ }
    };
    const pid = this.pid();
    if (pid) visit(pid);
    return total;
  }
}
