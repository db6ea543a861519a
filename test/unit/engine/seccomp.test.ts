import { describe, expect, test } from "vitest";
import profile from "../../../src/engine/seccomp.json" with { type: "json" };
import { seccompProfile, seccompSha256 } from "../../../src/engine/seccomp.ts";

const allowed = new Set(
  profile.syscalls.filter(({ action }) => action === "SCMP_ACT_ALLOW").flatMap(({ names }) => names),
);

describe("the system call filter", () => {
  test("refuses what it does not name", () => {
    expect(profile).toMatchObject({ defaultAction: "SCMP_ACT_ERRNO", defaultErrnoRet: 1 });
  });

  test("knows no 32-bit architecture", () => {
    expect(profile.archMap.flatMap(({ subArchitectures }) => subArchitectures)).toEqual([]);
  });

  test.each([
    ..."io_uring_setup io_uring_enter io_uring_register userfaultfd bpf perf_event_open keyctl add_key".split(
      " ",
    ),
    ..."request_key unshare setns mount umount2 pivot_root chroot fsopen fsmount fsconfig fspick".split(" "),
    ..."open_tree move_mount mount_setattr init_module finit_module kexec_load reboot swapon".split(" "),
    ..."settimeofday clock_settime acct syslog quotactl quotactl_fd file_setattr open_by_handle_at clone3".split(
      " ",
    ),
  ])("does not allow %s", (name) => {
    expect(allowed).not.toContain(name);
  });

  test.each(["ioctl", "socket", "socketpair", "clone", "personality", "mknod", "mknodat"])(
    "allows %s only by its arguments, and only by bits that the kernel reads",
    (name) => {
      const rules = profile.syscalls.filter(({ names }) => names.includes(name));
      expect(rules.length).toBeGreaterThan(0);
      for (const rule of rules) {
        const conditions = "args" in rule ? (rule.args ?? []) : [];
        expect(conditions.length).toBeGreaterThan(0);
        // a second condition on one argument would be taken as an alternative
        expect(new Set(conditions.map(({ index }) => index)).size).toBe(conditions.length);
        for (const { op, value, valueTwo } of conditions) {
          expect(op).toBe("SCMP_CMP_MASKED_EQ");
          expect(value).toBeLessThanOrEqual(0xffffffff);
          expect(Number(BigInt(valueTwo) & BigInt(value))).toBe(valueTwo);
        }
      }
    },
  );

  test.each([
    0x40086602, 0x40046602, 0x401c5820, 0x5412, 0x541c, 0x541d, 0x5423, 0x5000940e, 0x50009401, 0x50009417,
    0x50009418, 0x4008941a,
  ])("has no rule that lets through ioctl 0x%s", (command) => {
    const matching = profile.syscalls.filter(
      (rule) =>
        rule.names.includes("ioctl") &&
        "args" in rule &&
        rule.args?.every(({ value, valueTwo }) => (BigInt(command) & BigInt(value)) === BigInt(valueTwo)),
    );
    expect(matching).toEqual([]);
  });

  test("is handed on as one line, under its hash", () => {
    expect(JSON.parse(seccompProfile)).toEqual(profile);
    expect(seccompProfile).not.toContain("\n");
    expect(seccompSha256).toMatch(/^[0-9a-f]{64}$/);
  });
});
