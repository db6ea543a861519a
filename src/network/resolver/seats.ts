// How much each sandbox may ask: so many questions a second, so many at once, whatever the others do. And how much it did.

export interface SeatsOptions {
  readonly nowMs: () => number;
  /** Of each; twice as many may come at once after a pause. */
  readonly perSecond: number;
  /** Questions of all sandboxes that wait for their answers at once. Default: 1,024. */
  readonly most?: number;
}

export interface QueryCounts {
  /** Answered, as allowed. */
  readonly queries: number;
  /** Not allowed, or too many. */
  readonly refused: number;
}

/** A question's, until it is answered. */
export interface Seat {
  answered(): void;
  refused(): void;
  leave(): void;
}

export interface Seats {
  /** Undefined, and counted as refused, for one question too many. */
  take(who: string): Seat | undefined;
  counts(): ReadonlyMap<string, QueryCounts>;
  forget(who: string): void;
}

interface Guest {
  tokens: number;
  filledAtMs: number;
  waiting: number;
  queries: number;
  refused: number;
}

const mostOfOne = 32;
/** Nobody may take more than this share of what is free, so that something is left for whoever comes next: dynamic thresholds (Choudhury, Hahne 1998). */
const shareOfFree = 1 / 8;

export function createSeats({ nowMs, perSecond, most = 1_024 }: SeatsOptions): Seats {
  const burst = 2 * perSecond;
  const guests = new Map<string, Guest>();
  let taken = 0;

  function guestOf(who: string): Guest {
    const known = guests.get(who);
    if (known !== undefined) return known;
    const guest: Guest = { tokens: burst, filledAtMs: nowMs(), waiting: 0, queries: 0, refused: 0 };
    guests.set(who, guest);
    return guest;
  }

  function hasToken(guest: Guest): boolean {
    const now = nowMs();
    guest.tokens = Math.min(burst, guest.tokens + ((now - guest.filledAtMs) / 1_000) * perSecond);
    guest.filledAtMs = now;
    if (guest.tokens < 1) return false;
    guest.tokens -= 1;
    return true;
  }

  return {
    take(who) {
      const guest = guestOf(who);
      const room = Math.min(mostOfOne, Math.ceil((most - taken) * shareOfFree));
      if (!hasToken(guest) || guest.waiting >= room) {
        guest.refused += 1;
        return undefined;
      }
      guest.waiting += 1;
      taken += 1;
      return {
        answered() {
          guest.queries += 1;
        },
        refused() {
          guest.refused += 1;
        },
        leave() {
          guest.waiting -= 1;
          taken -= 1;
        },
      };
    },
    counts: () => new Map([...guests].map(([who, { queries, refused }]) => [who, { queries, refused }])),
    forget: (who) => void guests.delete(who),
  };
}
