// The image, unpacked and run as uid 65532 on a root that nobody can write.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const run = (command, ...words) => {
  const out = spawnSync(command, words, { encoding: "utf8", timeout: 60000 });
  assert.equal(out.status, 0, `${command}: ${out.stdout}${out.stderr}`);
  return out.stdout;
};
const may = spawnSync("unshare", ["-m", "true"]).status === 0;

test("the image runs without root, on a read-only root", { skip: may ? false : "SKIPPED-UNSHARE: needs root for mounts" }, () => {
  const dir = mkdtempSync(join(tmpdir(), "agency-image-"));
  try {
    run(fileURLToPath(new URL("../../scripts/image", import.meta.url)), join(dir, "image.tar"));
    run("tar", "-C", dir, "-xf", join(dir, "image.tar"));
    const config = JSON.parse(readFileSync(join(dir, "config.json"), "utf8"));
    assert.equal(config.config.User, "65532:65532");
    const sum = run("sha256sum", join(dir, "layer.tar")).split(" ")[0];
    assert.deepEqual(config.rootfs.diff_ids, [`sha256:${sum}`]);
    mkdirSync(join(dir, "root"));
    run("tar", "-C", join(dir, "root"), "-xpf", join(dir, "layer.tar"));
    const script = `
      mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"
      for at in data run/agency tmp; do mount -t tmpfs -o mode=1777 none "$1/$at"; done
      mount --rbind /dev "$1/dev"
      exec env -i PATH=/usr/bin AGENCY_DATA=/data/x AGENCY_RUN=/run/agency/sockets \\
        /usr/sbin/chroot --userspec=65532:65532 "$1" /usr/bin/sh -ec '
          if (: >/nothing) 2>/tmp/no; then exit 9; fi
          agency run worker house-agent-0 >/tmp/said &
          pid=$!
          n=0
          until agency bus lat house-agent-0 --timeout 1000 2>/tmp/no; do n=$((n + 1)); test $n -lt 30; done
          kill $pid
          wait $pid
          ls -ln /data'`;
    const said = run("unshare", "-m", "sh", "-ec", script, "sh", join(dir, "root"));
    assert.match(said, /house-agent-0: 1000 round trips/);
    assert.match(said, / 65532 +65532 .* x\n/);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
