// What happens at the dev scheduler, as it happens.

import type { Event } from "../../gen/sandboxd/v1/event_pb.ts";
import type { Violation } from "./checker.ts";

export type Change =
  | { readonly kind: "listening"; readonly url: string }
  | {
      readonly kind: "connected";
      readonly hostId: string;
      readonly epoch: string;
      readonly sessionId: string;
    }
  | { readonly kind: "disconnected"; readonly hostId: string; readonly reason: string }
  | {
      readonly kind: "snapshot";
      readonly hostId: string;
      readonly sandboxes: number;
      readonly sequence: number;
    }
  | { readonly kind: "event"; readonly hostId: string; readonly event: Event }
  | { readonly kind: "gap"; readonly hostId: string; readonly first: number; readonly last: number }
  | { readonly kind: "host"; readonly hostId: string }
  | { readonly kind: "heartbeat"; readonly hostId: string; readonly number: number }
  | { readonly kind: "stats"; readonly hostId: string; readonly sandboxes: number }
  | { readonly kind: "violation"; readonly violation: Violation };
