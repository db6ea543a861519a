import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ProgramLate, runProgram } from "../../src/programs.ts";

const timeoutMs = 10_000;
const sh = (script: string, ...values: readonly string[]) => ["sh", "-c", script, "sh", ...values];
const run = (command: readonly string[], input?: string) =>
  runProgram(command, { timeoutMs, ...(input === undefined ? {} : { input }) });

/** Of one that has ended: gone, or not yet waited for. */
const isGone = (pid: number) => {
  try {
    return /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return true;
  }
};

describe("a program", () => {
  test("is told by its exit code and both streams, which need not end with a line", async () => {
    expect(await run(sh("printf out; printf 'it said\n' >&2; exit 3"))).toEqual({
      code: 3,
      output: "out",
      said: "it said\n",
    });
    expect(await run(["true"])).toEqual({ code: 0, output: "", said: "" });
    expect((await run(["no-such-program"])).code).toBe(127);
    expect((await run(sh("kill -TERM $$"))).code).toBe(128 + 15);
  });

  test.each([
    ["a word with blanks", "a  word"],
    ["quotes", `it's "quoted"`],
    ["what a shell would expand", "$HOME `id` $(id) * ~ \\n !!"],
    ["more than one line", "one\ntwo\n"],
    ["nothing", ""],
    ["letters of every script", "žluť 漢字 🦀"],
  ])("gets its words as they are: %s", async (_what, word) => {
    expect((await run(["printf", "%s|", word, "last"])).output).toBe(`${word}|last|`);
  });

  test("is not begun with a word that no program could get", async () => {
    await expect(run(["echo", "one\0two"])).rejects.toThrow("NUL");
    await expect(run(["cat"], "one\0two")).rejects.toThrow("NUL");
  });

  test("reads what it is given, and nothing else", async () => {
    const input = `$HOME \`id\` 'quoted' \\ \nEOF\n\n\tlast`;
    expect((await run(["cat"], input)).output).toBe(`${input}\n`);
    expect((await run(["cat"], `${input}\n`)).output).toBe(`${input}\n`);
    expect((await run(["cat"])).output).toBe("");
    expect((await run(["cat"], "")).output).toBe("");
  });

  test("may read and print much", async () => {
    const input = Array.from({ length: 100_000 }, (_, index) => `line ${index}`).join("\n");
    expect((await run(["cat"], input)).output).toBe(`${input}\n`);
  });

  test("sees the least there can be of an environment", async () => {
    const { output } = await run(["env"]);
    const names = output.split("\n").map((line) => line.split("=")[0]);
    // shells add what they know themselves, some more of it than others
    const ofShells = ["PWD", "OLDPWD", "SHLVL", "_", ""];
    expect(names.filter((name = "") => !ofShells.includes(name)).toSorted()).toEqual(["LC_ALL", "PATH"]);
  });
});

describe("many", () => {
  test("run beside each other, each with its own", async () => {
    const began = performance.now();
    const ends = await Promise.all(
      Array.from({ length: 20 }, (_, index) => run(sh('sleep 0.3; echo "$1"', String(index)))),
    );
    expect(ends.map(({ output }) => output)).toEqual(ends.map((_, index) => `${index}\n`));
    expect(performance.now() - began, "one after the other they take 6 s").toBeLessThan(4_000);
  });

  test("one after the other have one shell, which is not copied from this process", async () => {
    const shellOf = async () => (await run(sh("echo $PPID"))).output;
    const first = await shellOf();
    expect(await shellOf()).toBe(first);
  });

  test("leave no more than two shells waiting", async () => {
    await Promise.all(Array.from({ length: 8 }, () => run(["sleep", "0.1"])));
    await expect
      .poll(() =>
        readdirSync("/proc/self/task")
          .flatMap((task) => readFileSync(`/proc/self/task/${task}/children`, "latin1").split(" "))
          .filter((pid) => pid !== "" && readFileSync(`/proc/${pid}/cmdline`, "latin1") === "sh\0"),
      )
      .toHaveLength(2);
  });
});

describe("a program is killed, with what it has started,", () => {
  const stubborn = "trap '' TERM; sleep 100 & echo $! > $1; wait";
  const pidFile = () => join(mkdtempSync(join(tmpdir(), "programs-")), "pid");

  test("when it does not end in time", async () => {
    const file = pidFile();
    await expect(runProgram(sh(stubborn, file), { timeoutMs: 300 })).rejects.toThrow(ProgramLate);
    expect(isGone(Number(readFileSync(file, "utf8")))).toBe(true);
    expect((await run(["echo", "next"])).output).toBe("next\n");
  });

  test("when it is called off, and not begun when it was before", async () => {
    const file = pidFile();
    const control = new AbortController();
    const over = runProgram(sh(stubborn, file), { timeoutMs, signal: control.signal });
    await expect.poll(() => Number(readFileSync(file, "utf8").trim())).toBeGreaterThan(0);
    control.abort();
    await expect(over).rejects.toThrow("called off");
    expect(isGone(Number(readFileSync(file, "utf8")))).toBe(true);
    const never = pidFile();
    await expect(runProgram(sh(stubborn, never), { timeoutMs, signal: control.signal })).rejects.toThrow();
    expect(() => readFileSync(never)).toThrow("ENOENT");
  });

  test("when it prints more than it may, on either stream", async () => {
    const most = { timeoutMs, mostOutput: 10_000 };
    await expect(runProgram(["yes"], most)).rejects.toThrow("printed more than 10000");
    await expect(runProgram(sh("yes >&2"), most)).rejects.toThrow("printed more than 10000");
  });
});

test("a shell that somebody kills while it waits is replaced, and while it works its program's end is not known", async () => {
  const shell = async () => Number((await run(sh("echo $PPID"))).output);
  const waiting = await shell();
  process.kill(waiting, "SIGKILL");
  await expect.poll(() => isGone(waiting)).toBe(true);
  await expect.poll(shell).not.toBe(waiting);
  await expect(run(sh("kill -KILL $PPID; sleep 1"))).rejects.toThrow("its shell ended with SIGKILL");
});

test("shells hold no process back from its end, and end with it", async () => {
  const module = join(import.meta.dirname, "../../src/programs.ts");
  const script = `const { runProgram } = await import(${JSON.stringify(module)});
    const { output } = await runProgram(["sh", "-c", "echo $PPID"], { timeoutMs: 5000 });
    process.stdout.write(output);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script]);
  let told = "";
  child.stdout.on("data", (piece) => (told += piece));
  const [code] = await once(child, "close");
  expect(code).toBe(0);
  expect(Number(told)).toBeGreaterThan(0);
  await expect.poll(() => isGone(Number(told))).toBe(true);
});
