/** A source of VMs, bare-metal hosts and named ranges in files (`schemas/hosts-file.ts`). */
import type { Logger } from 'pino';
import Type from 'typebox';
import type { RangeEvent, WorkloadEvent } from '../../../lib/inventory/events.ts';
import { HostEntry, RangeEntry } from '../../../schemas/hosts-file.ts';
import { defaultNetwork } from '../../../schemas/inventory-event.ts';
import type { HostsSource, KubelinkConfig } from '../config.ts';
import { type FileDocument, parseDocuments } from '../documents.ts';
import { canonicalAddress, checkedCidr, intervals, timeOf } from '../manifests/common.ts';
import { checker, FieldError } from '../validate.ts';
import { type FileContents, type FileEntity, FileSource } from './file-source.ts';

/** The frame of a hosts file; what stands in the lists is checked entry by entry. */
const checkFrame = checker(
  Type.Object(
    {
      network: Type.Optional(Type.String({ minLength: 1 })),
      hosts: Type.Optional(Type.Union([Type.Array(Type.Unknown()), Type.Null()])),
      ranges: Type.Optional(Type.Union([Type.Array(Type.Unknown()), Type.Null()])),
    },
    { additionalProperties: false },
  ),
);
const checkHost = checker(HostEntry);
const checkRange = checker(RangeEntry);

function hostEvent(host: HostEntry, fileNetwork: string): WorkloadEvent {
  const sinceMs = timeOf(host.since, 'since');
  const addresses = host.addresses.map((address, i) => {
    const { ip, network } = typeof address === 'string' ? { ip: address, network: undefined } : address;
    return {
      ip: canonicalAddress(ip, `addresses[${i}]`),
      network: network ?? host.network ?? fileNetwork,
    };
  });
  return {
    v: 1,
    type: 'workload',
    kind: host.kind ?? 'vm',
    cluster: '',
    uid: host.id ?? host.name,
    name: host.name,
    namespace: host.group ?? '',
    node: '',
    hostNetwork: false,
    labels: host.labels ?? {},
    annotations: host.annotations ?? {},
    addresses: intervals(addresses, sinceMs, 0),
    sinceMs,
  };
}

function rangeEvent(range: RangeEntry, fileNetwork: string): RangeEvent {
  return {
    v: 1,
    type: 'range',
    name: range.name,
    network: range.network ?? fileNetwork,
    cidrs: range.cidrs.map((cidr, i) => checkedCidr(cidr, `cidrs[${i}]`)),
    zone: range.zone,
    labels: range.labels ?? {},
  };
}

function refOf(list: string, entry: unknown): string | null {
  if (typeof entry !== 'object' || entry === null) return null;
  const id = 'id' in entry && list === 'hosts' ? entry.id : undefined;
  const name = 'name' in entry ? entry.name : undefined;
  const named = id ?? name;
  return typeof named === 'string' ? `${list}/${named}` : null;
}

type Entry = FileEntity | { readonly message: string };

function readHost(entry: unknown, network: string): Entry {
  const checked = checkHost(entry);
  return checked.ok ? { event: hostEvent(checked.value, network), podCidrs: [] } : checked;
}

function readRange(entry: unknown, network: string): Entry {
  const checked = checkRange(entry);
  return checked.ok ? { event: rangeEvent(checked.value, network), podCidrs: [] } : checked;
}

/** Reads the text of a hosts file. An entry that names the same host or range as an earlier one is malformed. */
export function readHosts(text: string): FileContents {
  const entities = new Map<string, FileEntity>();
  const { documents, problems } = parseDocuments(text);
  const malformed: { ref: string | null; message: string }[] = problems.map(({ place, message }) => ({
    ref: null,
    message: `${place}: ${message}`,
  }));
  const takeOne = (place: string, list: string, entry: unknown, network: string): void => {
    const ref = refOf(list, entry);
    const at = `${place}${ref === null ? '' : ` (${ref.slice(list.length + 1)})`}`;
    try {
      const read = list === 'hosts' ? readHost(entry, network) : readRange(entry, network);
      if ('message' in read) malformed.push({ ref, message: `${at}: ${read.message}` });
      else if (ref !== null && !entities.has(ref)) entities.set(ref, read);
      else malformed.push({ ref, message: `${at}: named twice; the first entry counts` });
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      malformed.push({ ref, message: `${at}: ${error.message}` });
    }
  };
  const take = ({ place, value }: FileDocument): void => {
    const frame = checkFrame(value);
    if (!frame.ok) {
      malformed.push({
        ref: null,
        message: `${place}: ${frame.message} (a hosts file has hosts, ranges, network)`,
      });
      return;
    }
    const network = frame.value.network ?? defaultNetwork;
    for (const list of ['hosts', 'ranges'] as const) {
      (frame.value[list] ?? []).forEach((entry, i) => {
        takeOne(`${place}, ${list}[${i}]`, list, entry, network);
      });
    }
  };
  documents.forEach(take);
  return { entities, malformed, ignored: new Map() };
}

export function hostsSource(
  name: string,
  source: HostsSource,
  config: KubelinkConfig,
  log: Logger,
): FileSource {
  return new FileSource({
    name,
    path: source.path,
    limits: config,
    debounceMs: config.debounceMs,
    rescanMs: config.rescanMs,
    log,
    read: readHosts,
    derived: () => [],
  });
}
