/** Which partition a key belongs to: the same on both buses and for every Kafka client that keeps Kafka's default. */

/** murmur2 as Kafka uses it (org.apache.kafka.common.utils.Utils.murmur2), signed 32 bit. */
export function murmur2(data: Uint8Array): number {
  const m = 0x5bd1e995;
  const length = data.length;
  const view = new DataView(data.buffer, data.byteOffset, length);
  let hash = 0x9747b28c ^ length;
  const whole = length & ~3;
  for (let at = 0; at < whole; at += 4) {
    let word = Math.imul(view.getInt32(at, true), m);
    word = Math.imul(word ^ (word >>> 24), m);
    hash = Math.imul(hash, m) ^ word;
  }
  const rest = length - whole;
  if (rest > 0) {
    for (let at = rest - 1; at >= 0; at--) hash ^= view.getUint8(whole + at) << (8 * at);
    hash = Math.imul(hash, m);
  }
  hash ^= hash >>> 13;
  hash = Math.imul(hash, m);
  return hash ^ (hash >>> 15);
}

/** The partition of `key` among `partitionCount`. */
export function partitionOf(key: string, partitionCount: number): number {
  return (murmur2(Buffer.from(key, 'utf8')) & 0x7fffffff) % partitionCount;
}

/** Spreads messages without a key evenly; keeps no state but a counter. */
export class Spreader {
  #next = 0;

  partition(partitionCount: number): number {
    this.#next = (this.#next + 1) % 0x40000000;
    return this.#next % partitionCount;
  }
}
