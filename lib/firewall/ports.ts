/** What both readers of chains need: ports that are not listed, and the failure of a rule that cannot be taken. */
import { highestPort } from './services.ts';

/** All ports but these. */
export function otherPorts(list: readonly (readonly [number, number])[]): [number, number][] {
  const out: [number, number][] = [];
  let from = 0;
  for (const [first, last] of [...list].sort((a, b) => a[0] - b[0])) {
    if (first > from) out.push([from, first - 1]);
    from = Math.max(from, last + 1);
  }
  if (from <= highestPort) out.push([from, highestPort]);
  return out;
}
