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
