import { expect, test } from "vitest";
import { launchFailure } from "../../../src/engine/launch.ts";

const failure = (statusCode: number, message: string) =>
  launchFailure(
    "c1",
    Object.assign(new Error(`(HTTP code ${statusCode}) container is paused - ${message}`), { statusCode }),
  );

test.each([
  [409, "Container c1 is not running", "INVALID_STATE", "STOPPED"],
  [409, "Container c1 is paused, unpause the container before exec", "INVALID_STATE", "PAUSED"],
  [404, "No such container: c1", "INVALID_STATE", "STOPPED"],
])("%i, %s: %s, %s", (status, message, reason, state) => {
  expect(failure(status, message)).toMatchObject({ reason, details: { metadata: { state } } });
});

test.each([
  "OCI runtime exec failed: exec failed: unable to start container process: read init-p: connection reset by peer",
  "OCI runtime exec failed: exec failed: container_linux.go:380: starting container process caused: process_linux.go:130: executing setns process caused: fork/exec /proc/self/exe: resource temporarily unavailable: unknown",
  "OCI runtime exec failed: exec failed: unable to start container process: procReady not received: unknown",
])("a sandbox with all its processes: %s", (message) => {
  expect(failure(500, message)).toMatchObject({ reason: "PROCESS_LIMIT_REACHED" });
});

test.each([
  'OCI runtime exec failed: exec: "/.sandboxd/toolbox": stat /.sandboxd/toolbox: no such file or directory: unknown',
  'OCI runtime exec failed: exec: "/.sandboxd/toolbox": permission denied: unknown',
])("a program that cannot be executed: %s", (message) => {
  expect(failure(400, message)).toMatchObject({ reason: "TOOLBOX_UNAVAILABLE" });
});

test("an engine that is away is that", () => {
  const refused = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
  expect(launchFailure("c1", refused)).toMatchObject({ reason: "ENGINE_UNAVAILABLE" });
});
