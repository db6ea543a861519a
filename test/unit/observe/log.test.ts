import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { logFields } from "../../../src/observe/fields.ts";
import { createLog, type LogLevel } from "../../../src/observe/log.ts";

/** A log and the lines that it wrote, parsed. */
function recordedLog(level: LogLevel = "info") {
  const lines: Record<string, unknown>[] = [];
  const log = createLog({ level, destination: { write: (line) => void lines.push(JSON.parse(line)) } });
  return { log, lines };
}

describe("a line", () => {
  test("is JSON with time, level, component, fields and message, and nothing else", () => {
    const { log, lines } = recordedLog();
    log.child("engine", { host: "h1" }).warn({ sandbox: "s1", durationMs: 12 }, "started late");
    expect(lines).toEqual([
      {
        level: "warn",
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
        component: "engine",
        host: "h1",
        sandbox: "s1",
        durationMs: 12,
        msg: "started late",
      },
    ]);
  });

  test("is written only from its level on", () => {
    const { log, lines } = recordedLog("warn");
    log.info({}, "quiet");
    log.error({}, "loud");
    expect(lines.map(({ msg }) => msg)).toEqual(["loud"]);
  });

  test("shows an error with type, message, stack and cause", () => {
    const { log, lines } = recordedLog();
    log.error({ err: new TypeError("no", { cause: new Error("because") }) }, "failed");
    expect(lines[0]?.["err"]).toMatchObject({
      type: "TypeError",
      message: "no: because",
      stack: expect.any(String),
    });
  });

  test("is one line whatever names and values contain", () => {
    const texts: string[] = [];
    createLog({ level: "info", destination: { write: (line) => void texts.push(line) } }).info(
      { sandbox: 'a\n{"level":"fatal"}\u001b[31m' },
      "x\ny",
    );
    expect(texts).toHaveLength(1);
    expect(texts[0]?.trimEnd()).not.toMatch(/\p{Cc}/u);
  });
});

describe("secrets", () => {
  test.each(["env", "Env", "token", "secret", "password", "passphrase", "authorization", "cookie"])(
    "%s is redacted at any depth that we log",
    (name) => {
      const { log, lines } = recordedLog();
      const secret = { [name]: { KEY: "hunter2" } };
      log.info({ reason: secret, actor: { a: secret, b: { c: { d: secret } } } }, "done");
      log.child("x", { reason: secret }).info({}, "done");
      expect(lines).toHaveLength(2);
      expect(JSON.stringify(lines)).not.toContain("hunter2");
      expect(JSON.stringify(lines)).toContain("[redacted]");
    },
  );

  test("in what was thrown are redacted, wherever it stands, and it keeps its type and stack", () => {
    const { log, lines } = recordedLog();
    const thrown = (cause?: Error) =>
      Object.assign(new TypeError("no", { cause }), { request: { headers: { authorization: "hunter2" } } });
    log.error({ err: thrown(thrown()) }, "failed");
    log.error({ err: Object.assign(thrown(), { inner: thrown() }) }, "failed");
    log.error({ err: new AggregateError([thrown()]) }, "failed");
    log.info({ reason: { because: [thrown()] } }, "failed");
    expect(lines).toHaveLength(4);
    expect(lines[0]?.["err"]).toMatchObject({
      type: "TypeError",
      message: "no: no",
      stack: expect.stringContaining("log.test"),
      request: { headers: { authorization: "[redacted]" } },
    });
    expect(JSON.stringify(lines)).not.toContain("hunter2");
  });

  test("are redacted in what refers to itself, however often, and nothing is looked at twice", () => {
    const { log, lines } = recordedLog();
    const nodes = Array.from({ length: 50 }, (): Record<string, unknown> => ({ token: "hunter2" }));
    for (const node of nodes) for (const [index, other] of nodes.entries()) node[`n${index}`] = other;
    const began = performance.now();
    log.info({ reason: nodes[0] }, "done");
    expect(performance.now() - began).toBeLessThan(1_000);
    expect(lines).toHaveLength(1);
    expect(JSON.stringify(lines)).not.toContain("hunter2");
  });

  test("the logged object itself is not changed", () => {
    const { log } = recordedLog();
    const spec = { env: { KEY: "value" } };
    log.info({ reason: spec }, "done");
    expect(spec).toEqual({ env: { KEY: "value" } });
  });
});

test("every field is in the catalogue of the documents", () => {
  const document = readFileSync(join(import.meta.dirname, "../../../docs/observability.md"), "utf8");
  for (const [name, meaning] of Object.entries(logFields))
    expect(document).toContain(`| \`${name}\` | ${meaning} |`);
});
