/**
 * A Map by text in many small ones: each grows alone, so that no reader waits while a million entries are moved.
 */
const shardCount = 256;

function shardOf(key: string): number {
  // The end of a key varies most: uids, names of pods.
  const end = key.length;
  let hash = end;
  for (let at = Math.max(0, end - 6); at < end; at++) hash = (Math.imul(hash, 31) + key.charCodeAt(at)) | 0;
  return (hash ^ (hash >>> 11)) & (shardCount - 1);
}

export class ShardedMap<Value> {
  readonly #shards: readonly Map<string, Value>[] = Array.from(
    { length: shardCount },
    () => new Map<string, Value>(),
  );

  #shard(key: string): Map<string, Value> {
    const shard = this.#shards[shardOf(key)];
    if (shard === undefined) throw new RangeError('no such shard');
    return shard;
  }

  get(key: string): Value | undefined {
    return this.#shard(key).get(key);
  }

  set(key: string, value: Value): void {
    this.#shard(key).set(key, value);
  }

  delete(key: string): boolean {
    return this.#shard(key).delete(key);
  }

  get size(): number {
    return this.#shards.reduce((sum, { size }) => sum + size, 0);
  }
}
