import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { encodeError } from "../../../../src/api/error-encoding.ts";
import { failureLines, isInterruption, reasonOf } from "../../../../src/cli/ctl/failure.ts";
import { unusableCode } from "../../../../src/cli/ctl/unusable.ts";
import { invalidField, SandboxdError } from "../../../../src/errors.ts";

const lines = (error: unknown) => failureLines(error, "unix:///x.sock");

describe("failures", () => {
  test("are a line with the reason, what was wrong, and the hint, once each", () => {
    const error = encodeError(invalidField("spec.image", 'no such \u001b[2J"x"', "give another"));
    expect(lines(error)).toEqual([
      'sandboxctl: spec.image: no such \\x1b[2J"x" (INVALID_FIELD)',
      "hint: give another",
    ]);
    const fields = [
      { field: "spec.image", description: "no such" },
      { field: "", description: "and 3 more" },
    ];
    expect(lines(encodeError(new SandboxdError("INVALID_FIELD", "two are wrong", { fields })))).toEqual([
      "sandboxctl: two are wrong (INVALID_FIELD)",
      "  spec.image: no such",
      "  and 3 more",
    ]);
    const quotas = [{ level: "TENANT", resource: "pids", limit: 1, promised: 1, asked: 1, free: 0 }] as const;
    expect(lines(encodeError(new SandboxdError("TENANT_QUOTA_EXCEEDED", "too much", { quotas })))).toEqual([
      "sandboxctl: too much (TENANT_QUOTA_EXCEEDED)",
      "  tenant: pids: limit 1, promised 1, asked 1, free 0",
    ]);
  });

  test("of the connection name the place; of another server's only the code", () => {
    const cause = Object.assign(new Error("connect ENOENT"), { code: "ENOENT" });
    const refused = new ConnectError("connect ENOENT", Code.Internal, undefined, undefined, cause);
    expect(lines(refused)[0]).toBe("sandboxctl: no answer from unix:///x.sock: connect ENOENT");
    expect(lines(new ConnectError("what", Code.Unimplemented))).toEqual(["sandboxctl: what (UNIMPLEMENTED)"]);
    expect(lines(new Error("a\nb"))).toEqual(["sandboxctl: a\\nb"]);
  });

  test("that another try may mend are those of the connection, and a daemon that is going", () => {
    expect(isInterruption(new ConnectError("reset", Code.Aborted))).toBe(true);
    expect(isInterruption(encodeError(new SandboxdError("SHUTTING_DOWN", "going")))).toBe(true);
    expect(isInterruption(encodeError(new SandboxdError("GENERATION_MISMATCH", "no")))).toBe(false);
    expect(isInterruption(encodeError(new SandboxdError("INTERNAL", "no")))).toBe(false);
    expect(isInterruption(new Error("reset"))).toBe(false);
    expect(reasonOf(encodeError(new SandboxdError("INTERNAL", "no")))).toBe("INTERNAL");
  });

  test("of a command's start are 127 if there is none, and 126 otherwise", () => {
    expect(unusableCode("x: no such file", {})).toBe(127);
    expect(unusableCode("x: it cannot be run", { error: "ENOENT" })).toBe(127);
    expect(unusableCode("x: permission denied", { error: "EACCES" })).toBe(126);
  });
});
