import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { judgeOom } from "../../../src/monitor/oom.ts";
import { sampleAt } from "./samples.ts";

const calm = { exitCode: 0, engineOomKilled: false, killRequested: false };
const memoryWith = (oomKills: number) => sampleAt(0, { memory: { oomKills, oomEvents: oomKills } }).memory;

describe("memory at the end of a sandbox", () => {
  it("did not run out when nothing says so", () => {
    expect(judgeOom(calm)).toMatchObject({
      oomEvents: 0,
      oomKills: 0,
      mainProcessKilledByOom: false,
      confidence: "certain",
    });
  });

  it("ran out without harm to the main process when that ended by itself", () => {
    expect(judgeOom({ ...calm, exitCode: 1, engineOomKilled: true, last: memoryWith(3) })).toMatchObject({
      oomKills: 3,
      mainProcessKilledByOom: false,
      confidence: "certain",
    });
  });

  it("killed the main process when that died of SIGKILL and nobody else sent it", () => {
    const verdict = { mainProcessKilledByOom: true, confidence: "likely" };
    expect(judgeOom({ ...calm, exitCode: 137, engineOomKilled: true })).toMatchObject(verdict);
    expect(judgeOom({ ...calm, exitCode: 137, last: memoryWith(1) })).toMatchObject(verdict);
  });

  it("is not blamed for SIGKILL without a trace of it", () => {
    expect(judgeOom({ ...calm, exitCode: 137, last: memoryWith(0) })).toMatchObject({
      mainProcessKilledByOom: false,
      confidence: "unlikely",
    });
  });

  it("is not blamed for a kill that was asked for, and says so when both happened", () => {
    const killed = { ...calm, exitCode: 137, killRequested: true };
    expect(judgeOom(killed)).toMatchObject({ mainProcessKilledByOom: false, confidence: "certain" });
    expect(judgeOom({ ...killed, engineOomKilled: true })).toMatchObject({
      mainProcessKilledByOom: false,
      confidence: "ambiguous",
    });
  });

  it("of an earlier life does not count", () => {
    const evidence = { ...calm, exitCode: 137, atStart: memoryWith(4), last: memoryWith(4) };
    expect(judgeOom(evidence)).toMatchObject({ oomKills: 0, mainProcessKilledByOom: false });
  });

  it("counts at least one event when the engine saw what the last sample missed", () => {
    expect(judgeOom({ ...calm, engineOomKilled: true, last: memoryWith(0) }).oomEvents).toBe(1);
  });

  it("never killed the main process unless it died of SIGKILL", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 255 }),
        fc.boolean(),
        fc.boolean(),
        fc.nat(),
        (exitCode, engineOomKilled, killRequested, oomKills) => {
          const facts = judgeOom({ exitCode, engineOomKilled, killRequested, last: memoryWith(oomKills) });
          expect(facts.mainProcessKilledByOom && exitCode !== 137).toBe(false);
          expect(facts.explanation).not.toBe("");
        },
      ),
    );
  });
});
