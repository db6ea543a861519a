import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { environmentName, leavesOf } from "../../../src/config/given.ts";
import { literal } from "../../../src/config/literal.ts";
import { limitsSection } from "../../../src/config/network.ts";
import { blockIoBounds, resourceBounds } from "../../../src/config/resource.ts";
import { schema } from "../../../src/config/schema.ts";
import { quotaSection } from "../../../src/config/tenant.ts";
import { parseSize } from "../../../src/config/unit.ts";
import { configOf, load, temporaryDirectory, testCertificate, testKey } from "./fixture.ts";
import { renderReference } from "./reference.ts";

const root = join(import.meta.dirname, "../../..");
const read = (path: string) => readFileSync(join(root, path), "utf8");

const templateLeaves = leavesOf(schema.fields.templates.item.fields, ["templates", "shell"]);
const proxyLeaves = leavesOf(schema.fields.proxies.item.fields, ["proxies", "web"]);
const leaves = [...leavesOf(schema.fields, []), ...templateLeaves, ...proxyLeaves];

describe("the example file", () => {
  const example = read("systemd/sandboxd.toml");
  const directory = () => {
    const made = temporaryDirectory();
    for (const name of ["server", "client", "callers", "scheduler"])
      writeFileSync(join(made, `${name}.crt`), testCertificate);
    for (const name of ["server", "client"])
      writeFileSync(join(made, `${name}.key`), testKey, { mode: 0o600 });
    return made;
  };
  /** With every setting in effect, but for those that only one of several may be. */
  const uncommented = () =>
    example.replace(/^#(?=\[|[a-z_]+ = )/gm, "").replaceAll("/etc/sandboxd/tls", directory());
  const oneProbe = /^exec = \[.*$/m;
  const otherProbes = [...example.matchAll(/^#or (.*)$/gm)].map(([, setting = ""]) => setting);

  test("as it is, it changes nothing", () => {
    expect(configOf(example)).toEqual(configOf(""));
  });

  test("has every key, and with all of them in effect it is valid", () => {
    const loaded = load(uncommented(), { dev: true });
    if ("errors" in loaded) throw new Error(JSON.stringify(loaded.errors, undefined, 1));
    const given = loaded.settings.filter(({ source }) => source.kind === "file").map(({ key }) => key);
    const others = otherProbes.map(
      (setting) => `templates.shell.health_check.${setting.replace(/ = .*/, "")}`,
    );
    expect([...given, ...others].toSorted()).toEqual(leaves.map(({ path }) => path.join(".")).toSorted());
  });

  test("each probe may stand alone, and only alone", () => {
    expect(otherProbes).toHaveLength(2);
    for (const probe of otherProbes) {
      expect(load(uncommented().replace(oneProbe, probe), { dev: true })).toHaveProperty("config");
      expect(load(uncommented().replace(oneProbe, `$&\n${probe}`), { dev: true })).toHaveProperty("errors");
    }
  });

  test("shows the defaults, but where an example says more", () => {
    const examples = [
      "host.labels",
      "scheduler.endpoints",
      "images.allow",
      "templates.shell.env",
      "templates.shell.labels",
      "templates.shell.network_mode",
    ];
    const loaded = load(uncommented(), { dev: true });
    if ("errors" in loaded) throw new Error("invalid");
    const shown = new Map(loaded.settings.map((setting) => [setting.key, setting.literal]));
    for (const { path, field } of leaves) {
      const key = path.join(".");
      if (field.fallback !== undefined && !examples.includes(key))
        expect([key, shown.get(key)]).toEqual([key, literal(field.fallback)]);
    }
  });
});

test("the reference in the documents is the schema's", () => {
  const file = join(root, "docs/configuration.md");
  const marked = /(<!-- made from [^\n]*-->\n)[\s\S]*(<!-- \/made -->)/;
  const document = readFileSync(file, "utf8");
  const expected = document.replace(
    marked,
    (_, begin: string, end: string) => `${begin}\n${renderReference()}\n${end}`,
  );
  if (process.env["UPDATE_DOCS"] !== undefined) writeFileSync(file, expected);
  expect(readFileSync(file, "utf8")).toBe(expected);
  for (const { path } of leaves) expect(expected).toContain(`| \`${path.at(-1)}\` |`);
});

test("every key has a variable of its own", () => {
  const names = leavesOf(schema.fields, []).map(({ path }) => environmentName(path));
  expect(new Set(names).size).toBe(names.length);
});

/** The bounds of a key in plain numbers: "size, 0B to 1024TiB" is "0 to 1125899906842624". */
function inBytes(allowed: string): string {
  const bounds = allowed.replace(/^\w+, /, "");
  return bounds.replace(/\d+[KMGT]?i?B/g, (text) => String(parseSize(text)));
}

test("bounds and names of resources are the contract's", () => {
  const contract = read("proto/sandboxd/v1/resources.proto");
  const fields =
    /optional int64 (\w+) = \d+ \[\(buf\.validate\.field\)\.int64 = \{\s*gte: (\d+)\s*lte: (\d+)/g;
  const bounds = [...contract.matchAll(fields)].map(([, name, min, max]) => [
    name,
    { min: Number(min), max: Number(max) },
  ]);
  const own = Object.entries({ ...resourceBounds, ...blockIoBounds }).map(([key, { min, max }]) => [
    key,
    { min, max },
  ]);
  const quota = read("proto/sandboxd/v1/tenant.proto");
  const traffic = [...read("proto/sandboxd/v1/network.proto").matchAll(fields)].map(
    ([, name, min, max]) => [name, `${min} to ${max}`] as const,
  );
  const { fields: trafficKeys } = limitsSection("");
  expect(Object.entries(trafficKeys).map(([key, { allowed }]) => [key, inBytes(allowed)])).toEqual(traffic);
  const ofQuota = [...quota.matchAll(fields)].map(
    ([, name, min, max]) => [name, `${min} to ${max}`] as const,
  );
  const { fields: keys } = quotaSection("");
  expect(Object.entries(keys).map(([key, { allowed }]) => [key, inBytes(allowed)])).toEqual(ofQuota);
  const { cpu_request_millis, memory_request_bytes, ...others } = Object.fromEntries(bounds);
  expect(Object.fromEntries(own)).toEqual(others);
  expect([cpu_request_millis, memory_request_bytes]).toEqual([
    { min: 1, max: resourceBounds.cpu_millis.max },
    { min: 1, max: resourceBounds.memory_bytes.max },
  ]);
});
