// What is found about the engine: whether it holds what sandboxes are promised, and which weaknesses are known of it.

import type { EngineDiagnosis } from "../../engine/diagnosis.ts";
import { advisoriesDate, advisoriesOf, isOfDistribution, type Program } from "./advisories.ts";
import { type Finding, failed, finding, ok, unknown, warning } from "./finding.ts";

/** Runtimes that the hardening was tested under. */
const knownRuntimes: ReadonlySet<string> = new Set(["runc", "io.containerd.runc.v2"]);

/** The driver whose size is bounded and whose files logs are read from. */
const logDriver = "json-file";

export function engineFindings(engine: EngineDiagnosis): readonly Finding[] {
  return [
    ...programs.map((program) => ofVersion(program, engine.versions[program])),
    ofLimits(engine),
    ofSeccomp(engine),
    ofModule(engine),
    ofRuntime(engine),
    ofInit(engine),
    ofLogs(engine),
    ofStorage(engine),
    ofRestarts(engine),
    ofWarnings(engine),
  ];
}

const programs: readonly Program[] = ["engine", "containerd", "runc"];

function ofVersion(program: Program, version: string | undefined): Finding {
  const name = `${program}_version`;
  if (version === undefined) {
    return unknown(name, `the engine does not tell its version of ${program}`, `run ${program} --version`);
  }
  let advisories: readonly string[];
  try {
    advisories = advisoriesOf(program, version);
  } catch {
    return unknown(name, `version "${version}" cannot be compared`, "compare it with the advisories by hand");
  }
  if (advisories.length === 0) return ok(name, `${version}; no weakness known (${advisoriesDate})`);
  const known = `${version}: ${advisories.length} known weaknesses (${advisoriesDate})`;
  return isOfDistribution(version)
    ? finding(
        name,
        "WARNING",
        `${known}, possibly mended by the distribution`,
        "look for them in the changelog of its package",
        advisories,
      )
    : finding(name, "WARNING", known, `install a newer ${program}`, advisories);
}

function ofLimits({ enforces }: EngineDiagnosis): Finding {
  const missing = Object.entries(enforces).flatMap(([kind, isHeld]) => (isHeld ? [] : [kind]));
  if (missing.length === 0) {
    return ok("limits", "memory, swap, cpu and pids are limited by the kernel");
  }
  return failed(
    "limits",
    `not limited by the kernel: ${missing.join(", ")}; sandboxes are refused`,
    missing.includes("swap")
      ? "boot with swapaccount=1 (and cgroup_enable=memory)"
      : "enable the cgroup controllers at boot",
  );
}

function ofSeccomp({ security }: EngineDiagnosis): Finding {
  return security.includes("seccomp")
    ? ok("seccomp", "system calls are filtered")
    : failed(
        "seccomp",
        "the engine does not filter system calls; sandboxes would run without their filter",
        "use a kernel with CONFIG_SECCOMP_FILTER and an engine built with seccomp",
      );
}

function ofModule({ security }: EngineDiagnosis): Finding {
  const name = "security_module";
  const active = security.find((one) => one === "apparmor" || one === "selinux");
  return active === undefined
    ? warning(name, "neither AppArmor nor SELinux confines containers", "enable one of them in the kernel")
    : ok(name, `${active} confines containers`);
}

function ofRuntime({ defaultRuntime }: EngineDiagnosis): Finding {
  const name = "runtime";
  return knownRuntimes.has(defaultRuntime)
    ? ok(name, `containers run under ${defaultRuntime}`)
    : warning(
        name,
        `containers run under "${defaultRuntime}", whose isolation is its own`,
        'set default-runtime to "runc" in daemon.json, or run the isolation tests under it',
      );
}

function ofInit({ initProgram }: EngineDiagnosis): Finding {
  return initProgram === ""
    ? failed("init", "the engine has no init program; sandboxes cannot start", "install docker-init (tini)")
    : ok("init", `process 1 of a sandbox is ${initProgram}`);
}

function ofLogs({ logDrivers }: EngineDiagnosis): Finding {
  return logDrivers.includes(logDriver)
    ? ok("log_driver", `logs are bounded by the driver ${logDriver}`)
    : failed("log_driver", `the engine lacks the log driver ${logDriver}`, "install an engine with it");
}

function ofStorage({ storageDriver }: EngineDiagnosis): Finding {
  return storageDriver === "vfs" || storageDriver === "devicemapper"
    ? warning(
        "storage_driver",
        `${storageDriver} makes each sandbox cost the time and space of its whole image`,
        "use overlay2",
      )
    : ok("storage_driver", storageDriver);
}

function ofRestarts({ liveRestore }: EngineDiagnosis): Finding {
  return liveRestore
    ? ok("live_restore", "sandboxes outlive restarts of the engine")
    : warning(
        "live_restore",
        "a restart of the engine stops every sandbox",
        'set "live-restore": true in daemon.json',
      );
}

function ofWarnings({ warnings }: EngineDiagnosis): Finding {
  return warnings.length === 0
    ? ok("engine_warnings", "the engine warns of nothing")
    : warning("engine_warnings", warnings.join("; "), "see docker info");
}
