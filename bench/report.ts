/** What a benchmark says: one figure, the baseline it is held against in the same run, and their ratio. */

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** The same work done the plain way (or the limit that can't be passed), in the same unit and run. */
  readonly baseline?: number;
  /** What the baseline is. */
  readonly against?: string;
}

export function ratioOf({ value, baseline }: Figure): number | undefined {
  return baseline === undefined || baseline === 0 ? undefined : value / baseline;
}

function shown(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  if (value >= 1e3) return `${(value / 1e3).toFixed(1)} k`;
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** One JSON object a line: name, value, unit, baseline, ratio. */
export function jsonLine(figure: Figure): string {
  const { name, value, unit, baseline, against } = figure;
  return JSON.stringify({
    name,
    value,
    unit,
    baseline: baseline ?? null,
    ratio: ratioOf(figure) ?? null,
    against: against ?? null,
  });
}

/** The figure as a row of the table. */
export function tableRow(figure: Figure): string[] {
  const { name, value, unit, baseline, against } = figure;
  const ratio = ratioOf(figure);
  return [
    name,
    `${shown(value)} ${unit}`,
    baseline === undefined ? '' : `${shown(baseline)} ${unit}`,
    ratio === undefined ? '' : `${ratio.toFixed(2)} x`,
    against ?? '',
  ];
}

/** Runs `work` `times` times after a warm-up and returns the median of its durations, in seconds. */
export async function medianSeconds(times: number, work: () => void | Promise<void>): Promise<number> {
  await work();
  const durations: number[] = [];
  for (let i = 0; i < times; i++) {
    const begin = performance.now();
    await work();
    durations.push((performance.now() - begin) / 1000);
  }
  durations.sort((a, b) => a - b);
  return durations[durations.length >> 1] ?? Number.NaN;
}

/** Ends the benchmark when a result is not what it must be: a fast wrong answer is no figure. */
export function mustEqual(what: string, found: unknown, expected: unknown): void {
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    throw new Error(`${what}: ${JSON.stringify(found)} is not ${JSON.stringify(expected)}`);
  }
}
