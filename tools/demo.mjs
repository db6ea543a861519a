// npm start -- --demo: drives sandboxes through their lives and says what happens. Every step checks what it shows, so
// that the demonstration fails when the daemon does not do what it should.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

/** Longest that any one call may take. */
const timeoutMs = 30_000;

const mebibyte = 1024n * 1024n;

/**
 * Runs the demonstration with a client from lib/client.mjs, and a `say` that prints a line. Removes its sandboxes also
 * when a step fails.
 */
export async function demonstrate(client, say) {
  const step = (title, text) => say(`${title.padEnd(8)} ${text}`);
  await showOneLife(client, step);
  say("");
  await showRestartsAndExpiry(client, step);
  say("");
  await showQuota(client, step);
  say("");
  await showWorkspace(client, step);
  say("");
  await showInside(client, step);
  await showNetwork(client, step);
}

const call = { timeoutMs };

/** One sandbox under a caller's hand: bounds, logs, statistics, a changed limit, a pause, a stop, a start. */
async function showOneLife({ sandboxes, events, host, names }, step) {
  const sandboxId = "demo";
  const stateOf = (sandbox) => names.state(sandbox.status.state).toLowerCase();

  const { host: found } = await host.getHost({}, call);
  step("host", `${found.hostId}`);
  const { checks } = await host.checkHost({}, call);
  const amiss = checks.filter(({ hint }) => hint !== "");
  step(
    "check",
    `${checks.length} checks, ${amiss.length} with advice: ${amiss.map((one) => one.name).join(", ")}`,
  );
  assert.ok(checks.length > amiss.length, "nothing about this host is well");
  try {
    const { sandbox: created } = await sandboxes.createSandbox(
      {
        sandboxId,
        tenant: "demo",
        spec: {
          template: "shell",
          command: ["sh", "-c", 'echo "hello from $(id -u):$(id -g)"; while :; do :; done'],
          resources: { cpuMillis: 200n, memoryBytes: 64n * mebibyte, pids: 32n },
          lifetime: { ttl: { seconds: 60n } },
        },
      },
      call,
    );
    step("create", `${created.sandboxId} is ${stateOf(created)}, as user ${created.status.uid}`);
    assert.equal(stateOf(created), "running");

    const { sandbox: again } = await sandboxes.getSandbox({ sandboxId }, call);
    step("get", `generation ${again.generation}, container ${again.status.containerId.slice(0, 12)}`);

    const log = await firstLogLine(sandboxes, sandboxId);
    step("logs", log);
    assert.match(log, /^hello from \d{5,}:\d{5,}$/);

    // Two samples at least, for a rate.
    await sleep(3_000);
    const { stats } = await sandboxes.getSandboxStats({ sandboxId }, call);
    const memory = `${stats.memoryUsageBytes / 1024n} of ${stats.memoryLimitBytes / 1024n} KiB`;
    step(
      "stats",
      `${stats.cpuUsageMillis} of 200 CPU millis, ${memory}, ${stats.pids} of ${stats.pidsLimit} processes`,
    );
    assert.ok(stats.cpuUsageMillis <= 300n, "a busy loop got more than its CPU limit");
    assert.equal(stats.memoryLimitBytes, 64n * mebibyte);

    const { sandbox: updated } = await sandboxes.updateSandbox(
      {
        sandboxId,
        resources: { memoryBytes: 96n * mebibyte },
        updateMask: { paths: ["resources.memory_bytes"] },
      },
      call,
    );
    step("update", `memory limit is ${updated.spec.resources.memoryBytes / mebibyte} MiB, without a restart`);
    assert.equal(updated.spec.resources.memoryBytes, 96n * mebibyte);

    const { summary } = await sandboxes.explainSandbox({ sandboxId }, call);
    step("explain", summary);
    assert.match(summary, /held back/);

    const { sandbox: renewed } = await sandboxes.renewSandbox(
      { sandboxId, generation: updated.generation, ttl: { seconds: 600n } },
      call,
    );
    const left = Number(renewed.status.lease.expireTime.seconds) - Date.now() / 1_000;
    step("renew", `its lease ends in ${Math.round(left)} s`);
    assert.ok(left > 590 && left <= 601);

    const { sandbox: paused } = await sandboxes.pauseSandbox({ sandboxId }, call);
    const { sandbox: resumed } = await sandboxes.resumeSandbox({ sandboxId }, call);
    step("pause", `${sandboxId} is ${stateOf(paused)}, and resumed ${stateOf(resumed)}`);
    assert.equal(stateOf(paused), "paused");
    assert.equal(stateOf(resumed), "running");

    const { sandbox: stopped } = await sandboxes.stopSandbox({ sandboxId, grace: { seconds: 1n } }, call);
    step("stop", `${sandboxId} is ${stateOf(stopped)}`);
    assert.equal(stateOf(stopped), "stopped");

    const { sandbox: restarted } = await sandboxes.startSandbox({ sandboxId }, call);
    step("start", `${sandboxId} is ${stateOf(restarted)}`);
    assert.equal(stateOf(restarted), "running");
  } finally {
    await sandboxes.deleteSandbox({ sandboxId }, call);
    step("delete", `${sandboxId} is gone`);
  }

  const { events: told } = await events.listEvents({ filter: { sandboxId }, afterSequence: 0n }, call);
  for (const event of told) {
    const transition = event.sandbox?.status?.transition;
    const states = transition ? `${names.state(transition.from)} -> ${names.state(transition.to)}` : "";
    const reason = transition ? names.reason(transition.reason) : "";
    step(
      "event",
      `${event.sequence} ${names.eventType(event.type)} ${states} ${reason}`.trim().toLowerCase(),
    );
  }
  assert.ok(told.length > 0, "no event was told");
}

