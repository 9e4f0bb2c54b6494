/** How large a message counts against a topic's limit. */
import type { OutgoingMessage } from './bus.ts';

/** Bytes of value, key and headers. */
export function messageBytes(message: OutgoingMessage): number {
  let bytes = message.value?.byteLength ?? 0;
  if (message.key !== null) bytes += Buffer.byteLength(message.key);
  for (const [name, value] of Object.entries(message.headers ?? {})) {
    bytes += Buffer.byteLength(name) + Buffer.byteLength(value);
  }
  return bytes;
}

/** Longest metadata of a commit, bytes of UTF-8: what a Kafka broker takes by default (offset.metadata.max.bytes). */
export const maxMetadataBytes = 4096;

/** @throws {Error} when the metadata is too long. */
export function checkMetadata(metadata: string): void {
  const bytes = Buffer.byteLength(metadata);
  if (bytes > maxMetadataBytes) {
    throw new Error(`metadata of ${bytes} bytes cannot be committed: the limit is ${maxMetadataBytes}`);
  }
}
