import { describe, expect, test } from "vitest";
import { createEndpoints } from "../../../src/scheduler/endpoints.ts";

describe("endpoints", () => {
  test("are tried in turn", () => {
    const endpoints = createEndpoints(["https://a:1", "https://b:2"]);
    const urls = Array.from({ length: 3 }, () => endpoints.next().url);
    expect(urls).toEqual(["https://a:1", "https://b:2", "https://a:1"]);
  });

  test("are named as gRPC resolves them, with the scheme's port where none is given", () => {
    const endpoints = createEndpoints(["https://a", "http://127.0.0.1:7071", "http://[::1]:7071"]);
    const targets = Array.from({ length: 3 }, () => endpoints.next());
    expect(targets.map(({ target, secure }) => [target, secure])).toEqual([
      ["dns:///a:443", true],
      ["dns:///127.0.0.1:7071", false],
      ["dns:///[::1]:7071", false],
    ]);
  });

  test("give way once to the one that a scheduler names, then go on in turn", () => {
    const endpoints = createEndpoints(["https://a:1", "https://b:2"]);
    expect(endpoints.redirect(endpoints.next(), "https://leader:3")).toBeUndefined();
    expect([endpoints.next().url, endpoints.next().url]).toEqual(["https://leader:3", "https://b:2"]);
  });

  test("do not follow a redirect from TLS to none", () => {
    const endpoints = createEndpoints(["https://a:1"]);
    expect(endpoints.redirect(endpoints.next(), "http://leader:3")).toBe("would give up TLS");
    expect(endpoints.next().url).toBe("https://a:1");
  });

  test.each(["", "leader:3", "https://", "ftp://a:1", "https://a:1/path", "https://u:p@a:1", "https://a:0"])(
    "do not follow a redirect to %j",
    (url) => {
      const endpoints = createEndpoints(["https://a:1"]);
      expect(endpoints.redirect(endpoints.next(), url)).toBe("is not the URL of a host");
    },
  );

  test("are refused when one is not a URL of a host, or there is none", () => {
    expect(() => createEndpoints(["a:1"])).toThrow('"a:1" is not "https://host:port"');
    expect(() => createEndpoints([])).toThrow("scheduler.endpoints: is empty");
  });
});
