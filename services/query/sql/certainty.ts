/** How sure the names of an edge are, over all of its reports. */

/** From the surest to what says least; `late` and `none` of a pending report may yet become better. */
export const bySureness = ['exact', 'grace', 'ambiguous', 'late', 'none'] as const;

/** The least sure certainty of a column over a group. */
export function worstCertainty(column: string): string {
  const list = `[${bySureness.map((name) => `'${name}'`).join(', ')}]`;
  return `${list}[max(indexOf(${list}, toString(${column})))]`;
}

const either = (certainty: string): string =>
  `(src_certainty = '${certainty}' OR dst_certainty = '${certainty}')`;

/** Settled reports in which an end is not named for sure; what is pending is counted as that. */
export const certaintyCounts = `countIf(pending = 0 AND ${either('ambiguous')}) AS ambiguous_count,
      countIf(pending = 0 AND ${either('late')}) AS late_count, countIf(pending = 0 AND ${either('none')}) AS unnamed_count`;
