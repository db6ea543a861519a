// What is found on hosts that lack something: each finding by what is seen, with its verdict, and with a hint unless all is well.

import { X509Certificate } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { diagnosisOf, type EngineDiagnosis } from "../../../../src/engine/diagnosis.ts";
import {
  certificateFindings,
  conditionFindings,
  descriptorFinding,
  probeFinding,
  stateFinding,
  toolboxFinding,
} from "../../../../src/host/doctor/daemon-findings.ts";
import { engineFindings } from "../../../../src/host/doctor/engine-findings.ts";
import { type Finding, failed, ok, unknown, warning, worstOf } from "../../../../src/host/doctor/finding.ts";
import { kernelFindings } from "../../../../src/host/doctor/kernel-findings.ts";
import { createAuthority } from "../../api/certificates.ts";

const sound: EngineDiagnosis = {
  versions: { engine: "29.6.0", containerd: "2.3.4", runc: "1.5.1" },
  defaultRuntime: "runc",
  liveRestore: true,
  enforces: { memory: true, swap: true, cpu: true, pids: true },
  security: ["apparmor", "seccomp", "cgroupns"],
  storageDriver: "overlay2",
  logDrivers: ["json-file", "journald"],
  initProgram: "docker-init",
  warnings: [],
};

const verdictsOf = (findings: readonly Finding[]) =>
  Object.fromEntries(
    findings.filter(({ verdict }) => verdict !== "OK").map((one) => [one.name, one.verdict]),
  );

/** A directory with these files. */
function treeOf(files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), "doctor-"));
  onTestFinished(() => rmSync(root, { recursive: true }));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

describe("the engine", () => {
  test("a sound one is well in every respect", () => {
    expect(verdictsOf(engineFindings(sound))).toEqual({});
  });

  test.each<[string, Partial<EngineDiagnosis>, Record<string, string>]>([
    [
      "limits that are not held",
      { enforces: { ...sound.enforces, swap: false, pids: false } },
      { limits: "FAILED" },
    ],
    ["no filter of system calls", { security: ["apparmor"] }, { seccomp: "FAILED" }],
    ["no security module", { security: ["seccomp"] }, { security_module: "WARNING" }],
    ["another runtime", { defaultRuntime: "runsc" }, { runtime: "WARNING" }],
    ["no init", { initProgram: "" }, { init: "FAILED" }],
    ["no bounded log", { logDrivers: ["journald"] }, { log_driver: "FAILED" }],
    ["a slow storage driver", { storageDriver: "vfs" }, { storage_driver: "WARNING" }],
    ["sandboxes that go with it", { liveRestore: false }, { live_restore: "WARNING" }],
    ["words of its own", { warnings: ["No blkio throttle"] }, { engine_warnings: "WARNING" }],
    ["a weak runc", { versions: { ...sound.versions, runc: "1.1.4" } }, { runc_version: "WARNING" }],
    [
      "no version of runc",
      { versions: { engine: "29.6.0", containerd: "2.3.4" } },
      { runc_version: "UNKNOWN" },
    ],
    [
      "a version that is none",
      { versions: { ...sound.versions, engine: "library-import" } },
      { engine_version: "UNKNOWN" },
    ],
  ])("with %s", (_, change, expected) => {
    const findings = engineFindings({ ...sound, ...change });
    expect(verdictsOf(findings)).toEqual(expected);
    for (const { verdict, hint } of findings) expect(hint === "").toBe(verdict === "OK");
  });

  test("of a distribution's version it is said that it may be mended", () => {
    const found = engineFindings({ ...sound, versions: { ...sound.versions, runc: "1.1.5+ds1" } });
    const runc = found.find(({ name }) => name === "runc_version");
    expect(runc?.advisories).toContain("CVE-2024-21626");
    expect(runc?.message).toContain("possibly mended by the distribution");
  });

  test("what the engine answers is read by its own names, and may be missing", () => {
    const version = { Version: "20.10.24", Components: [{ Name: "runc", Version: "1.1.5" }] };
    expect(diagnosisOf(version, {})).toEqual({
      versions: { engine: "20.10.24", runc: "1.1.5" },
      defaultRuntime: "",
      liveRestore: false,
      enforces: { memory: false, swap: false, cpu: false, pids: false },
      security: [],
      storageDriver: "",
      logDrivers: [],
      initProgram: "",
      warnings: [],
    });
    const info = { SecurityOptions: ["name=seccomp,profile=default", "name=userns"], SwapLimit: true };
    const { security, enforces } = diagnosisOf(version, info);
    expect(security).toEqual(["seccomp", "userns"]);
    expect(enforces.swap).toBe(true);
  });
});

