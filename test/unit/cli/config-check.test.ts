import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { checkConfig } from "../../../src/cli/config-check.ts";
import { loadConfig } from "../../../src/config/load.ts";

/** Runs the command on a file, as the shell would see it. */
function check(toml: string, env: Readonly<Record<string, string>> = {}) {
  const directory = mkdtempSync(join(tmpdir(), "sandboxd-check-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const configFile = join(directory, "sandboxd.toml");
  writeFileSync(configFile, toml);
  const written = { stdout: "", stderr: "" };
  const sink = (name: keyof typeof written) => ({
    write(text: string) {
      written[name] += text;
    },
  });
  const exitCode = checkConfig({
    configFile,
    dev: false,
    set: [],
    env,
    stdout: sink("stdout"),
    stderr: sink("stderr"),
  });
  return { exitCode, configFile, ...written };
}

test("a valid configuration is printed as it takes effect, with sources, as TOML, and exits 0", () => {
  const toml = '[log]\nlevel = "warn"\n[templates.shell]\nimage = "busybox:1.36"';
  const { exitCode, stdout, stderr, configFile } = check(toml, { SANDBOXD_SAMPLING_PERIOD: "2s" });
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  expect(stdout).toMatch(/^# OK: /);
  expect(stdout).toContain(`log.level = "warn" # ${configFile}\n`);
  expect(stdout).toContain('sampling.period = "2s" # SANDBOXD_SAMPLING_PERIOD\n');
  expect(stdout).toContain('engine.socket = "/var/run/docker.sock" # default\n');
  expect(stdout).toContain("# host.id is not set\n");
  writeFileSync(configFile, stdout);
  expect(loadConfig({ file: configFile, env: {}, flags: [], dev: false })).toMatchObject({
    config: {
      log: { level: "warn" },
      sampling: { periodMs: 2_000 },
      templates: { shell: { image: "busybox:1.36" } },
    },
  });
});

test("values of a template's environment are not printed", () => {
  const { stdout } = check('[templates.a.env]\nAPI_KEY = "hunter2"');
  expect(stdout).toContain('templates.a.env = { "API_KEY" = "[redacted]" }');
  expect(stdout).not.toContain("hunter2");
});

test("every error is a line on standard error, nothing is printed, and it exits 1", () => {
  const { exitCode, stdout, stderr } = check('[log]\nlevel = "loud"\ncolour = 1');
  expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
  expect(stderr.trim().split("\n")).toEqual([
    expect.stringMatching(/sandboxd\.toml:3: log\.colour: is unknown/),
    expect.stringMatching(/sandboxd\.toml:2: log\.level: "loud" is unknown/),
    "2 errors",
  ]);
});