/** A sandbox whose command fails is started again within bounds; one whose time is over goes by itself. */
async function showRestartsAndExpiry({ sandboxes, events, names }, step) {
  const made = ["demo-restarts", "demo-expires"];
  const [restarts, expires] = made;
  try {
    await sandboxes.createSandbox(
      {
        sandboxId: restarts,
        tenant: "demo",
        spec: {
          template: "shell",
          command: ["sh", "-c", "echo working; sleep 1; echo out of luck >&2; exit 7"],
          restart: { mode: names.restartMode.ON_FAILURE, delay: { nanos: 200_000_000 }, maxAttempts: 2 },
        },
      },
      call,
    );
    const failed = await eventually(async () => {
      const { sandbox } = await sandboxes.getSandbox({ sandboxId: restarts }, call);
      return names.state(sandbox.status.state) === "FAILED" ? sandbox : undefined;
    });
    const { count } = failed.status.restarts;
    step("restart", `${restarts} was started again ${count} times, and is failed`);
    assert.equal(count, 2n);
    const { summary, findings } = await sandboxes.explainSandbox({ sandboxId: restarts }, call);
    step("explain", summary);
    const output = findings.find(({ kind }) => kind === "last_output");
    step("explain", output?.message ?? "it has no last output");
    assert.match(output?.message ?? "", /out of luck/);

    await sandboxes.createSandbox(
      { sandboxId: expires, tenant: "demo", spec: { template: "shell", lifetime: { ttl: { seconds: 2n } } } },
      call,
    );
    const gone = await eventually(async () => {
      const { events: told } = await events.listEvents(
        { filter: { sandboxId: expires }, afterSequence: 0n },
        call,
      );
      return told.find(({ type }) => names.eventType(type) === "SANDBOX_DELETED") && told;
    });
    const reasons = gone.map(({ sandbox }) => names.reason(sandbox.status.transition.reason));
    const warned = gone.some(({ type }) => names.eventType(type) === "SANDBOX_EXPIRING");
    step("expire", `${expires} was ${warned ? "" : "not "}told to expire, and is gone`);
    assert.ok(warned && reasons.includes("EXPIRED"));
  } finally {
    for (const sandboxId of made) await sandboxes.deleteSandbox({ sandboxId }, call);
  }
}

