/** One agent at a time may use a spool: a file names the process that does. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const lockFile = 'lock';

/** Start time of a process in clock ticks since the machine's boot; with the pid it names a process for good. */
function startTicks(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command in brackets may hold anything, so fields are counted from behind it.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

function holder(path: string): number | null {
  try {
    const [pid, ticks] = readFileSync(path, 'utf8').trim().split(' ');
    return ticks !== undefined && startTicks(Number(pid)) === ticks ? Number(pid) : null;
  } catch {
    return null;
  }
}

/**
 * Takes the spool folder for this process. Returns how to give it back, or the process that has it.
 * @throws {Error} when the folder cannot be written.
 */
export function lockSpool(folder: string): { release: () => void } | { heldBy: number } {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, lockFile);
  const own = `${process.pid} ${startTicks(process.pid) ?? ''}\n`;
  for (let attempt = 0; ; attempt++) {
    try {
      writeFileSync(path, own, { flag: 'wx', mode: 0o600 });
      return { release: () => rmSync(path, { force: true }) };
    } catch (error) {
      const exists = error instanceof Error && 'code' in error && error.code === 'EEXIST';
      if (!exists || attempt > 0) throw error;
      const pid = holder(path);
      if (pid !== null && pid !== process.pid) return { heldBy: pid };
      rmSync(path, { force: true });
    }
  }
}
