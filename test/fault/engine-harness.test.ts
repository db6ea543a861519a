// What the fault tests rely on: that an engine of their own can be broken in these ways, and mended.

import { afterEach, expect, test } from "vitest";
import type { PrivateEngine } from "../../tools/lib/engine.mjs";
import { answers, callJson } from "../../tools/lib/engine-api.mjs";
import { baseImage, engineObstacle, ownEngine } from "../harness/engine.ts";

let engine: PrivateEngine | undefined;

afterEach(async () => {
  await engine?.stop();
  engine = undefined;
});

interface State {
  readonly Running: boolean;
  readonly Pid: number;
}

async function runContainer(socket: string): Promise<() => Promise<State>> {
  const made = await callJson(socket, "POST", "/containers/create", {
    Image: baseImage,
    Cmd: ["sleep", "1000"],
    HostConfig: { Init: true },
  });
  const { Id: id } = made as { readonly Id: string };
  await callJson(socket, "POST", `/containers/${id}/start`);
  return async () => {
    const found = await callJson(socket, "GET", `/containers/${id}/json`);
    return (found as { readonly State: State }).State;
  };
}

test.skipIf(engineObstacle)("containers outlive an engine with live-restore that is killed", async () => {
  engine = await ownEngine({ liveRestore: true });
  const stateOf = await runContainer(engine.socket);
  const before = await stateOf();
  await engine.kill();
  expect(await answers(engine.socket)).toBe(false);
  await engine.restart();
  expect(await stateOf()).toMatchObject({ Running: true, Pid: before.Pid });
});

test.skipIf(engineObstacle)(
  "containers end with an engine that is restarted without live-restore",
  async () => {
    engine = await ownEngine();
    const stateOf = await runContainer(engine.socket);
    await engine.restart();
    expect((await stateOf()).Running).toBe(false);
  },
);

test.skipIf(engineObstacle)("a frozen engine does not answer until it is thawed", async () => {
  engine = await ownEngine();
  await engine.freeze();
  expect(await answers(engine.socket)).toBe(false);
  engine.thaw();
  expect(await answers(engine.socket)).toBe(true);
});
