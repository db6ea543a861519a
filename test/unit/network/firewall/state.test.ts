import { describe, expect, test } from "vitest";
import { SandboxdError } from "../../../../src/errors.ts";
import { draftOf, inherited, noState, type State } from "../../../../src/network/firewall/state.ts";
import { bridge, egressOf, sandbox, stateOf } from "./policies.ts";

const policyOf = (state: State, id: string) => state.sandboxes.get(id)?.policy ?? 0;

describe("the state of the firewall", () => {
  test("sandboxes that may do the same have one policy, and one that nobody has is gone", () => {
    const both = stateOf({
      put: [sandbox("a", 2, { egress: egressOf() }), sandbox("b", 3, { egress: egressOf() })],
    });
    expect(both.policies.size).toBe(1);
    expect(policyOf(both, "a")).toBe(policyOf(both, "b"));
    const draft = draftOf(both);
    draft.add({ remove: ["a"], put: [sandbox("b", 3)] });
    expect(draft.state().policies.size).toBe(0);
    // the one before is as it was
    expect(both.policies.size).toBe(1);
    expect(both.sandboxes.size).toBe(2);
  });

  test("a policy has the same number in every life of the daemon", () => {
    const one = stateOf({ put: [sandbox("a", 2, { egress: egressOf() })] });
    const other = stateOf(
      { put: [sandbox("z", 9, { egress: egressOf({ denyCidrs: ["1.2.3.0/24"] }) })] },
      {
        put: [sandbox("a", 2, { egress: egressOf() })],
      },
    );
    expect(policyOf(other, "a")).toBe(policyOf(one, "a"));
    expect(policyOf(other, "z")).not.toBe(policyOf(one, "a"));
  });

  test("an address is one sandbox's, also within a change", () => {
    const state = stateOf({ put: [sandbox("a", 2)] });
    const add = (change: Parameters<ReturnType<typeof draftOf>["add"]>[0]) => {
      const draft = draftOf(state);
      draft.add(change);
      return draft.state();
    };
    expect(() => add({ put: [sandbox("b", 2)] })).toThrow(/is of sandbox "a", not of "b"/);
    expect(() => add({ put: [sandbox("b", 3), sandbox("c", 3)] })).toThrow(/is of sandbox "b"/);
    expect(add({ put: [sandbox("a", 2)] }).owners.size).toBe(1);
    // it is free once its owner has gone, or has another one
    expect([...add({ remove: ["a"], put: [sandbox("b", 2)] }).sandboxes.keys()]).toEqual(["b"]);
    expect(add({ put: [sandbox("a", 4), sandbox("b", 2)] }).owners).toEqual(
      new Map([
        ["10.77.0.4 on sbx0a", "a"],
        ["10.77.0.2 on sbx0a", "b"],
      ]),
    );
  });

  test("what cannot be written as a rule is refused, and nothing of its change is taken", () => {
    const draft = draftOf(noState);
    const refused = [
      { put: [sandbox("b", 3), { ...sandbox("a", 2), bridge: 'x" drop' }] },
      { put: [sandbox("b", 3), { ...sandbox("a", 2), address: "10.77.0.2 }" }] },
      { putBridges: [bridge, { ...bridge, bridge: "a-name-of-sixteen" }] },
      { putBridges: [{ ...bridge, subnet: "10.77.0.1/28" }] },
      { putBridges: [{ ...bridge, gateway: "10.78.0.1" }] },
    ];
    for (const change of refused) expect(() => draft.add(change)).toThrow(SandboxdError);
    expect(draft.state()).toEqual(noState);
  });

  test("connections go on under a policy that allows all their names, and under no other", () => {
    const names = (...allowDomains: readonly string[]) => ({
      put: [sandbox("a", 2, { egress: egressOf({ scope: "LISTED", allowDomains }) })],
    });
    const first = stateOf(names("a.test"));
    const wider = stateOf(names("a.test"), names("*.test"), names("*.test", "b.example"));
    const narrower = stateOf(names("a.test", "b.test"), names("a.test"));
    const heirs = (state: State) => state.policies.get(policyOf(state, "a"))?.heirOf;
    expect(heirs(first)).toEqual(new Set([policyOf(first, "a")]));
    expect(heirs(wider)?.size).toBe(3);
    expect(heirs(wider)).toContain(policyOf(first, "a"));
    expect(heirs(narrower)).toEqual(new Set([policyOf(narrower, "a")]));
    // and what an earlier life left of it is taken up for policies that there are
    const taken = inherited(first, [
      [4_711, policyOf(first, "a")],
      [4_711, 4_712],
    ]);
    expect(heirs(taken)).toEqual(new Set([policyOf(first, "a"), 4_711]));
    expect(taken.policies.size).toBe(1);
  });
});
