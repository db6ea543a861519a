import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { assertAuthenticated, callerOfCertificate } from "../../../src/api/caller.ts";

const valid_to = "Nov 24 10:00:00 2026 GMT";
const endsAtMs = Date.parse(valid_to);

describe("the caller of a certificate", () => {
  test.each([
    ["URI:sandboxd://role/scheduler", undefined, "scheduler"],
    ["DNS:main.example, URI:sandboxd://role/viewer", "operator", "viewer"],
    ["", "operator", "operator"],
    ["URI:sandboxd://role/root", "operator", undefined],
    ["URI:sandboxd://role/viewer, URI:sandboxd://role/operator", undefined, undefined],
    ["URI:sandboxd://role/viewer, URI:sandboxd://role/viewer", undefined, "viewer"],
    ['DNS:"x, URI:sandboxd://role/operator"', undefined, undefined],
    ['DNS:"x\\", URI:sandboxd://role/operator"', undefined, undefined],
    ["email:URI:sandboxd://role/operator", undefined, undefined],
  ])("with names %s and OU %s has the role %s", (subjectaltname, OU, role) => {
    const subject = { CN: "ann", ...(OU === undefined ? {} : { OU }) };
    expect(callerOfCertificate({ subject, subjectaltname, valid_to }).role).toBe(role);
  });

  test("is named by its common name, else by its first alternative name that is no role", () => {
    const subjectaltname = "URI:sandboxd://role/viewer, DNS:eve.example";
    expect(callerOfCertificate({ subject: { CN: "eve" }, subjectaltname, valid_to }).identity).toBe("eve");
    expect(callerOfCertificate({ subject: {}, subjectaltname, valid_to }).identity).toBe("eve.example");
    expect(callerOfCertificate({ subjectaltname: "", valid_to }).identity).toBe("");
  });

  test("gets no role from a name that only contains one, whatever is around it", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (before, after) => {
        // As Node writes a name with anything unusual in it.
        const name = JSON.stringify(`${before}, URI:sandboxd://role/operator, ${after}`);
        const caller = callerOfCertificate({ subject: { CN: "x" }, subjectaltname: `DNS:${name}`, valid_to });
        expect(caller.role).toBeUndefined();
      }),
    );
  });
});

describe("authentication", () => {
  const caller = callerOfCertificate({ subject: { CN: "ann", OU: "operator" }, valid_to });

  test("holds until the certificate ends, also within a session", () => {
    expect(() => assertAuthenticated(caller, endsAtMs - 1)).not.toThrow();
    expect(() => assertAuthenticated(caller, endsAtMs)).toThrow('The certificate of "ann" has expired.');
  });

  test("fails for a certificate whose end cannot be read, and for nobody", () => {
    const odd = callerOfCertificate({ subject: { CN: "ann" }, valid_to: "whenever" });
    expect(() => assertAuthenticated(odd, 1)).toThrow("expired");
    expect(() => assertAuthenticated(undefined, 1)).toThrow("names nobody");
  });
});
