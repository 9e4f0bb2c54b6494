import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Clock, followClock } from './clock.ts';

const minuteMs = 60_000;
/** The common clock when the test's time is 0, ms since the epoch. */
const epochMs = 1_800_000_000_000;

/** A machine whose wall clock is `offsetMs` ahead of the common one, runs `rate` too fast, and may be set. */
function machine(offsetMs: number, rate = 0) {
  let timeMs = 0;
  let setByMs = 0;
  const jumps: number[] = [];
  // Both of a machine's clocks tick by the same quartz.
  const monotonicMs = (): number => timeMs * (1 + rate);
  const wallMs = (): number => Math.floor(epochMs + offsetMs + setByMs + monotonicMs());
  const clock = new Clock({ wallMs, monotonicMs, onJump: (byMs) => jumps.push(byMs) });
  return {
    clock,
    jumps,
    pass: (ms: number) => {
      timeMs += ms;
    },
    set: (byMs: number) => {
      setByMs += byMs;
    },
    /** A question that takes `thereMs` to be answered, and an answer that takes `backMs`. */
    ask: (thereMs: number, backMs: number) => {
      const askedMs = monotonicMs();
      timeMs += thereMs;
      const serverMs = Math.floor(epochMs + timeMs);
      timeMs += backMs;
      clock.add({ askedMs, answeredMs: monotonicMs(), wallMs: wallMs(), serverMs });
    },
    measure: (agoMs = 0) => clock.measure(monotonicMs() - agoMs),
    trueOffsetMs: () => epochMs + offsetMs + setByMs + monotonicMs() - (epochMs + timeMs),
  };
}

describe('the measure of a clock', () => {
  test('is unknown until there is an answer, and when the last one is too old', () => {
    const { measure, ask, pass } = machine(250);
    assert.equal(measure().errorMs, -1);
    ask(2, 2);
    assert.deepEqual(measure(), { offsetMs: 250, errorMs: 3 });
    pass(14 * minuteMs);
    const old = measure();
    assert.ok(old.errorMs >= 3 + 84 && old.errorMs <= 90, `${old.errorMs} ms`);
    pass(2 * minuteMs);
    assert.equal(measure().errorMs, -1);
  });

  test('is that of the quickest answer of the last minutes', () => {
    const { measure, ask, pass } = machine(-2000);
    ask(1, 1);
    for (let i = 0; i < 8; i++) {
      pass(minuteMs / 2);
      ask(5, 75);
    }
    const { offsetMs, errorMs } = measure();
    assert.equal(offsetMs, -2000);
    assert.ok(errorMs < 40, `${errorMs} ms`);
  });

  test('goes with what is newest where answers contradict each other', () => {
    const { clock } = machine(0);
    const read = (serverMs: number, halfMs: number): void =>
      clock.add({ askedMs: -halfMs, answeredMs: halfMs, wallMs: epochMs + halfMs, serverMs });
    read(epochMs, 1);
    read(epochMs - 500, 50);
    assert.deepEqual(clock.measure(0), { offsetMs: 500, errorMs: 52 });
  });

  test('is void at once when the clock is set, and again only when no report of before can come any more', () => {
    const { measure, ask, set, pass, jumps } = machine(0);
    ask(1, 1);
    set(-5000);
    assert.equal(measure().errorMs, -1);
    assert.equal(jumps.length, 1);
    assert.ok(Math.abs((jumps[0] ?? 0) + 5000) < 3);
    pass(1000);
    ask(1, 1);
    assert.equal(measure().errorMs, -1);
    pass(minuteMs);
    assert.equal(measure().offsetMs, -5000);
  });

  test('is not taken of an answer during which the clock was set', () => {
    const { clock } = machine(0);
    clock.add({ askedMs: 0, answeredMs: 100, wallMs: epochMs + 100 + 700, serverMs: epochMs + 50 });
    assert.equal(clock.measure(0).errorMs, -1);
  });

  test('never claims to be closer than it is, whatever the way to ingest, the offset and the drift', () => {
    const step = fc.record({
      thereMs: fc.double({ min: 0, max: 400, noNaN: true }),
      backMs: fc.double({ min: 0, max: 400, noNaN: true }),
      passMs: fc.constantFrom(0, 0.3, 1000, 30_000, 6 * minuteMs),
    });
    fc.assert(
      fc.property(
        fc.integer({ min: -100_000, max: 100_000 }),
        fc.double({ min: -99e-6, max: 99e-6, noNaN: true }),
        fc.array(step, { minLength: 1, maxLength: 30 }),
        fc.constantFrom(0, 10_000),
        (offset, rate, steps, agoMs) => {
          const { ask, pass, measure, trueOffsetMs, jumps } = machine(offset, rate);
          for (const { thereMs, backMs, passMs } of steps) {
            ask(thereMs, backMs);
            pass(passMs);
            const { offsetMs, errorMs } = measure(agoMs);
            assert.ok(errorMs >= 0);
            assert.ok(
              Math.abs(trueOffsetMs() - offsetMs) <= errorMs,
              `${trueOffsetMs()} is not ${offsetMs} +- ${errorMs}`,
            );
          }
          assert.deepEqual(jumps, []);
        },
      ),
      { numRuns: 500 },
    );
  });
});

test('ingest is asked at once, twice on a new connection, and then once per interval', async () => {
  const { clock } = machine(0);
  const stop = new AbortController();
  const asked: number[] = [];
  let sleptMs = 0;
  const answers = ['no-answer', 'first', 'again', 'again'] as const;
  await followClock(
    {
      clock,
      intervalMs: 5000,
      ask: async () => {
        asked.push(sleptMs);
        const answer = answers[asked.length - 1] ?? 'no-answer';
        if (asked.length === answers.length) stop.abort();
        return answer;
      },
      sleep: async (ms) => {
        sleptMs += ms;
      },
    },
    stop.signal,
  );
  assert.deepEqual(asked, [0, 5000, 5000, 10_000]);
});
