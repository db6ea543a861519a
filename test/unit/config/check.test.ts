import { generateKeyPairSync } from "node:crypto";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { errorsOf, temporaryDirectory, testCertificate, testKey } from "./fixture.ts";

describe("rules between keys", () => {
  test.each([
    [
      "a default above the greatest limit",
      '[limits.max]\nmemory_bytes = "256MiB"',
      "sandboxd.toml:2: limits.max.memory_bytes: defaults.memory_bytes, 536870912, is more than limits.max.memory_bytes, 268435456",
    ],
    [
      "a default below the least limit",
      "[limits.min]\npids = 300",
      "defaults.pids, 256, is less than limits.min.pids, 300",
    ],
    [
      "limits that leave nothing",
      "[limits]\nmin.pids = 9\nmax.pids = 8",
      "limits.min.pids, 9, is more than limits.max.pids, 8",
    ],
    [
      "a tenant's default range that contradicts itself",
      "[tenants.default.limit_range]\nmin.pids = 9\nmax.pids = 8",
      "tenants.default.limit_range.min.pids, 9, is more than tenants.default.limit_range.max.pids, 8",
    ],
    [
      "a tenant's default above its greatest",
      "[tenants.default.limit_range]\ndefault.cpu_request_millis = 9\nmax.cpu_request_millis = 8",
      "tenants.default.limit_range.default.cpu_request_millis, 9, is more than tenants.default.limit_range.max.cpu_request_millis, 8",
    ],
    [
      "a usual workspace above the greatest",
      '[workspaces]\nmax_bytes = "16MiB"',
      "workspaces.default_bytes, 1073741824, is more than workspaces.max_bytes, 16777216",
    ],
    [
      "backups to nowhere",
      '[backups]\nto = "command"\ndirectory = "/backups"',
      'backups.to is "command", and backups.command is not set',
    ],
    [
      "backups beside what they are of",
      '[backups]\ndirectory = "/srv/w/backups"\n[workspaces]\ndirectory = "/srv/w"',
      "backups.directory is in /srv/w, and would be lost",
    ],
    [
      "a template above the greatest limit",
      "[limits.max]\ncpu_millis = 2000\n[templates.a.resources]\ncpu_millis = 3000",
      "sandboxd.toml:4: templates.a.resources.cpu_millis: templates.a.resources.cpu_millis, 3000, is more than limits.max.cpu_millis, 2000",
    ],
    [
      "a request above its limit",
      "[templates.a.resources]\ncpu_millis = 100\ncpu_request_millis = 101",
      "101 is more than the template's cpu_millis, 100",
    ],
    [
      "a request above the default limit",
      '[templates.a.resources]\nmemory_request_bytes = "1GiB"',
      "1073741824 is more than the template's memory_bytes, 536870912 (defaults.memory_bytes)",
    ],
    [
      "a tmpfs above the memory",
      '[templates.a.resources]\ntmpfs_bytes = "1GiB"',
      "is more than the template's memory_bytes",
    ],
    [
      "shm above the memory",
      '[templates.a.resources]\nshm_bytes = "1GiB"',
      "is more than the template's memory_bytes",
    ],
    [
      "a process of more than 128 KiB",
      `[templates.a]\ncommand = ["${"x".repeat(60_000)}", "${"x".repeat(60_000)}"]\nargs = ["${"x".repeat(12_000)}"]`,
      "command, args and env of templates.a have 132000 bytes; at most 131072 are allowed",
    ],
    [
      "a lease that is longer than the longest life",
      '[templates.a.lifetime]\nttl = "2h"\nmax_lifetime = "1h"',
      "sandboxd.toml:2: templates.a.lifetime.ttl: templates.a.lifetime.ttl, 2h, is more than templates.a.lifetime.max_lifetime, 1h",
    ],
    [
      "a wait before a restart that is longer than the longest",
      '[templates.a.restart]\ndelay = "2s"\nmax_delay = "1s"',
      "templates.a.restart.delay, 2s, is more than templates.a.restart.max_delay, 1s",
    ],
    [
      "a longest wait below the default of the first",
      '[templates.a.restart]\nmax_delay = "1s"',
      "sandboxd.toml:2: templates.a.restart.max_delay: templates.a.restart.delay, 5s, is more than",
    ],
    [
      "two probes in one health check",
      '[templates.a.health_check]\nexec = ["true"]\nhttp_port = 80',
      "templates.a.health_check.exec, templates.a.health_check.http_port are 2 probes; a health check has one",
    ],
    [
      "a probe that is no command",
      "[templates.a.health_check]\nexec = []",
      "templates.a.health_check.exec: names no command",
    ],
    ["plain TCP", '[listen]\ndev_address = "127.0.0.1:0"', "is plain TCP, which is refused without --dev"],
    [
      "the engine's socket as ours",
      '[listen]\nsocket = "/run/docker.sock"',
      "listen.socket is the engine's own socket",
    ],
    [
      "one socket for two listeners",
      '[metrics]\naddress = "unix:/run/sandboxd/sandboxd.sock"',
      "metrics.address is also listen.socket",
    ],
    [
      "half of a TLS listener",
      '[listen.tls]\naddress = "10.0.0.1:7443"',
      "needs listen.tls.certificate, listen.tls.key, listen.tls.client_ca",
    ],
    [
      "a scheduler in plain text",
      '[scheduler]\nendpoints = ["http://10.0.0.1:1"]',
      "http://10.0.0.1:1 is plain text to another machine",
    ],
    [
      "a scheduler without TLS files",
      '[scheduler]\nendpoints = ["https://a:1"]',
      "has https:// but there is no [scheduler.tls]",
    ],
    [
      "a scheduler named twice",
      '[scheduler]\nendpoints = ["http://[::1]:1", "http://[::1]:1"]',
      "names http://[::1]:1 twice",
    ],
    ["every image and some", '[images]\nallow = ["*", "a:1"]', 'has "*" beside others'],
    ["a history without a sample", '[sampling]\nperiod = "1m"\nhistory = "30s"', "holds no sample"],
    [
      "a condition that could never end",
      "[pressure]\ndisk_available_percent = 70",
      "pressure.disk_available_percent, 70, times pressure.recovery, 1.5, is more than 100",
    ],
    [
      "an end of collecting above its beginning",
      "[housekeeping]\nimages_high_percent = 70",
      "housekeeping.images_low_percent, 80, is more than housekeeping.images_high_percent, 70",
    ],
    [
      "a history of too many samples",
      '[sampling]\nperiod = "100ms"\nhistory = "1h"',
      "is more than 3600 samples",
    ],
  ])("%s is refused", (_, toml, part) => {
    const errors = errorsOf(toml);
    expect(errors.join("\n")).toContain(part);
    expect(errors).toHaveLength(1);
    expect(errors[0]).toMatch(/^sandboxd\.toml:\d+: /);
  });

  test.each([
    ["limits at their edges", "[limits]\nmin.pids = 256\nmax.pids = 256"],
    ["a default tmpfs above the default memory", '[defaults]\nmemory_bytes = "32MiB"'],
    [
      "a scheduler on this machine in plain text",
      '[scheduler]\nendpoints = ["http://localhost:1", "http://127.9.9.9:1"]',
    ],
    ["every image", '[images]\nallow = ["*"]'],
    [
      "a first wait above the default of the longest, which grows with it",
      '[templates.a.restart]\ndelay = "10m"',
    ],
    [
      "times of a life at their edges",
      '[templates.a]\nlifetime = { ttl = "1h", max_lifetime = "1h" }\nrestart = { delay = "1s", max_delay = "1s" }',
    ],
  ])("%s is allowed", (_, toml) => {
    expect(errorsOf(toml)).toEqual([]);
  });

  test("--dev allows plain TCP on loopback, and schedulers elsewhere without TLS", () => {
    const toml = '[listen]\ndev_address = "127.0.0.1:0"\n[scheduler]\nendpoints = ["http://10.0.0.1:1"]';
    expect(errorsOf(toml)).toHaveLength(2);
    expect(errorsOf(toml, { dev: true })).toEqual([]);
    expect(errorsOf('[listen]\ndev_address = "10.0.0.1:1"', { dev: true })).toHaveLength(1);
  });

  test("a rule says nothing while one of its keys is itself invalid", () => {
    expect(errorsOf('[limits.max]\npids = "many"\n[defaults]\npids = 5000000')).toHaveLength(2);
  });
});