describe("the kernel", () => {
  test("one that leaves everything open is told so", () => {
    const root = treeOf({
      "proc/sys/kernel/io_uring_disabled": "0\n",
      "proc/sys/kernel/unprivileged_bpf_disabled": "0\n",
      "proc/sys/kernel/yama/ptrace_scope": "0\n",
    });
    expect(verdictsOf(kernelFindings(root))).toEqual({
      io_uring: "WARNING",
      bpf: "WARNING",
      ptrace: "WARNING",
      stall_information: "WARNING",
    });
  });

  test("one that is closed, or lacks the settings, is well", () => {
    const root = treeOf({ "proc/sys/kernel/io_uring_disabled": "2\n", "proc/pressure/memory": "" });
    expect(verdictsOf(kernelFindings(root))).toEqual({});
  });
});

describe("the daemon's place", () => {
  test("each condition that holds is a finding of its own", () => {
    const condition = { active: true, message: "m", hint: "h", timeMs: 0 };
    expect(
      verdictsOf(
        conditionFindings([
          { ...condition, type: "ENGINE_ABSENT" },
          { ...condition, type: "DISK_PRESSURE" },
          { ...condition, type: "STATE_UNWRITABLE", active: false },
        ]),
      ),
    ).toEqual({ engine_absent: "FAILED", disk_pressure: "WARNING" });
    expect(conditionFindings([]).map(({ verdict }) => verdict)).toEqual(["OK"]);
  });

  test("descriptors must suffice for all sandboxes", () => {
    const limits = join(
      treeOf({ limits: "Max open files            1800      524288    files\n" }),
      "limits",
    );
    expect(descriptorFinding(100, limits).verdict).toBe("OK");
    expect(descriptorFinding(101, limits).verdict).toBe("WARNING");
    const none = join(treeOf({ limits: "Max open files   unlimited  unlimited   files\n" }), "limits");
    expect(descriptorFinding(1_000_000, none).verdict).toBe("OK");
  });

  test("a state that the next boot forgets is told", async () => {
    expect((await stateFinding("/dev/shm", 1_000)).verdict).toBe("WARNING");
    expect((await stateFinding("/nowhere", 1_000)).verdict).toBe("UNKNOWN");
  });

  test("programs for HTTP health checks are looked for", async () => {
    expect((await probeFinding()).verdict).toBe("OK");
    const missing = await probeFinding(treeOf({ nsenter: "" }));
    expect(missing.verdict).toBe("WARNING");
    // what may not be executed is not there
    expect(missing.message).toContain("nsenter, bash");
  });

  test("a certificate is told before it ends", async () => {
    const directory = treeOf({ "not.pem": "no certificate" });
    const { certFile: file } = await createAuthority(directory, "own");
    const endsMs = Date.parse(new X509Certificate(readFileSync(file)).validTo);
    const day = 86_400_000;
    const at = async (nowMs: number) =>
      (
        await certificateFindings({ "listen.tls.certificate": file, "scheduler.tls.ca": undefined }, nowMs)
      ).map(({ verdict }) => verdict);
    expect(await at(endsMs - 15 * day)).toEqual(["OK"]);
    expect(await at(endsMs - 13 * day)).toEqual(["WARNING"]);
    expect(await at(endsMs)).toEqual(["FAILED"]);
    const unreadable = { "listen.tls.client_ca": join(directory, "not.pem"), "scheduler.tls.ca": "/nowhere" };
    const found = await certificateFindings(unreadable, 0);
    expect(found.map(({ verdict }) => verdict)).toEqual(["FAILED", "FAILED"]);
    expect(found[0]?.message).toContain("listen.tls.client_ca");
  });
});

test("the worst verdict counts", () => {
  expect(worstOf([])).toBe("OK");
  expect(worstOf([ok("a", ""), unknown("b", "", "")])).toBe("UNKNOWN");
  expect(worstOf([failed("c", "", ""), warning("a", "", ""), ok("b", "")])).toBe("FAILED");
});

test("a host that cannot give sandboxes the toolbox does not keep its promise", () => {
  const of = (problem: string | undefined) =>
    toolboxFinding({ version: () => "0123", problem: () => problem });
  expect(of(undefined)).toMatchObject({ name: "toolbox", verdict: "OK", hint: "" });
  expect(of("ENOSPC")).toMatchObject({
    name: "toolbox",
    verdict: "FAILED",
    message: expect.stringContaining("ENOSPC"),
    hint: expect.stringContaining("restart the daemon"),
  });
});
