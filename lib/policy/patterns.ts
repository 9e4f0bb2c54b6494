/** Patterns of names with `*`: compiled, and compared with each other. */

/** A pattern as a test of whole names. `*` stands for any text, the empty one too. */
export type NameTest = (name: string) => boolean;

/** The cheapest test that does: most patterns are plain names, or have one `*` at an end. */
export function compilePattern(pattern: string): NameTest {
  const star = pattern.indexOf('*');
  if (star < 0) return (name) => name === pattern;
  if (pattern === '*') return () => true;
  if (star === pattern.length - 1) {
    const head = pattern.slice(0, -1);
    return (name) => name.startsWith(head);
  }
  if (star === 0 && pattern.indexOf('*', 1) < 0) {
    const tail = pattern.slice(1);
    return (name) => name.endsWith(tail);
  }
  const parts = pattern.split('*').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  const whole = new RegExp(`^${parts.join('.*')}$`, 's');
  return (name) => whole.test(name);
}

/** One test for a list of patterns; none is no condition. */
export function compilePatterns(patterns: readonly string[]): NameTest {
  const tests = patterns.map(compilePattern);
  const [only] = tests;
  if (only === undefined) return () => true;
  return tests.length === 1 ? only : (name) => tests.some((test) => test(name));
}

/** Whether the plain letters before the first `*` (after the last one) tell that no name fits both. */
function endsDiffer(a: string, b: string): boolean {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length && a[i] !== '*' && b[i] !== '*'; i++) if (a[i] !== b[i]) return true;
  for (let i = 1; i <= length && a.at(-i) !== '*' && b.at(-i) !== '*'; i++)
    if (a.at(-i) !== b.at(-i)) return true;
  return false;
}

/** Whether some name fits both patterns. */
export function patternsOverlap(a: string, b: string): boolean {
  if (endsDiffer(a, b)) return false;
  // Reachable pairs of places, row by row: what is left of `a` from i and of `b` from k.
  let row = new Array<boolean>(b.length + 1).fill(false);
  row[b.length] = true;
  for (let k = b.length - 1; k >= 0 && b[k] === '*'; k--) row[k] = true;
  for (let i = a.length - 1; i >= 0; i--) {
    const above = row;
    row = new Array<boolean>(b.length + 1).fill(false);
    row[b.length] = a[i] === '*' && above[b.length] === true;
    for (let k = b.length - 1; k >= 0; k--) {
      if (a[i] === '*' || b[k] === '*') row[k] = above[k] === true || row[k + 1] === true;
      else row[k] = a[i] === b[k] && above[k + 1] === true;
    }
  }
  return row[0] === true;
}

/** Whether every name that fits `inner` fits `outer`. */
export function patternInside(inner: string, outer: string): boolean {
  // A `*` of the inner pattern is a letter that only a `*` of the outer one takes.
  let row = new Array<boolean>(outer.length + 1).fill(false);
  row[outer.length] = true;
  for (let k = outer.length - 1; k >= 0 && outer[k] === '*'; k--) row[k] = true;
  for (let i = inner.length - 1; i >= 0; i--) {
    const above = row;
    row = new Array<boolean>(outer.length + 1).fill(false);
    for (let k = outer.length - 1; k >= 0; k--) {
      if (outer[k] === '*') row[k] = above[k] === true || row[k + 1] === true;
      else row[k] = inner[i] === outer[k] && above[k + 1] === true;
    }
  }
  return row[0] === true;
}
