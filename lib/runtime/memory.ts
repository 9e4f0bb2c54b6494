/** Memory of a process and what it started, from procfs. */
import { readFileSync } from 'node:fs';

const pageBytes = 4096;
const maxProcessCount = 64;

/** Resident bytes of `pid` and its descendants; `undefined` where procfs doesn't tell. */
export function residentBytes(pid: number): number | undefined {
  let total: number | undefined;
  const pending = [pid];
  for (let visited = 0; pending.length > 0 && visited < maxProcessCount; visited++) {
    const next = pending.pop();
    try {
      const pages = Number(readFileSync(`/proc/${next}/statm`, 'utf8').split(' ')[1]);
      total = (total ?? 0) + pages * pageBytes;
      const children = readFileSync(`/proc/${next}/task/${next}/children`, 'utf8').trim();
      pending.push(
        ...children
          .split(' ')
          .filter((text) => text !== '')
          .map(Number),
      );
    } catch {
      // It ended meanwhile, or this system has no procfs.
    }
  }
  return total;
}
