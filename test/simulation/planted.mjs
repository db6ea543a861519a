// Defects to plant, one at a time: each replaces a text of the source by another, and the simulation must notice it.

export const planted = [
  {
    name: "the event is written after the transaction, in another one",
    file: "src/sandbox/repository.ts",
    search: `      store.transact((transaction) => write(transaction, record, event));`,
    replace: `      store.transact((transaction) => transaction.putSandbox(record.id, JSON.stringify(record)));
      store.transact((t) => t.appendEvent(Date.now(), JSON.stringify({ type: event, sandbox: record })));`,
  },
  {
    name: "a timeout is taken for gone",
    file: "src/sandbox/lookup.ts",
    search: "  const container = await runtime.inspect(containerName(hostId, id), waiting);",
    replace:
      "  const container = await runtime.inspect(containerName(hostId, id), waiting).catch(() => undefined);",
  },
  {
    name: "a stop that was asked for is undone by the restart policy",
    file: "src/sandbox/decide.ts",
    search: '    state: "STOPPED",\n    ...causeOf(record, "stopped as asked"),',
    replace:
      '    ...(record.spec.restart.mode === "UNLESS_STOPPED" ? { state: "BACKING_OFF", wanted: "RUNNING", restarts: { count: 1, recentMs: [], nextAtMs: 0 } } : { state: "STOPPED" }),\n    ...causeOf(record, "stopped as asked"),',
  },
  {
    name: "the container is created before its intent is on disk",
    file: "src/sandbox/starter.ts",
    search: "            repository.durable(),\n",
    replace: "",
  },
  {
    name: "the image is not recorded before the create",
    file: "src/sandbox/starter.ts",
    search: `const from = isTold ? record : settle(record, starting("creating its container"));`,
    replace: "const from = record;",
  },
  {
    name: "leases go by the wall clock",
    file: "src/sandbox/clock.ts",
    search: "const nowMs = () => monotonicMs() + offsetMs;",
    replace: "const nowMs = () => (offsetMs, wallClockMs());",
  },
  {
    name: "an orphan is removed without a tombstone",
    file: "src/sandbox/engine-watch.ts",
    search:
      "} else if (record === undefined && !options.store.isTombstone(identity.instance)) {\n        await rebuild(container.id);",
    replace:
      "} else if (record === undefined && !options.store.isTombstone(identity.instance)) {\n        await removeOrphan(container.id, identity.id);",
  },
  {
    name: "deletions leave no tombstone",
    file: "src/store/store.ts",
    search: "      putTombstone.run(instance, Date.now());",
    replace: "",
  },
  {
    name: "a container is started twice, in two slots",
    file: "src/sandbox/queue.ts",
    search: "if (free > 0) free--;",
    replace: "if (free > -1) free--;",
  },
  {
    name: "the generation of a renewal is not checked",
    file: "src/sandbox/lifecycle.ts",
    search: "      checkGeneration(record, generation);\n      const spanMs",
    replace: "      const spanMs",
  },
  {
    name: "what was found running after a reboot is not verified",
    file: "src/sandbox/decide.ts",
    search: 'if (record.state !== "RUNNING" || record.bootId !== bootId) return { do: "verify", container };',
    replace: 'if (record.state !== "RUNNING") return { do: "verify", container };',
  },
  {
    name: "limits are not read back",
    file: "src/sandbox/starter.ts",
    search: "      runtime.verify(containerId, planFor(before, workspace)),",
    replace:
      "      { version: 2 as const, memory: '', cpu: '', cpuacct: '', pids: '', blkio: '', freezer: '' },",
  },
  {
    name: "a stale record is written over a caller's change",
    file: "src/sandbox/starter.ts",
    search:
      "    const record = repository.unmoved(before);\n    if (record === undefined) return false; // it was told something else meanwhile",
    replace: "    const record = before;",
  },
  {
    name: "a lease is moved by a start",
    file: "src/sandbox/lifecycle.ts",
    search:
      '      repository.put({ ...pending, generation: current.generation + 1 }, "SANDBOX_STATE_CHANGED");\n      reconciler.kick(id);\n      return started',
    replace:
      '      repository.put({ ...pending, expiresAtMs: clock.nowMs() + 5_000, generation: current.generation + 1 }, "SANDBOX_STATE_CHANGED");\n      reconciler.kick(id);\n      return started',
  },
  {
    name: "the warning is told again by each sweep",
    file: "src/sandbox/reconciler.ts",
    search: `repository.put({ ...record, warnedOfMs: expiryOf(record) }, "SANDBOX_EXPIRING");`,
    replace: `repository.put({ ...record }, "SANDBOX_EXPIRING");`,
  },
  {
    name: "what a foreign container is called is believed",
    file: "src/sandbox/lookup.ts",
    search: `  if (identity === undefined) return { kind: "foreign", containerId: container.id };\n  return identity.instance === instance`,
    replace: `  return identity === undefined || identity.instance === instance`,
  },
  {
    name: "max_attempts is not kept",
    file: "src/sandbox/restart.ts",
    search: "if (recent.length >= restart.maxAttempts) {",
    replace: "if (recent.length > restart.maxAttempts) {",
  },
  {
    name: "a restart does not wait",
    file: "src/sandbox/restart.ts",
    search: "    nextAtMs: nowMs + delayMs,",
    replace: "    nextAtMs: nowMs,",
  },
  {
    name: "an update counts only once it is done",
    file: "src/sandbox/room.ts",
    search: "      updating.set(id, resources);\n",
    replace: "",
  },
  {
    name: "a renewal is answered before it is on disk",
    file: "src/sandbox/lifecycle.ts",
    search: `      repository.put(renewed, "SANDBOX_RENEWED");\n      return kept(renewed);`,
    replace: `      repository.put(renewed, "SANDBOX_RENEWED");\n      return renewed;`,
  },
  {
    name: "who gives up waiting is not told",
    file: "src/sandbox/repository.ts",
    search: `        signal?.addEventListener("abort", onAbort, { once: true });`,
    replace: "",
  },
  {
    name: "events are told before they are on disk",
    file: "src/store/event-log.ts",
    search: "      committed = pending;\n",
    replace:
      "      committed = pending;\n      newest = committed;\n      for (const listener of listeners) listener();\n",
  },
  {
    name: "an end by somebody on the host is taken for the sandbox's own",
    file: "src/sandbox/ending.ts",
    search: "  if (touchedExternally) {",
    replace: "  if (false) {",
  },
  {
    name: "a create is answered before it is on disk",
    file: "src/sandbox/manager.ts",
    search: "return wait ? started(id, record.instance, signal) : kept(record);",
    replace: "return wait ? started(id, record.instance, signal) : record;",
  },
  {
    name: "who asks to look while a look goes on is forgotten",
    file: "src/sandbox/looks.ts",
    search: "      kicked.delete(id);\n",
    replace: "      setTimeout(() => kicked.delete(id), 60_000).unref();\n",
  },
  {
    name: "a sandbox is decided on as it was before the engine was asked",
    file: "src/sandbox/reconciler.ts",
    search: "      const record = repository.get(id);\n      if (record?.instance !== before.instance) {",
    replace: "      const record = before;\n      if (record?.instance !== before.instance) {",
  },
  {
    name: "limits that an update left behind stay",
    file: "src/sandbox/decide.ts",
    search: '  if (!isLimited(record, container)) return { do: "limit", container };\n',
    replace: "",
  },
  {
    name: "a container is known by its name only, until it runs",
    file: "src/sandbox/reconciler.ts",
    search: '...given("heardOf", heard),\n',
    replace: "\n",
  },
  {
    name: "a tenant's quota is not looked at",
    file: "src/sandbox/room.ts",
    search: "        ...quotaViolations(asked, ofTenant, quotaOf(tenant), record && { held }),\n",
    replace: "",
  },
  {
    name: "a tenant that is to go gets sandboxes",
    file: "src/tenant/tenants.ts",
    search: "      assertNotDeleting(name);\n      if (records.has(name)",
    replace: "      if (records.has(name)",
  },
  {
    name: "the deletion of a tenant ends with the daemon",
    file: "src/tenant/tenants.ts",
    search: "  const timer = setInterval(look, lookEveryMs);\n",
    replace: "  const timer = setInterval(() => undefined, lookEveryMs);\n",
  },
];
