/** Reads from /proc what the kernel lost on its way to the conntrack program. */

/**
 * Messages dropped at the given sockets, of /proc/<pid>/net/netlink: columns sk, Eth, Pid, Groups, Rmem, Wmem, Dump,
 * Locks, Drops, Inode.
 */
export function netlinkDropCount(table: string, inodes: ReadonlySet<string>): number {
  let count = 0;
  for (const line of table.split('\n')) {
    const columns = line.trim().split(/\s+/);
    if (inodes.has(columns[9] ?? '')) count += Number(columns[8]);
  }
  return count;
}

/** Connections the kernel could not track (table full, clash), of /proc/net/stat/nf_conntrack: hexadecimal, a line a CPU. */
export function untrackedCount(table: string): number {
  const [header, ...lines] = table.trim().split('\n');
  const names = header?.trim().split(/\s+/) ?? [];
  const wanted = ['insert_failed', 'drop'].map((name) => names.indexOf(name)).filter((index) => index >= 0);
  let count = 0;
  for (const line of lines) {
    const columns = line.trim().split(/\s+/);
    for (const index of wanted) count += Number.parseInt(columns[index] ?? '0', 16);
  }
  return count;
}
