// Holds the events of each sandbox to the life that the contract describes: created once, each transition from where the
// one before it led, along an arrow of the life, and nothing after the deletion.

import { type Event, EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { SandboxState as State, TransitionReason } from "../../gen/sandboxd/v1/sandbox_pb.ts";

/** The stories of all sandboxes of one host in one epoch. */
export interface Stories {
  /** Takes the next event. Returns what is wrong with it, or undefined. */
  tell(event: Event): string | undefined;
  /** Says that events are missing from here on: what was known may be so no more. */
  lost(): void;
}

/** How a sandbox that has processes may end, or be ended. */
const ends = [State.STOPPING, State.STOPPED, State.BACKING_OFF, State.FAILED, State.DELETING];

/** Events that tell of a sandbox what is no change of its state. */
const standing: ReadonlySet<EventType> = new Set([
  EventType.SANDBOX_UPDATED,
  EventType.SANDBOX_OOM,
  EventType.SANDBOX_EXPIRING,
  EventType.SANDBOX_RENEWED,
  EventType.SANDBOX_HEALTH_CHANGED,
  EventType.SANDBOX_STUCK,
]);

/**
 * Where each state may lead. A command may end, or be stopped, frozen or started by somebody on the host, while its
 * start is still looked at.
 */
const arrows: Readonly<Partial<Record<State, readonly State[]>>> = {
  [State.PENDING]: [State.PULLING, State.CREATING, State.STOPPING, State.FAILED, State.DELETING],
  [State.PULLING]: [State.CREATING, State.STOPPING, State.FAILED, State.DELETING],
  [State.CREATING]: [State.RUNNING, State.PAUSED, ...ends],
  [State.RUNNING]: [State.PAUSING, State.PAUSED, ...ends],
  // its start failed, or somebody on the host started it or froze it
  [State.BACKING_OFF]: [State.PENDING, State.PULLING, State.CREATING, State.RUNNING, State.PAUSED, ...ends],
  [State.PAUSING]: [State.PAUSED, State.RESUMING, ...ends],
  [State.PAUSED]: [State.PAUSING, State.RESUMING, State.RUNNING, ...ends],
  [State.RESUMING]: [State.PAUSING, State.RUNNING, ...ends],
  // by a policy that wants it to run again, which may have had its last try
  [State.STOPPING]: [State.STOPPED, State.BACKING_OFF, State.FAILED, State.DELETING],
  [State.STOPPED]: [State.PENDING, State.STOPPING, State.DELETING],
  [State.FAILED]: [State.PENDING, State.STOPPING, State.DELETING],
  [State.DELETING]: [State.DELETED],
};

export function createStories(): Stories {
  /** Where each sandbox is. */
  const states = new Map<string, State>();
  let isComplete = false;

  function tellSandbox({ type, sandboxId, sandbox }: Event): string | undefined {
    const { state = State.UNSPECIFIED, transition } = sandbox?.status ?? {};
    const [from = State.UNSPECIFIED, to] = [transition?.from, transition?.to];
    const before = states.get(sandboxId);
    if (type === EventType.SANDBOX_DELETED) states.delete(sandboxId);
    else states.set(sandboxId, state);

    const name = (one: State) => State[one];
    if (to !== state) return `it is ${name(state)}, its transition leads to ${name(to ?? 0)}`;
    if (type === EventType.SANDBOX_CREATED) {
      if (before !== undefined) return "created while it exists";
      return from === State.UNSPECIFIED ? undefined : `created from ${name(from)}`;
    }
    if (before === undefined)
      return isComplete ? "told of before it was created, or after it was gone" : undefined;
    if (standing.has(type)) {
      return state === before
        ? undefined
        : `${EventType[type]} moves it from ${name(before)} to ${name(state)}`;
    }
    if (from !== before) return `moves from ${name(from)}, but was ${name(before)}`;
    if ((type === EventType.SANDBOX_DELETED) !== (state === State.DELETED)) {
      return `${EventType[type]} of a sandbox that is ${name(state)}`;
    }
    // found running in another boot of the machine: told, though it runs as before
    if (state === before && transition?.reason === TransitionReason.ADOPTED) return undefined;
    return arrows[before]?.includes(state) ? undefined : `moves from ${name(before)} to ${name(state)}`;
  }

  return {
    tell(event) {
      if (event.sequence === 1n) isComplete = true;
      return event.sandboxId === "" ? undefined : tellSandbox(event);
    },
    lost() {
      states.clear();
      isComplete = false;
    },
  };
}
