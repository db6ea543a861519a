import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkImage } from "../../../src/sandbox/image-policy.ts";

const digest = `sha256:${"a".repeat(64)}`;

function isAllowed(reference: string, ...allowed: readonly string[]): boolean {
  try {
    checkImage(reference, allowed);
    return true;
  } catch (error) {
    expect(error).toMatchObject({
      reason: "IMAGE_NOT_ALLOWED",
      message: expect.stringContaining(`"${reference}"`),
      details: { fields: [{ field: "spec.image" }], hint: expect.any(String) },
    });
    return false;
  }
}

describe("allowed is", () => {
  test.each([
    ["busybox", "busybox"],
    ["busybox", "busybox:latest"],
    ["busybox:latest", "busybox"],
    ["busybox:1.36", "busybox:*"],
    ["busybox", "busybox:*"],
    ["registry.local:5000/team/app", "registry.local:5000/team/app"],
    ["registry.local:5000/team/app:v1", "registry.local:5000/team/app:*"],
    [`busybox@${digest}`, `busybox@${digest}`],
    [digest, digest],
    ["anything:at-all", "*"],
    [digest, "*"],
  ])("%s by %s", (reference, pattern) => {
    expect(isAllowed(reference, pattern)).toBe(true);
    expect(isAllowed(reference, "other", pattern)).toBe(true);
  });
});

describe("not allowed is", () => {
  test.each([
    ["busybox:1.36", "busybox"],
    ["busybox", "busybox:1.36"],
    ["busybox-evil:1", "busybox:*"],
    ["evil/busybox:1", "busybox:*"],
    ["busybox/evil:1", "busybox:*"],
    ["busybox:1/evil:2", "busybox:*"],
    ["busybox:", "busybox:*"],
    // a tag that names another content by its digest is not what the operator tagged
    [`busybox@${digest}`, "busybox:*"],
    [`busybox:1@${digest}`, "busybox:*"],
    [digest, "sha256:*x"],
    ["registry.local:5000/app", "registry.local:*"],
    ["Busybox", "busybox"],
    ["**", "***"],
  ])("%s by %s", (reference, pattern) => {
    expect(isAllowed(reference, pattern)).toBe(false);
  });

  test("anything, where nothing is allowed", () => {
    fc.assert(
      fc.property(fc.string(), (reference) => {
        expect(isAllowed(reference)).toBe(false);
      }),
    );
  });
});
