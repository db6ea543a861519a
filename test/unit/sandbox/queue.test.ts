import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { expect, test } from "vitest";
import { createQueues, createSlots } from "../../../src/sandbox/queue.ts";

/** A job that ends when it is told to, and what began in which order. */
function jobs() {
  const began: string[] = [];
  const ends = new Map<string, PromiseWithResolvers<string>>();
  return {
    began,
    job: (name: string) => {
      const end = Promise.withResolvers<string>();
      ends.set(name, end);
      return () => {
        began.push(name);
        return end.promise;
      };
    },
    async end(name: string) {
      ends.get(name)?.resolve(name);
      await turn();
    },
    async fail(name: string) {
      ends.get(name)?.reject(new Error(name));
      await turn();
    },
  };
}

test("jobs of one id run one after the other, those of another beside them", async () => {
  const queues = createQueues();
  const { began, job, end } = jobs();
  const results = [queues.run("a", job("a1")), queues.run("a", job("a2")), queues.run("b", job("b1"))];
  await turn();
  expect(began).toEqual(["a1", "b1"]);
  await end("a1");
  expect(began).toEqual(["a1", "b1", "a2"]);
  await end("a2");
  await end("b1");
  expect(await Promise.all(results)).toEqual(["a1", "a2", "b1"]);
});

test("a job's failure is its caller's alone", async () => {
  const queues = createQueues();
  const { job, end, fail } = jobs();
  const first = queues.run("a", job("first"));
  const second = queues.run("a", job("second"));
  const thrower = queues.run("a", () => {
    throw new Error("at once");
  });
  const third = queues.run("a", job("third"));
  const failed = expect(first).rejects.toThrow("first");
  const threw = expect(thrower).rejects.toThrow("at once");
  await turn();
  await fail("first");
  await failed;
  await end("second");
  await threw;
  await end("third");
  expect(await Promise.all([second, third])).toEqual(["second", "third"]);
});

test("idle waits for everything accepted, failed or not", async () => {
  const queues = createQueues();
  await queues.idle();
  const { job, end, fail } = jobs();
  queues.run("a", job("a1")).catch(() => undefined);
  void queues.run("b", job("b1"));
  let isIdle = false;
  const idle = queues.idle().then(() => {
    isIdle = true;
  });
  await turn();
  await fail("a1");
  expect(isIdle).toBe(false);
  await end("b1");
  await idle;
  expect(isIdle).toBe(true);
});

test("at most so many jobs hold a slot, and waiting ones get theirs in order", async () => {
  const slots = createSlots(2);
  const { began, job, end, fail } = jobs();
  const results = ["1", "2", "3", "4"].map((name) => slots.run(job(name)));
  const failed = expect(results[1]).rejects.toThrow("2");
  await turn();
  expect(began).toEqual(["1", "2"]);
  await fail("2");
  await failed;
  expect(began).toEqual(["1", "2", "3"]);
  await end("1");
  expect(began).toEqual(["1", "2", "3", "4"]);
  await end("4");
  await end("3");
  const late = slots.run(job("5"));
  await end("5");
  expect(await late).toBe("5");
});

test("whichever jobs fail, slots never run more than their count, begin in order and are all given back", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.boolean(), { maxLength: 20 }),
      async (count, fates) => {
        const slots = createSlots(count);
        const began: number[] = [];
        let running = 0;
        let most = 0;
        const run = (index: number, fails: boolean) =>
          slots.run(async () => {
            began.push(index);
            most = Math.max(most, ++running);
            await turn();
            running--;
            if (fails) throw new Error();
          });
        await Promise.allSettled(fates.map((fails, index) => run(index, fails)));
        expect(began).toEqual(fates.map((_, index) => index));
        expect(most).toBe(Math.min(count, fates.length));
        await Promise.all(Array.from({ length: count }, (_, index) => run(index, false)));
      },
    ),
  );
});

test("who goes ahead goes before all who wait, in order among themselves", async () => {
  const slots = createSlots(1);
  const { began, job, end } = jobs();
  const all = [
    slots.run(job("running")),
    slots.run(job("waits")),
    slots.run(job("first"), { ahead: true }),
    slots.run(job("second"), { ahead: true }),
  ];
  for (const name of ["running", "first", "second", "waits"]) await end(name);
  await Promise.all(all);
  expect(began).toEqual(["running", "first", "second", "waits"]);
});
