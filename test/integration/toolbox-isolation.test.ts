// What is started through the toolbox is confined exactly as the sandbox's main command and the engine's own exec are: by all that the
// kernel says of a process, and seen from inside by the program that tries what a hostile one would.

import { readFileSync, readlinkSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Contained, contain } from "../harness/contained.ts";
import { engineObstacle } from "../harness/engine.ts";
import { ping, runInside } from "../harness/inside.ts";
import { present } from "../harness/sandboxes.ts";
import { buildProbe, expectedChecks, parseChecks, plainOutput, probeObstacle } from "../isolation/battery.ts";

const reason = engineObstacle ?? (await probeObstacle());
const name = `inside-${process.pid}`;
const probe = "/bin/probe";

type Facts = Readonly<Record<string, string>>;

/** What differs between any two processes: names, ids, memory, what was waited for. */
const passing =
  /^(Name|State|Tgid|Ngid|Pid|PPid|NS\w+|Kthread|Vm\w+|Hugetlb\w+|Rss\w+|\w*ctxt_switches|FDSize|Mems\w*|SigQ|Threads):/;

function factsOf(output: string): Facts {
  const blocks = output.split(/^== /m).slice(1);
  const facts = blocks.map((block) => {
    const [title = "", ...lines] = block.trim().split("\n");
    return [title, lines.filter((line) => !passing.test(line)).join("\n")] as const;
  });
  return Object.fromEntries(facts);
}

/** How a process of the sandbox is held, as the host sees it. */
function held(pid: string): readonly string[] {
  const read = (name: string) => readFileSync(`/proc/${pid}/${name}`, "utf8").trim().split("\n");
  const namespaces = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
  return [
    ...read("status").filter((line) => /^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Cpus_allowed)/.test(line)),
    ...["limits", "cgroup", "oom_score_adj", "uid_map"].flatMap(read),
    ...namespaces.map((one) => readlinkSync(`/proc/${pid}/ns/${one}`)),
  ];
}

describe.skipIf(reason !== undefined)(`a process of the toolbox (${reason ?? "engine"})`, () => {
  let contained: Contained;
  let inside: ReturnType<typeof parseChecks>;
  beforeAll(async () => {
    contained = await contain({ name, program: buildProbe, args: ["--wait"] });
    inside = parseChecks((await runInside(contained.inside, name, [probe])).output);
  }, 120_000);
  afterAll(() => contained?.close());

  async function throughEngine(): Promise<string> {
    const { uid } = contained.plan;
    const { output } = await contained.inside.runtime.exec(contained.containerId, {
      ...{ command: [probe, "--facts"], user: `${uid}:${uid}`, workingDir: "/tmp" },
      ...{ timeoutMs: 10_000, maxOutputBytes: 100_000 },
    });
    return output.toString();
  }

  test("is to the kernel what a command of the engine's is", async () => {
    const own = factsOf((await runInside(contained.inside, name, [probe, "--facts"])).output);
    expect(own).toEqual(factsOf(await throughEngine()));
    expect(Object.keys(own)).toHaveLength(20);
    expect(own["status"]).toMatch(/^NoNewPrivs:\t1$/m);
    expect(own["status"]).toMatch(/^Seccomp:\t2$/m);
    expect(own["status"]?.match(/^Cap\w+:\t0000000000000000$/gm)).toHaveLength(5);
    expect(own["oom_score_adj"]).toBe("500");
    expect(own["descriptors"]?.trim()).toBe("0 1 2");
  });

  test("is to the host what the main command is, and the server as well", async () => {
    await ping(contained.inside, name);
    const { Processes: rows } = await contained.docker
      .getContainer(contained.containerId)
      .top({ ps_args: "-eo pid,args" });
    const pidOf = (command: string) => (rows as string[][]).find(([, args]) => args === command)?.[0];
    const main = held(present(pidOf(`${probe} --wait`)));
    expect(held(present(pidOf("/.sandboxd/toolbox serve /.sandboxd/run/toolbox.sock")))).toEqual(main);
    expect(main).toContain("Seccomp:\t2");
  });

  test.each(expectedChecks())("passes %s", (check) => {
    expect(inside.get(check)).toMatchObject({ ok: true });
  });

  test("finds what the main command finds, check by check", async () => {
    const container = contained.docker.getContainer(contained.containerId);
    await container.kill({ signal: "SIGUSR1" });
    await container.wait();
    const logs = (await container.logs({ stdout: true, stderr: true, follow: false })) as Buffer;
    const main = parseChecks(plainOutput(logs));
    expect([...inside.keys()]).toEqual([...main.keys()]);
    expect([...inside.values()].filter((one) => !one.ok)).toEqual([]);
    expect([...main.values()].filter((one) => !one.ok)).toEqual([]);
  });
});
