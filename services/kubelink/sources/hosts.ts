/** Reads files of VMs, bare-metal hosts, named ranges and DNS names (`schemas/hosts-file.ts`). */
import Type from 'typebox';
import type { NameEvent, RangeEvent, WorkloadEvent } from '../../../lib/inventory/events.ts';
import { HostEntry, NameEntry, RangeEntry } from '../../../schemas/hosts-file.ts';
import { defaultNetwork } from '../../../schemas/inventory-event.ts';
import { type FileDocument, parseDocuments } from '../documents.ts';
import { canonicalAddress, checkedCidr, intervals, timeOf } from '../manifests/common.ts';
import { checker, FieldError } from '../validate.ts';
import { csvHosts } from './csv-hosts.ts';
import type { FileContents, FileEntity } from './file-source.ts';

/** The frame of a hosts file; what stands in the lists is checked entry by entry. */
const checkFrame = checker(
  Type.Object(
    {
      network: Type.Optional(Type.String({ minLength: 1 })),
      hosts: Type.Optional(Type.Union([Type.Array(Type.Unknown()), Type.Null()])),
      ranges: Type.Optional(Type.Union([Type.Array(Type.Unknown()), Type.Null()])),
      names: Type.Optional(Type.Union([Type.Array(Type.Unknown()), Type.Null()])),
    },
    { additionalProperties: false },
  ),
);
const checkHost = checker(HostEntry);
const checkRange = checker(RangeEntry);
const checkName = checker(NameEntry);
const lists = ['hosts', 'ranges', 'names'] as const;
type List = (typeof lists)[number];

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

/** A DNS name as it is compared: small letters, no dot at the end. */
function canonicalName(dns: string): string {
  return dns.toLowerCase().replace(/\.$/, '');
}

function nameEvent(entry: NameEntry): NameEvent {
  return {
    v: 1,
    type: 'name',
    name: entry.name,
    dns: [...new Set(entry.dns.map(canonicalName))],
    zone: entry.zone ?? 'outside',
    labels: entry.labels ?? {},
    addresses: [],
  };
}

function refOf(list: List, entry: unknown): string | null {
  if (typeof entry !== 'object' || entry === null) return null;
  const id = 'id' in entry && list === 'hosts' ? entry.id : undefined;
  const name = 'name' in entry ? entry.name : undefined;
  const named = id ?? name;
  return typeof named === 'string' ? `${list}/${named}` : null;
}

type Entry = FileEntity | { readonly message: string };

function readEntry(list: List, entry: unknown, network: string): Entry {
  switch (list) {
    case 'hosts': {
      const checked = checkHost(entry);
      return checked.ok ? { event: hostEvent(checked.value, network), podCidrs: [] } : checked;
    }
    case 'ranges': {
      const checked = checkRange(entry);
      return checked.ok ? { event: rangeEvent(checked.value, network), podCidrs: [] } : checked;
    }
    case 'names': {
      const checked = checkName(entry);
      if (!checked.ok) return checked;
      const event = nameEvent(checked.value);
      const lookups = checked.value.resolve === true ? event.dns.filter((dns) => !dns.startsWith('*')) : [];
      return { event, podCidrs: [], lookups };
    }
  }
}

/** Collects what a file says, entry by entry. */
class Contents implements FileContents {
  readonly entities = new Map<string, FileEntity>();
  readonly malformed: { ref: string | null; message: string }[] = [];
  readonly ignored = new Map<never, number>();

  /** `place` says where it stands; `wording` puts a field's name into the words of the file. */
  take(
    place: string,
    list: List,
    entry: unknown,
    network: string,
    wording: (message: string) => string = (message) => message,
  ): void {
    const ref = refOf(list, entry);
    const at = `${place}${ref === null ? '' : ` (${ref.slice(list.length + 1)})`}`;
    try {
      const read = readEntry(list, entry, network);
      if ('message' in read) this.malformed.push({ ref, message: `${at}: ${wording(read.message)}` });
      else if (ref !== null && !this.entities.has(ref)) this.entities.set(ref, read);
      else this.malformed.push({ ref, message: `${at}: named twice; the first entry counts` });
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this.malformed.push({ ref, message: `${at}: ${wording(error.message)}` });
    }
  }
}

/** Reads YAML or JSON. An entry that names the same thing as an earlier one is malformed. */
export function readHosts(text: string): FileContents {
  const contents = new Contents();
  const { documents, problems } = parseDocuments(text);
  for (const { place, message } of problems) {
    contents.malformed.push({ ref: null, message: `${place}: ${message}` });
  }
  const take = ({ place, value }: FileDocument): void => {
    const frame = checkFrame(value);
    if (!frame.ok) {
      contents.malformed.push({
        ref: null,
        message: `${place}: ${frame.message} (a hosts file has hosts, ranges, names, network)`,
      });
      return;
    }
    const network = frame.value.network ?? defaultNetwork;
    for (const list of lists) {
      (frame.value[list] ?? []).forEach((entry, i) => {
        contents.take(`${place}, ${list}[${i}]`, list, entry, network);
      });
    }
  };
  documents.forEach(take);
  return contents;
}

/** Reads CSV: a header, and a host a line. A wrong header reads nothing, a wrong line nothing of that line. */
export function readCsvHosts(text: string): FileContents {
  const contents = new Contents();
  const { problems, entries, titleOf } = csvHosts(text);
  for (const message of problems) contents.malformed.push({ ref: null, message });
  const wording = (message: string): string => {
    const field = /^[^\s:]+(?=: )/.exec(message)?.[0];
    return field === undefined ? message : `column ${titleOf(field)}${message.slice(field.length)}`;
  };
  for (const one of entries) {
    const place = `line ${one.line}`;
    if ('entry' in one) contents.take(place, 'hosts', one.entry, defaultNetwork, wording);
    else {
      const at = one.id === null ? place : `${place} (${one.id})`;
      const ref = one.id === null ? null : `hosts/${one.id}`;
      contents.malformed.push({ ref, message: `${at}: ${one.message}` });
    }
  }
  return contents;
}

/** Reads a file by its name: `.csv` as CSV, all else as YAML or JSON. */
export function readHostsFile(text: string, path: string): FileContents {
  return path.toLowerCase().endsWith('.csv') ? readCsvHosts(text) : readHosts(text);
}
