/** Tells whether the process behind a group member is provably gone, so that nobody waits for its session to end. */
import { readFileSync, readlinkSync } from 'node:fs';

/** Names this process among all of the machine's; empty where that cannot be said (then only the timeout counts). */
export function processName(): string {
  const place = namespaceName();
  const started = startOf(process.pid);
  return place === undefined || started === undefined ? '' : `${place} ${process.pid} ${started}`;
}

/** True only when `name` was given in this process id namespace, since the last boot, and that process is no more. */
export function isGone(name: string): boolean {
  const [boot, namespace, pid, started] = name.split(' ');
  if (started === undefined || `${boot} ${namespace}` !== namespaceName()) return false;
  return startOf(Number(pid)) !== started;
}

function namespaceName(): string | undefined {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    return `${boot} ${readlinkSync('/proc/self/ns/pid')}`;
  } catch {
    return undefined;
  }
}

/** When the process began, in clock ticks since boot (field 22 of proc_pid_stat(5)); undefined for none or a zombie. */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the command in parentheses, which may itself hold spaces and parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
