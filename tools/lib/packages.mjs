// Debian packages: what a tool needs and the machine lacks is installed as root, or said in one line.
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Advice, run } from "./process.mjs";

const policy = "/usr/sbin/policy-rc.d";

function isDebian() {
  const release = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : "";
  return /^ID(_LIKE)?=.*debian/m.test(release);
}

async function isInstalled(name) {
  const { status, output } = await run("dpkg-query", ["--status", name], { quiet: true });
  return status === 0 && output.includes("Status: install ok installed");
}

/** Whether packages can be installed at all: root, on Debian or a relative of it. */
function canInstall() {
  return process.getuid() === 0 && isDebian();
}

/**
 * Sees to it that Debian packages are there. Fails with one line of advice where it can't install them. Services
 * that the packages bring are not started: an engine that nobody asked for would change the host's firewall.
 */
export async function installPackages(names, { log, why }) {
  const wanted = names.join(" ");
  if (!isDebian()) throw new Advice(`not Debian: install these yourself: ${wanted}`);
  const missing = [];
  for (const name of names) if (!(await isInstalled(name))) missing.push(name);
  if (missing.length === 0) return;
  if (!canInstall()) {
    throw new Advice(
      `${why} needs ${missing.join(", ")}: run 'apt-get install ${missing.join(" ")}' as root first`,
    );
  }
  log(`installing ${missing.join(", ")} (for ${why})`);
  const ownPolicy = !existsSync(policy);
  if (ownPolicy) writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  try {
    const apt = (args) =>
      run("apt-get", ["-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=2", ...args], {
        quiet: true,
        timeoutMs: 600_000,
        env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
      });
    const install = ["install", "-y", "--no-install-recommends", ...missing];
    let result = await apt(install);
    if (result.status !== 0) {
      await apt(["update"]);
      result = await apt(install);
    }
    if (result.status !== 0) {
      const reason = result.output.trim().split("\n").slice(-3).join(" ");
      throw new Advice(`apt-get could not install ${missing.join(" ")}: ${reason}`);
    }
  } finally {
    if (ownPolicy) rmSync(policy, { force: true });
  }
}
