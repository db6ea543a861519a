import { describe, expect, test } from "vitest";
import { configOf, errorsOf } from "../config/fixture.ts";

const forward = (toml: string) => configOf(`[logs.forward]\n${toml}`).logs.forward;
const refusal = (toml: string) => errorsOf(`[logs.forward]\n${toml}`).join("\n");

describe("[logs.forward]", () => {
  test("is off by itself, with bounds and tags that are ready", () => {
    expect(configOf("").logs.forward).toEqual({
      ...{
        address: undefined,
        tag: "sandboxd.{tenant}",
        bufferBytes: 8 * 1024 * 1024,
        flushIntervalMs: 1_000,
        ack: true,
      },
      tls: { ca: undefined, certificate: undefined, key: undefined },
    });
  });

  test.each([
    ["fluentd.example.com:24224", { kind: "tcp", host: "fluentd.example.com", port: 24_224 }],
    ["[fd00::1]:24224", { kind: "tcp", host: "fd00::1", port: 24_224 }],
    ["unix:///run/fluent.sock", { kind: "unix", path: "/run/fluent.sock" }],
    ["unix:/run/fluent.sock", { kind: "unix", path: "/run/fluent.sock" }],
  ])("the address %s is taken", (address, expected) => {
    expect(forward(`address = "${address}"`).address).toEqual(expected);
  });

  test.each([
    "fluentd",
    "http://fluentd:24224",
    "unix://run/fluent.sock",
    "unix:///run/../x",
    "fluentd:99999",
    "",
  ])("the address %j is refused", (address) => {
    expect(refusal(`address = "${address}"`)).toContain("logs.forward.address");
  });

  test.each(["sandboxes", "a.{tenant}.{sandbox}.{host}.{template}", "x-{tenant}_y"])(
    "the tag %s is taken",
    (tag) => {
      expect(forward(`tag = "${tag}"`).tag).toBe(tag);
    },
  );

  test.each(["", ".a", "a..b", "a.", "a b", "{uid}", "{tenant", "a/b", `${"a".repeat(257)}`])(
    "the tag %j is refused",
    (tag) => {
      expect(refusal(`tag = "${tag}"`)).toContain("logs.forward.tag");
    },
  );

  test("TLS has an authority, certificate and key together, and no unix socket", () => {
    expect(refusal('tls.certificate = "/x.crt"')).toContain("needs logs.forward.tls.key");
    expect(refusal('tls.certificate = "/x.crt"\ntls.key = "/x.key"')).toContain("needs logs.forward.tls.ca");
    expect(refusal('address = "unix:///x"\ntls.ca = "/x.crt"')).toContain("there is no TLS");
  });
});
