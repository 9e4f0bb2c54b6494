/** Publications to messages of the topic `inventory` and back. The owner travels in a header, so that nobody else ends it. */
import type { BusMessage, OutgoingMessage } from '../../lib/bus/bus.ts';
import type { InventoryEvent } from '../../lib/inventory/events.ts';
import { parseAddress, parseCidr } from '../../lib/net/address.ts';
import { InventoryEvent as InventoryEventSchema } from '../../schemas/inventory-event.ts';
import { endOf, type Publication } from './state.ts';
import { type Checked, checker } from './validate.ts';

/** Name of the source that owns the entity. */
export const sourceHeader = 'source';
/** When an entity without an end of its own (namespace, cluster) ended, ms since the epoch in decimal digits. */
export const endedHeader = 'ended';

const checkEvent = checker(InventoryEventSchema);

/** What is no address or no range, which the schema cannot tell; `null` where all is well. */
function wrongAddress(event: InventoryEvent): string | null {
  switch (event.type) {
    case 'workload':
    case 'service':
    case 'name': {
      const i = event.addresses.findIndex(({ ip }) => parseAddress(ip) === null);
      return i < 0 ? null : `addresses[${i}].ip: "${event.addresses[i]?.ip}" is not an IP address`;
    }
    case 'range':
      return wrongCidr('cidrs', event.cidrs);
    case 'cluster':
      return wrongCidr('podCidrs', event.podCidrs) ?? wrongCidr('serviceCidrs', event.serviceCidrs);
    case 'namespace':
    case 'network-policy':
    case 'watermark':
      return null;
  }
}

function wrongCidr(field: string, cidrs: readonly string[]): string | null {
  const i = cidrs.findIndex((cidr) => parseCidr(cidr) === null);
  return i < 0 ? null : `${field}[${i}]: "${cidrs[i]}" is not a CIDR`;
}

/** The message, or why the event must not be published. */
export function toMessage(publication: Publication): Checked<OutgoingMessage> {
  const { key, event, source, endedMs } = publication;
  const headers: Record<string, string> = { [sourceHeader]: source };
  if (event === null) return { ok: true, value: { key, value: null, headers } };
  const checked = checkEvent(event);
  if (!checked.ok) return checked;
  const wrong = wrongAddress(event);
  if (wrong !== null) return { ok: false, message: wrong };
  if (endedMs !== null && endOf(event) === null) headers[endedHeader] = String(endedMs);
  return { ok: true, value: { key, value: Buffer.from(JSON.stringify(event)), headers } };
}

/** What a message of the topic says; `null` where it has no owner, and for what cannot be read. */
export function fromMessage(message: BusMessage): Publication | null {
  const { key, value, headers } = message;
  if (key === null) return null;
  const source = headers[sourceHeader] ?? '';
  if (value === null) return { key, event: null, source, endedMs: null };
  if (source === '') return null;
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('utf8'));
  } catch {
    return null;
  }
  const checked = checkEvent(parsed);
  if (!checked.ok) return null;
  const event: InventoryEvent = checked.value;
  const ended = headers[endedHeader];
  return { key, event, source, endedMs: endOf(event) ?? (ended === undefined ? null : Number(ended)) };
}
