import { describe, expect, test } from "vitest";
import { parseTarget } from "../../../../src/cli/ctl/target.ts";

describe("where the daemon is", () => {
  test("by default the socket; an option wins over the environment, and the daemon's own variables mean nothing", () => {
    expect(parseTarget({}, { SANDBOXD_HOST: "unix:///no", SANDBOXCTL_HOST: "" })).toMatchObject({
      kind: "unix",
      path: "/run/sandboxd/sandboxd.sock",
    });
    const env = { SANDBOXCTL_HOST: "unix:///a.sock" };
    expect(parseTarget({}, env)).toMatchObject({ kind: "unix", path: "/a.sock" });
    expect(parseTarget({ host: "unix:///b.sock" }, env)).toMatchObject({ path: "/b.sock" });
  });

  test("TLS needs a certificate and its key", () => {
    const files = { SANDBOXCTL_CERT: "c.pem", SANDBOXCTL_KEY: "k.pem", SANDBOXCTL_CA: "ca.pem" };
    expect(parseTarget({ host: "https://host:7443", cert: "other.pem" }, files)).toEqual({
      kind: "tls",
      name: "https://host:7443",
      url: "https://host:7443",
      cert: "other.pem",
      key: "k.pem",
      ca: "ca.pem",
    });
    expect(() => parseTarget({ host: "https://host:7443" }, {})).toThrow("--cert and --key");
  });

  test("without TLS only this machine is called", () => {
    for (const host of ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"])
      expect(parseTarget({ host }, {})).toMatchObject({ kind: "plain", url: host });
    expect(() => parseTarget({ host: "http://10.0.0.1:1" }, {})).toThrow("without TLS");
  });

  test.each(["tcp://x", "unix://relative", "host:1", "https://h/path", "https://user@h", ""])(
    "%j is refused, or is nothing",
    (host) => {
      expect(() => parseTarget({ host }, {})).toThrow("--host");
    },
  );
});