/** A tenant gets no more than its quota, which the kernel holds besides, and is deleted with all that it has. */
async function showQuota({ sandboxes, tenants }, step) {
  const tenant = "demo-quota";
  const create = (sandboxId) =>
    sandboxes.createSandbox(
      {
        sandboxId,
        tenant,
        spec: { template: "shell", resources: { cpuMillis: 100n, memoryBytes: 48n * mebibyte, pids: 32n } },
      },
      call,
    );
  try {
    await tenants.putTenant({ tenant, quota: { memoryBytes: 64n * mebibyte, runningSandboxes: 5n } }, call);
    await create("demo-quota-1");
    const refusal = await create("demo-quota-2").then(
      () => undefined,
      (error) => error,
    );
    step("quota", refusal?.rawMessage.split("\n")[0] ?? "was exceeded");
    assert.match(refusal?.rawMessage ?? "", /memory_bytes: asked 50331648, free 16777216 of 67108864/);
    const { tenant: told } = await tenants.getTenant({ tenant }, call);
    const { promised, cgroup } = told.status;
    step(
      "tenant",
      `${promised.runningSandboxes} sandbox runs, ${promised.memoryBytes / mebibyte} MiB are promised; the kernel holds it to ${cgroup.memoryBytes / mebibyte} MiB in ${cgroup.parent}`,
    );
    assert.equal(cgroup.memoryBytes, 64n * mebibyte);
  } finally {
    await tenants.deleteTenant({ tenant, cascade: true }, call);
    step("delete", `${tenant} is gone, with all that it had`);
  }
}

/** A directory that outlives its sandboxes: written in one, read in the next, bounded, and brought back by a snapshot. */
async function showWorkspace({ sandboxes, workspaces, host, names }, step) {
  const tenant = "demo-workspace";
  const workspaceId = "demo";
  const { host: found } = await host.getHost({}, call);
  if (found.workspaces === undefined) {
    const { checks } = await host.checkHost({}, call);
    const why = checks.find(({ name }) => name === "workspaces");
    step("space", `this host keeps none: ${why?.message}`);
    return;
  }
  /** What a command in a sandbox of its own says, once it has ended. */
  const saidBy = async (sandboxId, script) => {
    const command = ["sh", "-c", script];
    const spec = { template: "shell", command, workspace: { workspaceId } };
    await sandboxes.createSandbox({ sandboxId, tenant, spec }, call);
    await eventually(async () => {
      const { sandbox } = await sandboxes.getSandbox({ sandboxId }, call);
      return ["STOPPED", "FAILED"].includes(names.state(sandbox.status.state)) ? sandbox : undefined;
    });
    const said = await firstLogLine(sandboxes, sandboxId);
    await sandboxes.deleteSandbox({ sandboxId }, call);
    return said;
  };
  try {
    const limits = { sizeBytes: 32n * mebibyte };
    const { workspace } = await workspaces.createWorkspace({ workspaceId, tenant, limits }, call);
    step("space", `${workspaceId} may hold 32 MiB, and is ${workspace.status.uid}'s alone`);
    await saidBy("demo-writes", "echo kept | tee projects/words");
    const kept = await saidBy("demo-reads", "cat projects/words");
    step("space", `what one sandbox wrote, the next one reads: ${kept}`);
    assert.equal(kept, "kept");
    await workspaces.createSnapshot({ workspaceId, snapshotId: "before" }, call);
    const full = await saidBy(
      "demo-fills",
      "rm projects/words; dd if=/dev/zero of=big bs=1M count=64 2>&1 | tail -1",
    );
    const { workspace: filled } = await workspaces.getWorkspace({ workspaceId }, call);
    step("space", `64 MiB do not fit: ${full}; it holds ${filled.status.usage.bytes / mebibyte} MiB`);
    assert.ok(filled.status.usage.bytes <= 32n * mebibyte);
    await workspaces.restoreSnapshot({ workspaceId, snapshotId: "before" }, call);
    const back = await saidBy("demo-returns", "cat projects/words");
    step("space", `its snapshot brings back what was: ${back}`);
    assert.equal(back, "kept");
  } finally {
    for (const sandboxId of ["demo-writes", "demo-reads", "demo-fills", "demo-returns"]) {
      await sandboxes.deleteSandbox({ sandboxId }, call);
    }
    await workspaces.deleteWorkspace({ workspaceId }, call);
    step("delete", `${workspaceId} is gone, with all that it held`);
  }
}

