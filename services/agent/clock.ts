/**
 * How far this machine's clock is from the common one, that of ingest. Each answer of ingest carries its time: it was
 * written at some moment between the question and the arrival of the answer, which bounds the difference on both sides
 * (as in RFC 5905, 8, with one server time instead of two).
 */
export interface ClockReading {
  /** By the monotonic clock, ms: before the question could leave, and when the answer was here. */
  readonly askedMs: number;
  readonly answeredMs: number;
  /** This machine's wall clock when the answer was here, ms since the epoch. */
  readonly wallMs: number;
  /** The common clock when the answer was written, ms since the epoch. */
  readonly serverMs: number;
}

/** What goes into a batch. */
export interface ClockMeasure {
  /** This clock minus the common one, whole ms. */
  readonly offsetMs: number;
  /** How far that may be off, whole ms; -1: not known. */
  readonly errorMs: number;
}

export interface ClockOptions {
  /** The wall clock, ms since the epoch. */
  readonly wallMs: () => number;
  /** The monotonic clock, ms. */
  readonly monotonicMs: () => number;
  /** Called when a jump of the wall clock was noticed, with how far it went, ms. */
  readonly onJump: (byMs: number) => void;
}

export const unknownClock: ClockMeasure = { offsetMs: 0, errorMs: -1 };

/** How much two clocks may drift apart, as a share of the time that passes (100 ppm). */
const drift = 100e-6;
/** Both wall clocks are read in whole milliseconds, ms. */
const readingErrorMs = 1;
/** Readings older than this are not chosen from while there is a younger one, ms. */
const keepMs = 5 * 60_000;
/** A measure older than this is none, ms. */
const maxAgeMs = 15 * 60_000;
/** Readings that are kept, at most. */
const maxReadings = 64;
/** Wall and monotonic clock may differ by this much more or less than before, ms: they are not read at one moment. */
const jumpMs = 3;
/**
 * After a jump there is no measure for this long, ms: reports still to come hold times of before it (a connection waits
 * this long for its first counters at most).
 */
const settleMs = 60_000;
/** Largest offset that a batch can state, ms. */
const maxOffsetMs = 2 ** 31 - 1;

interface Reading {
  readonly offsetMs: number;
  readonly errorMs: number;
  readonly atMs: number;
}

export class Clock {
  readonly #options: ClockOptions;
  /** Oldest first. */
  #readings: Reading[] = [];
  /** Wall minus monotonic clock. Only a step of the wall clock, or a sleep of the machine, changes it. */
  #baseMs: number;
  /** Until when, by the monotonic clock, there is no measure, ms. */
  #unsettledUntilMs = Number.NEGATIVE_INFINITY;

  constructor(options: ClockOptions) {
    this.#options = options;
    this.#baseMs = this.#readBase();
  }

  /** Takes in what an answer told; readings that contradict a newer one go. */
  add({ askedMs, answeredMs, wallMs, serverMs }: ClockReading): void {
    this.check();
    const halfMs = (answeredMs - askedMs) / 2;
    // A jump on the way would be part of the offset.
    const jumpedOnTheWay = Math.abs(wallMs - answeredMs - this.#baseMs) > jumpMs;
    if (!(halfMs >= 0) || !Number.isFinite(serverMs) || jumpedOnTheWay) return;
    const reading = {
      offsetMs: wallMs - halfMs - serverMs,
      errorMs: halfMs + readingErrorMs,
      atMs: answeredMs,
    };
    const agreeing = this.#readings.filter((older) => {
      const boundMs = reading.errorMs + errorAt(older, reading.atMs);
      return Math.abs(older.offsetMs - reading.offsetMs) <= boundMs;
    });
    this.#readings = [...agreeing, reading].slice(-maxReadings);
  }

  /**
   * The measure that holds for everything since `sinceMs` (by the monotonic clock): the reading with the smallest error
   * among those of the last minutes, with what may have drifted since.
   */
  measure(sinceMs: number): ClockMeasure {
    this.check();
    const nowMs = this.#options.monotonicMs();
    if (nowMs < this.#unsettledUntilMs) return unknownClock;
    const recent = this.#readings.filter(({ atMs }) => nowMs - atMs <= keepMs);
    const chosen = recent.length > 0 ? recent : this.#readings.slice(-1);
    let best: { offsetMs: number; errorMs: number } | null = null;
    for (const reading of chosen) {
      if (nowMs - reading.atMs > maxAgeMs) continue;
      const errorMs = Math.max(errorAt(reading, nowMs), errorAt(reading, sinceMs));
      if (best === null || errorMs < best.errorMs) best = { offsetMs: reading.offsetMs, errorMs };
    }
    if (best === null || Math.abs(best.offsetMs) > maxOffsetMs) return unknownClock;
    const offsetMs = Math.round(best.offsetMs);
    const errorMs = Math.ceil(best.errorMs + Math.abs(offsetMs - best.offsetMs));
    // -0 would be a number of its own to whoever compares.
    return { offsetMs: offsetMs === 0 ? 0 : offsetMs, errorMs };
  }

  /** Looks whether the wall clock has jumped; what was measured before is void then. */
  check(): void {
    const baseMs = this.#readBase();
    const byMs = baseMs - this.#baseMs;
    if (Math.abs(byMs) <= jumpMs) return;
    this.#baseMs = baseMs;
    this.#readings = [];
    this.#unsettledUntilMs = this.#options.monotonicMs() + settleMs;
    this.#options.onJump(byMs);
  }

  /** The two clocks, read close to each other: where the process was held up in between, once more. */
  #readBase(): number {
    const { wallMs, monotonicMs } = this.#options;
    for (let tries = 1; ; tries++) {
      const before = monotonicMs();
      const wall = wallMs();
      const after = monotonicMs();
      if (after - before < 1 || tries >= 5) return wall - (before + after) / 2;
    }
  }
}

/** How far a reading may be off at another time, ms. */
function errorAt(reading: Reading, atMs: number): number {
  return reading.errorMs + Math.abs(atMs - reading.atMs) * drift;
}

export interface FollowOptions {
  readonly clock: Clock;
  /** Asks ingest for its time; never rejects. Returns whether it answered, and on a connection that was open already. */
  readonly ask: (signal: AbortSignal) => Promise<'no-answer' | 'first' | 'again'>;
  /** Pause between two questions, ms. */
  readonly intervalMs: number;
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** Pause between two looks for a jump, ms. */
const checkMs = 1000;

/** Asks for the time again and again, and looks for jumps, until the signal is aborted. */
export async function followClock(options: FollowOptions, signal: AbortSignal): Promise<void> {
  const { clock, ask, intervalMs, sleep } = options;
  for (let sinceAskedMs = intervalMs; !signal.aborted; sinceAskedMs += checkMs) {
    clock.check();
    if (sinceAskedMs >= intervalMs) {
      sinceAskedMs = 0;
      // The first answer on a new connection took as long as making the connection: the second is the better one.
      if ((await ask(signal)) === 'first') await ask(signal);
    }
    await sleep(checkMs, signal);
  }
}