describe("files for TLS", () => {
  /** [scheduler.tls] with these contents, and the directory that they are in. */
  function tls(files: { readonly certificate: string; readonly key: string }) {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, "crt"), files.certificate);
    writeFileSync(join(directory, "key"), files.key, { mode: 0o600 });
    const toml = ["ca", "certificate", "key"].map(
      (key) => `${key} = "${directory}/${key === "key" ? "key" : "crt"}"`,
    );
    return { directory, toml: `[scheduler.tls]\n${toml.join("\n")}` };
  }

  test("a key and its certificate are accepted", () => {
    expect(errorsOf(tls({ certificate: testCertificate, key: testKey }).toml)).toEqual([]);
  });

  test.each([0o640, 0o604, 0o620])("a key with mode %o is refused with what to do", (mode) => {
    const { directory, toml } = tls({ certificate: testCertificate, key: testKey });
    chmodSync(join(directory, "key"), mode);
    expect(errorsOf(toml)).toEqual([
      `sandboxd.toml:4: scheduler.tls.key: ${directory}/key is a private key with mode 0${mode.toString(8)}, open to other users. Hint: chmod 0600 ${directory}/key`,
    ]);
  });

  test("a key of another certificate is refused", () => {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const key = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
    expect(errorsOf(tls({ certificate: testCertificate, key }).toml)).toEqual([
      expect.stringMatching(/key is not the key of .*crt$/),
    ]);
  });

  test("files that are absent or no PEM are refused without their content", () => {
    const { toml } = tls({ certificate: "hunter2", key: "hunter2" });
    const errors = errorsOf(toml);
    expect(errors.map((error) => error.split(": ")[1])).toEqual([
      "scheduler.tls.certificate",
      "scheduler.tls.key",
      "scheduler.tls.ca",
    ]);
    expect(errors.join("\n")).not.toContain("hunter2");
    const absent = ["ca", "certificate", "key"].map((key) => `${key} = "/nonexistent/${key}"`).join("\n");
    expect(errorsOf(`[scheduler.tls]\n${absent}`).join("\n")).toContain("ENOENT");
  });
});