/** Work inside of a sandbox: a command with an input, one in a terminal, one that is told again from where it was left, and files. */
async function showInside({ sandboxes, processes, files, ports }, step) {
  const sandboxId = "demo-inside";
  await sandboxes.createSandbox({ sandboxId, tenant: "demo", spec: { template: "shell" } }, call);
  try {
    const greeter = {
      sandboxId,
      processId: "greeter",
      command: ["sh", "-c", "read name; echo hello $name; exit 3"],
    };
    const greeted = told(processes.startProcess({ ...greeter, input: true, env: { TOKEN: "secret" } }, call));
    await eventually(async () => (await processes.listProcesses({ sandboxId }, call)).processes[0]);
    await processes.sendInput({ sandboxId, processId: "greeter", data: Buffer.from("world\n") }, call);
    const { output, exit, sequence } = await greeted;
    step("process", `a command that was sent a line says ${output.trim()}, and exits with ${exit.exitCode}`);
    assert.equal(output, "hello world\n");
    assert.equal(exit.exitCode, 3);

    const later = await told(
      processes.connectProcess({ sandboxId, processId: "greeter", afterSequence: 1n }, call),
    );
    step("process", `it is told again from event 2 on: ${later.output.trim()}, to event ${later.sequence}`);
    assert.deepEqual([later.output, later.sequence], [output, sequence]);

    const command = ["sh", "-c", "test -t 0 && stty size"];
    const terminal = await told(
      processes.startProcess({ sandboxId, command, terminal: { rows: 40, columns: 132 } }, call),
    );
    step("terminal", `its program sees a terminal of ${terminal.output.trim()}`);
    assert.equal(terminal.output.trim(), "40 132");

    const path = "/tmp/words";
    async function* written() {
      yield { part: { case: "target", value: { sandboxId, path } } };
      yield { part: { case: "data", value: Buffer.from("written from outside\n") } };
    }
    const { file } = await files.writeFile(written(), call);
    const read = await told(processes.startProcess({ sandboxId, command: ["cat", path] }, call));
    step("files", `${file.sizeBytes} bytes of ${path}, read inside: ${read.output.trim()}`);
    assert.equal(read.output, "written from outside\n");
    const refusal = await files.makeDirectory({ sandboxId, path: "/etc/mine" }, call).then(
      () => undefined,
      (error) => error,
    );
    step("files", refusal?.rawMessage.split("\n")[0] ?? "the image was written to");
    assert.match(refusal?.rawMessage ?? "", /read-only/i);

    const server = { sandboxId, command: ["httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/tmp"] };
    // goes on until its sandbox ends
    told(processes.startProcess(server)).catch(() => {});
    const page = await eventually(() =>
      fetched(ports, { sandboxId, port: 8080 }, "/words").catch(() => undefined),
    );
    step("port", `a web server on its port 8080, which nobody published, answers: ${page}`);
    assert.equal(page, "written from outside");
  } finally {
    await sandboxes.deleteSandbox({ sandboxId }, call);
    step("delete", `${sandboxId} is gone, with all that ran in it`);
  }
}

/** The last line of a page that a web server in a sandbox serves. */
async function fetched(ports, target, path) {
  let end = () => {};
  const ended = new Promise((resolve) => {
    end = resolve;
  });
  async function* sent() {
    yield target;
    yield { data: Buffer.from(`GET ${path} HTTP/1.0\r\n\r\n`) };
    await ended;
  }
  let page = "";
  for await (const answer of ports.forwardPort(sent(), call)) {
    page += Buffer.from(answer.data).toString();
    if (answer.end) end();
  }
  return page.trim().split("\n").at(-1);
}

