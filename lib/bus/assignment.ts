/** Who gets which partition of a group: balanced, deterministic, and moving as little as it can. */
import type { TopicPartition } from './bus.ts';

export interface GroupMember {
  readonly id: string;
  readonly topics: readonly string[];
}

/** A text that names a partition, for maps. */
export function partitionKey(at: TopicPartition): string {
  return `${at.topic}/${at.partition}`;
}

/**
 * Gives every partition whose topic somebody reads to one member. `current` names the present owners by
 * {@link partitionKey}. Members that read the same topics differ by one partition at most.
 */
export function assignPartitions(
  members: readonly GroupMember[],
  partitions: readonly TopicPartition[],
  current: ReadonlyMap<string, string>,
): Map<string, string> {
  const sorted = [...members].sort((a, b) => (a.id < b.id ? -1 : 1));
  const ordered = [...partitions].sort((a, b) =>
    a.topic === b.topic ? a.partition - b.partition : a.topic < b.topic ? -1 : 1,
  );
  const load = new Map(sorted.map((member) => [member.id, 0]));
  const owners = new Map<string, string>();
  const loadOf = (id: string): number => load.get(id) ?? 0;
  const give = (key: string, id: string): void => {
    const previous = owners.get(key);
    if (previous !== undefined) load.set(previous, loadOf(previous) - 1);
    owners.set(key, id);
    load.set(id, loadOf(id) + 1);
  };
  const leastLoaded = (topic: string): string | undefined => {
    let best: string | undefined;
    for (const member of sorted) {
      if (member.topics.includes(topic) && (best === undefined || loadOf(member.id) < loadOf(best)))
        best = member.id;
    }
    return best;
  };

  for (const at of ordered) {
    const owner = sorted.find((member) => member.id === current.get(partitionKey(at)));
    if (owner?.topics.includes(at.topic)) give(partitionKey(at), owner.id);
  }
  for (const at of ordered) {
    if (owners.has(partitionKey(at))) continue;
    const least = leastLoaded(at.topic);
    if (least !== undefined) give(partitionKey(at), least);
  }
  // Each move lowers the sum of squared loads, so this ends.
  for (let moved = true; moved; ) {
    moved = false;
    for (const at of ordered) {
      const owner = owners.get(partitionKey(at));
      const least = leastLoaded(at.topic);
      if (owner === undefined || least === undefined || loadOf(owner) - loadOf(least) < 2) continue;
      give(partitionKey(at), least);
      moved = true;
    }
  }
  return owners;
}
