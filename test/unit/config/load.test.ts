import { chmodSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { loadConfig } from "../../../src/config/load.ts";
import { configOf, errorsOf, load, temporaryFile } from "./fixture.ts";

describe("defaults", () => {
  test("nothing given is a valid configuration", () => {
    const loaded = loadConfig({ env: { PATH: "/bin" }, flags: [], dev: false });
    expect(loaded).toMatchObject({
      config: { engine: { socket: "/var/run/docker.sock", relistPeriodMs: 30_000 } },
    });
  });

  test("values are read in the units that their names say", () => {
    const config = configOf(`
      [state]
      event_retention_age = "1h30m"
      [listen]
      socket_mode = "0600"
      [listen.limits]
      message_bytes = "1MiB"
      [tenants]
      uid_range = "200000-200010"
      [metrics]
      address = "[::1]:0"
    `);
    expect(config.state.eventRetentionAgeMs).toBe(5_400_000);
    expect(config.listen.socketMode).toBe(0o600);
    expect(config.listen.limits.messageBytes).toBe(1_048_576);
    expect(config.tenants.uidRange).toEqual({ first: 200_000, last: 200_010 });
    expect(config.metrics.address).toEqual({ kind: "tcp", host: "::1", port: 0 });
  });

  test("a template has its own defaults, and leaves out what it doesn't say", () => {
    const { templates } = configOf(
      '[templates.shell]\nimage = "busybox:1.36"\n[templates.shell.resources]\npids = 64',
    );
    expect(templates["shell"]).toMatchObject({ networkMode: "none", stopGraceMs: 10_000, env: {} });
    expect(templates["shell"]?.resources).toMatchObject({ pids: 64, cpuMillis: undefined });
  });

  test("an empty template exists", () => {
    expect(Object.keys(configOf("[templates.bare]").templates)).toEqual(["bare"]);
  });
});

describe("precedence", () => {
  const file = '[engine]\nsocket = "/file.sock"\nrelist_period = "2s"\norphan_grace = "2s"';
  const env = { SANDBOXD_ENGINE_RELIST_PERIOD: "3s", SANDBOXD_ENGINE_ORPHAN_GRACE: "3s" };
  const flags = ["engine.orphan_grace=4s"];

  test("flags win over the environment, it over the file, and that over the defaults", () => {
    const { engine } = configOf(file, { env, flags });
    expect(engine).toMatchObject({
      cgroupParent: "/sandboxd",
      socket: "/file.sock",
      relistPeriodMs: 3_000,
      orphanGraceMs: 4_000,
    });
  });

  test("each setting says where it came from", () => {
    const loaded = load(file, { env, flags });
    if ("errors" in loaded) throw new Error("invalid");
    const kinds = Object.fromEntries(loaded.settings.map(({ key, source }) => [key, source.kind]));
    expect(kinds).toMatchObject({
      "engine.cgroup_parent": "default",
      "engine.socket": "file",
      "engine.relist_period": "environment",
      "engine.orphan_grace": "flag",
    });
  });

  test("the last flag of a key wins", () => {
    expect(configOf("", { flags: ["log.level=warn", "log.level=error"] }).log.level).toBe("error");
  });

  test("lists and tables are written with commas, numbers as they are", () => {
    const config = configOf("", {
      env: { SANDBOXD_HOST_LABELS: "zone=a,disk=nvme", SANDBOXD_CAPACITY_CPU_OVERCOMMIT: "2.5" },
      flags: [
        "images.allow=busybox:1.36, alpine:*",
        "templates.shell.image=busybox:1.36",
        "state.event_retention=2000",
      ],
    });
    expect(config.host.labels).toEqual({ zone: "a", disk: "nvme" });
    expect(config.images.allow).toEqual(["busybox:1.36", "alpine:*"]);
    expect(config.capacity.cpuOvercommit).toBe(2.5);
    expect(config.state.eventRetention).toBe(2_000);
    expect(config.templates["shell"]?.image).toBe("busybox:1.36");
  });
});

describe("errors", () => {
  test("all of them come at once, each with its place, value, bounds and hint", () => {
    const errors = errorsOf('[engine]\n\nsokcet = "/x"\nrelist_period = 5\n[log]\nlevel = "loud"', {
      env: { SANDBOXD_ENGNE_SOCKET: "/x", SANDBOXD_CAPACITY_MAX_SANDBOXES: "0" },
      flags: ["capacity.max_sandboxs=3", "log=1", "nonsense"],
    });
    expect(errors).toEqual([
      'sandboxd.toml:3: engine.sokcet: is unknown. Hint: did you mean "socket"?',
      'SANDBOXD_ENGNE_SOCKET: is the name of no key. Hint: did you mean "SANDBOXD_ENGINE_SOCKET"?',
      '--set capacity.max_sandboxs: capacity.max_sandboxs: is unknown. Hint: did you mean "max_sandboxes"?',
      "--set log: log: is a section, not a key. Hint: write --set section.key=value",
      '--set: "nonsense" is not section.key=value',
      'sandboxd.toml:4: engine.relist_period: 5 is not a duration; allowed: duration, 1s to 10m. Hint: write a string with units, the largest first: d, h, m, s, ms ("1h30m", "500ms")',
      "SANDBOXD_CAPACITY_MAX_SANDBOXES: capacity.max_sandboxes: 0 is too small; allowed: integer, 1 to 10000",
      'sandboxd.toml:6: log.level: "loud" is unknown; allowed: "trace", "debug", "info", "warn", "error", "fatal"',
    ]);
  });

  test("a key in the wrong section is told where it belongs", () => {
    expect(errorsOf("[host]\nmax_sandboxes = 3")).toEqual([
      'sandboxd.toml:2: host.max_sandboxes: is unknown. Hint: did you mean "capacity.max_sandboxes"?',
    ]);
  });

  test("lines are found behind strings over several lines and dotted keys", () => {
    const toml = `[templates.a]\nargs = ["""\n[engine]\nsocket = 1\n"""]\n\n[engine]\ntimeouts.list = "0s"`;
    expect(errorsOf(toml)).toEqual([
      expect.stringMatching(/^sandboxd\.toml:8: engine\.timeouts\.list: "0s" is too small/),
    ]);
  });

  test("a syntax error has line and column, and errors of variables still show", () => {
    expect(errorsOf("[log]\nlevel = info", { env: { SANDBOXD_LOG_LEVEL: "loud" } })).toEqual([
      expect.stringMatching(/^sandboxd\.toml:2:\d+: is not valid TOML: /),
      expect.stringMatching(/^SANDBOXD_LOG_LEVEL: log\.level: "loud" is unknown/),
    ]);
  });

  test.each([
    ["an integer beyond 2^53", "capacity.max_sandboxes = 9007199254740993", "is beyond 2^53"],
    ["an integer beyond 2^63", "capacity.max_sandboxes = 9223372036854775808", ""],
    ["a fraction where an integer belongs", "capacity.max_sandboxes = 5.0", "5 is not an integer"],
    ["a word where yes or no belongs", 'pressure.evict = "yes"', '"yes" is neither true nor false'],
    ["not a number", "capacity.cpu_overcommit = nan", "is too"],
    ["infinity", "capacity.cpu_overcommit = inf", "is too large"],
    ["a date", "log.level = 2020-01-01", "a date or time is unknown"],
    ["a table for a key", "log.level.x = 1", "a table is unknown"],
    ["a value for a section", "log = 3", "3 is not a table"],
    ["an array for a section", "[[log]]", "an array of 1 is not a table"],
    ["a size in decimal units", 'defaults.memory_bytes = "512MB"', '"512MB" is not a size'],
    ["a duration without a unit", 'sampling.period = "1"', '"1" is not a duration'],
    ["a relative path", 'state.directory = "state"', "is not an absolute path"],
    ["a path with ..", 'state.directory = "/a/../b"', 'contains ".."'],
    [
      "a socket path that no address holds",
      `engine.socket = "/${"x".repeat(120)}"`,
      "is longer than 107 bytes",
    ],
    ["rights of others on the socket", 'listen.socket_mode = "0666"', "is not a string of four octal digits"],
    ["the wildcard address", 'listen.tls.address = "0.0.0.0:7443"', "is the wildcard address"],
    ["the wildcard of IPv6", 'listen.tls.address = "[::]:7443"', "is the wildcard address"],
    ["a port beyond 65535", 'listen.tls.address = "10.0.0.1:65536"', "is not an address and a port"],
    ["metrics on another address", 'metrics.address = "10.0.0.1:9464"', "is not a loopback address"],
    ["user ids of the system", 'tenants.uid_range = "1000-20000"', "is not a range of user ids"],
    ["user ids in the wrong order", 'tenants.uid_range = "30000-20000"', "is not a range of user ids"],
    ["the overflow uid", 'tenants.uid_range = "60000-70000"', "contains 65534"],
    ["a cgroup that others are in", 'engine.cgroup_parent = "/system"', 'is not "/" and one name'],
    ["a cgroup below another", 'engine.cgroup_parent = "/a/b"', 'is not "/" and one name'],
    ["an image pattern with a star inside", 'images.allow = ["a*b"]', 'has entry 1 "a*b"'],
    ["an entry that is no string", "images.allow = [1]", "has entry 1 1, which is not a string"],
    ["a reserved label", '[host.labels]\n"sandboxd.x" = "1"', 'has the key "sandboxd.x"'],
    ["a reserved variable", 'templates.a.env.LD_PRELOAD = "x"', 'has the key "LD_PRELOAD"'],
    [
      "a working directory of the kernel's",
      'templates.a.working_dir = "/proc/self/cwd"',
      "is under /proc, /sys or /dev",
    ],
    ["a name that is none", "[templates.Bad_Name]", '"Bad_Name" is not a name'],
    ["an endpoint with a path", 'scheduler.endpoints = ["https://a:1/x"]', "is not the URL of a host"],
    ["the prototype", "__proto__.x = 1", "unsafe"],
  ])("%s is refused", (_, toml, part) => {
    expect(errorsOf(toml).join("\n")).toContain(part);
    expect(errorsOf(toml)).toHaveLength(1);
  });

  test("secrets are not shown: values of env, credentials in a URL", () => {
    const errors = errorsOf(
      '[templates.a.env]\nTOKEN = "hunter\\u0000two"\n[scheduler]\nendpoints = ["http://u:hunter2@localhost:1"]',
    );
    expect(errors).toHaveLength(2);
    expect(errors.join("\n")).not.toContain("hunter");
  });

  test("control characters of a value don't reach the terminal", () => {
    expect(errorsOf('log.level = "\\u001b[31m"')[0]).toContain('"\\u001b[31m"');
  });

  test("variables of the test harness are left alone", () => {
    expect(errorsOf("", { env: { SANDBOXD_TEST_ENGINE: "/x" } })).toEqual([]);
  });

  test("a file that isn't there, isn't text, or is everyone's to write is refused by name", () => {
    const of = (file: string) => errorsOf("", { file }).join("\n");
    expect(of("/nonexistent/sandboxd.toml")).toMatch(/^sandboxd\.toml: cannot be read: ENOENT/);
    expect(of(temporaryFile(Uint8Array.of(0x66, 0xff)))).toContain("cannot be read");
    const open = temporaryFile("", 0o600);
    expect(of(open)).toBe("");
    expect(of(makeWritable(open))).toContain("can be written by everyone");
  });
});

function makeWritable(file: string): string {
  chmodSync(file, 0o666);
  return file;
}