/** A network: what a sandbox reaches of its tenant's others, and not of anybody else's. Or why this host has none to give. */
async function showNetwork({ sandboxes, tenants, processes, events, names }, step) {
  const { EGRESS } = names.networkMode;
  const create = (tenant, sandboxId) =>
    sandboxes.createSandbox({ sandboxId, tenant, spec: { template: "shell", networkMode: EGRESS } }, call);
  const refusal = await create("demo", "demo-network").then(
    () => undefined,
    (error) => error.rawMessage.split("\n")[0],
  );
  step("network", refusal ?? "a tenant without a policy got a network");
  assert.match(refusal ?? "", /EGRESS/);

  const egress = { scope: 2, allowDomains: ["registry.npmjs.org", "*.debian.org"] };
  const [tenant, stranger] = ["demo-online", "demo-stranger"];
  for (const name of [tenant, stranger]) {
    await tenants.putTenant({ tenant: name, network: { modes: [EGRESS], allowPeers: true, egress } }, call);
  }
  /** The last line of what a web server says to a sandbox, or nothing. */
  const fetches = async (sandboxId, at, port) => {
    const script = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 ${at} ${port} | tail -n 1`;
    const command = ["sh", "-c", script];
    return (await told(processes.startProcess({ sandboxId, command }, call))).output.trim();
  };
  try {
    const made = await create(tenant, "demo-network").catch((error) => error);
    if (made instanceof Error) {
      step("network", `not here: ${made.rawMessage.split("\n")[0]}`);
      return;
    }
    const { address, bridge, egress: held, enforced } = made.sandbox.status.network;
    assert.ok(enforced, "the kernel does not hold its rules");
    step(
      "network",
      `it is ${address} on ${bridge}, and reaches ${held.allowDomains.join(", ")} on TCP 443 alone`,
    );
    const serve = ["sh", "-c", "echo hello from a peer >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"];
    // goes on until its sandbox ends
    told(processes.startProcess({ sandboxId: "demo-network", command: serve })).catch(() => {});
    await create(tenant, "demo-peer");
    await create(stranger, "demo-other");
    const page = await eventually(async () => (await fetches("demo-peer", address, 8080)) || undefined);
    step("network", `another sandbox of its tenant fetches a page from it: ${page}`);
    assert.equal(page, "hello from a peer");
    const none = await fetches("demo-other", address, 8080);
    step("network", `one of another tenant gets ${none === "" ? "nothing" : none}`);
    assert.equal(none, "");

    await fetches("demo-network", "169.254.169.254", 80);
    const denied = await eventually(async () => {
      const filter = { sandboxId: "demo-network" };
      const { events: all } = await events.listEvents({ filter, afterSequence: 0n }, call);
      return all.flatMap(({ networkDenials }) => networkDenials).find(({ reason }) => reason === "policy");
    });
    step(
      "network",
      `it tried ${denied.destination}, where clouds keep their secrets: dropped, and told in an event`,
    );
    assert.equal(denied.destination, "169.254.169.254:80");
  } finally {
    for (const name of [tenant, stranger]) {
      await tenants.deleteTenant({ tenant: name, cascade: true }, call);
    }
  }
}

/** What a stream of a process's events came to. */
async function told(stream) {
  let output = "";
  let exit;
  let sequence;
  for await (const { event } of stream) {
    const { case: kind, value } = event.event;
    if (kind === "stdout" || kind === "terminal") output += Buffer.from(value).toString();
    if (kind === "exited") exit = value.exit;
    sequence = event.sequence;
  }
  return { output, exit, sequence };
}

/** The first answer that is not undefined, asking four times a second. */
async function eventually(ask) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    assert.ok(Date.now() < deadline, "what was to happen did not");
    await sleep(250);
  }
}

async function firstLogLine(sandboxes, sandboxId) {
  let text = "";
  for await (const { data } of sandboxes.streamLogs({ sandboxId, follow: true }, { timeoutMs })) {
    text += Buffer.from(data).toString();
    if (text.includes("\n")) break;
  }
  return text.split("\n")[0];
}
