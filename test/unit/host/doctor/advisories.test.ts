import { describe, expect, test } from "vitest";
import { advisoriesOf, isOfDistribution } from "../../../../src/host/doctor/advisories.ts";

describe("a version is weak until the fix of its own line", () => {
  test.each([
    ["1.1.11", ["CVE-2024-21626", "CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881", "CVE-2026-41579"]],
    ["1.1.12", ["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881", "CVE-2026-41579"]],
    ["1.2.8", ["CVE-2026-41579"]],
    ["1.3.3", ["CVE-2026-41579"]],
    ["1.3.6", []],
    ["1.4.0-rc.2", ["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881", "CVE-2026-41579"]],
    ["1.4.0-rc.3", ["CVE-2026-41579"]],
    ["1.4.0", ["CVE-2026-41579"]],
    ["v1.4.3", []],
    ["1.5.0-rc.2", ["CVE-2026-41579"]],
    ["1.5.0", []],
    ["1.10.0", []],
    ["2.0.0", []],
  ])("runc %s", (version, expected) => {
    expect(advisoriesOf("runc", version)).toEqual(expected);
  });

  test("a line that never got the fix stays weak, and one that is newer than all fixes never was", () => {
    expect(advisoriesOf("containerd", "1.5.18")).toContain("CVE-2024-40635");
    expect(advisoriesOf("containerd", "2.3.2")).toEqual([]);
    expect(advisoriesOf("containerd", "2.4.0")).toEqual([]);
    expect(advisoriesOf("engine", "29.5.1")).toEqual([]);
    expect(advisoriesOf("engine", "24.0.9")).toContain("CVE-2024-23651");
  });

  test("what is no version cannot be judged", () => {
    for (const version of ["", "main", "1", "1.2"]) {
      expect(() => advisoriesOf("runc", version)).toThrow(RangeError);
    }
  });
});

test("a distribution's own mark is seen", () => {
  for (const version of ["1.1.5+ds1", "1.6.20~ds1", "20.10.24+dfsg1", "27.5.1-0ubuntu3", "1.1.12-3.el9"]) {
    expect(isOfDistribution(version), version).toBe(true);
  }
  for (const version of ["1.1.12", "v2.0.4", "1.4.0-rc.3", "29.5.1"]) {
    expect(isOfDistribution(version), version).toBe(false);
  }
});
