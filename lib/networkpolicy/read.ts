/**
 * Reads the spec of a NetworkPolicy (networking.k8s.io/v1): checks it as the API server does, and fills in what is left
 * out. A key that is not known is an error: left out in silence, a misspelt one would open or close what nobody meant.
 */
import { type Cidr, isMapped, parseCidr } from '../net/address.ts';
import { nearest } from '../runtime/nearest.ts';
import {
  type NetworkPolicy,
  type Peer,
  type PolicyProtocol,
  type PolicyRule,
  type PortRule,
  policyProtocols,
  type Requirement,
  type Selector,
  selectorOperators,
} from './model.ts';

export type Way = readonly (string | number)[];

export interface SpecProblem {
  /** Way from the spec to what is wrong. */
  readonly way: Way;
  readonly message: string;
}

export type ReadPolicy =
  | { readonly ok: true; readonly policy: NetworkPolicy }
  | { readonly ok: false; readonly problems: readonly SpecProblem[] };

/** `ingress[0].from[1].ipBlock` */
export function wayText(way: Way): string {
  return way
    .map((part, i) => (typeof part === 'number' ? `[${part}]` : i === 0 ? part : `.${part}`))
    .join('');
}

type Table = Readonly<Record<string, unknown>>;

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

const isMissing = (value: unknown): value is null | undefined => value === undefined || value === null;

const labelName = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const labelPrefix = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;
const maxPrefixLength = 253;
/** A name of a port: 1 to 15 small letters, digits and inner hyphens, with a letter among them. */
const portName = /^(?=.{1,15}$)(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;

function isLabelKey(key: string): boolean {
  const slash = key.indexOf('/');
  if (slash < 0) return labelName.test(key);
  const prefix = key.slice(0, slash);
  return prefix.length <= maxPrefixLength && labelPrefix.test(prefix) && labelName.test(key.slice(slash + 1));
}

function isLabelValue(value: string): boolean {
  return value === '' || labelName.test(value);
}

class Reader {
  readonly problems: SpecProblem[] = [];

  say(way: Way, message: string): void {
    this.problems.push({ way, message });
  }

  table(value: unknown, way: Way, keys: readonly string[]): Table {
    if (!isTable(value)) {
      this.say(way, `must be a table, not ${shown(value)}`);
      return {};
    }
    for (const key of Object.keys(value)) {
      if (keys.includes(key)) continue;
      const near = nearest(key, [...keys]);
      const hint = near === undefined ? `there are ${keys.join(', ')}` : `did you mean ${near}?`;
      this.say([...way, key], `is not known here; ${hint}`);
    }
    return value;
  }

  list(value: unknown, way: Way): readonly unknown[] {
    if (isMissing(value)) return [];
    if (Array.isArray(value)) return value;
    this.say(way, `must be a list, not ${shown(value)}`);
    return [];
  }

  text(value: unknown, way: Way): string {
    if (typeof value === 'string') return value;
    this.say(way, `must be a text, not ${shown(value)}`);
    return '';
  }

  #labelKey(value: unknown, way: Way): string {
    const key = this.text(value, way);
    if (typeof value === 'string' && !isLabelKey(key)) this.say(way, `"${key}" can be no key of a label`);
    return key;
  }

  #labelValue(value: unknown, way: Way): string {
    const text = this.text(value, way);
    if (!isLabelValue(text)) this.say(way, `"${text}" can be no value of a label`);
    return text;
  }

  selector(value: unknown, way: Way): Selector {
    const table = this.table(value, way, ['matchLabels', 'matchExpressions']);
    const requirements: Requirement[] = [];
    if (!isMissing(table.matchLabels)) {
      const at = [...way, 'matchLabels'];
      if (isTable(table.matchLabels)) {
        for (const [key, wanted] of Object.entries(table.matchLabels)) {
          const place = [...at, key];
          requirements.push({
            key: this.#labelKey(key, place),
            operator: 'In',
            values: [this.#labelValue(wanted, place)],
          });
        }
      } else this.say(at, `must be a table of texts, not ${shown(table.matchLabels)}`);
    }
    const at = [...way, 'matchExpressions'];
    this.list(table.matchExpressions, at).forEach((expression, i) => {
      requirements.push(this.#expression(expression, [...at, i]));
    });
    return requirements;
  }

  #expression(value: unknown, way: Way): Requirement {
    const table = this.table(value, way, ['key', 'operator', 'values']);
    const key = this.#labelKey(table.key, [...way, 'key']);
    const operator = selectorOperators.find((known) => known === table.operator);
    const values = this.list(table.values, [...way, 'values']).map((one, i) =>
      this.#labelValue(one, [...way, 'values', i]),
    );
    if (operator === undefined) {
      this.say(
        [...way, 'operator'],
        `must be one of ${selectorOperators.join(', ')}, not ${shown(table.operator)}`,
      );
      return { key, operator: 'Exists', values: [] };
    }
    const needsValues = operator === 'In' || operator === 'NotIn';
    if (needsValues && values.length === 0)
      this.say([...way, 'values'], `must name a value at least, for operator ${operator}`);
    if (!needsValues && values.length > 0)
      this.say([...way, 'values'], `must be left out, for operator ${operator}`);
    return { key, operator, values };
  }

  cidr(value: unknown, way: Way): Cidr | null {
    const text = this.text(value, way);
    if (typeof value !== 'string') return null;
    const cidr = text.includes('/') ? parseCidr(text) : null;
    if (cidr === null) this.say(way, `"${text}" is not a CIDR such as 10.0.0.0/8 or 2001:db8::/32`);
    return cidr;
  }

  #block(value: unknown, way: Way): Peer | null {
    const table = this.table(value, way, ['cidr', 'except']);
    const cidr = this.cidr(table.cidr, [...way, 'cidr']);
    const except = this.list(table.except, [...way, 'except']).flatMap((one, i) => {
      const at = [...way, 'except', i];
      const inner = this.cidr(one, at);
      if (inner === null) return [];
      if (cidr !== null && !isStrictlyInside(inner, cidr))
        this.say(at, `${String(one)} must lie inside ${String(table.cidr)} and be smaller`);
      return [inner];
    });
    return cidr === null ? null : { kind: 'block', cidr, except };
  }

  #peer(value: unknown, way: Way): Peer | null {
    const table = this.table(value, way, ['podSelector', 'namespaceSelector', 'ipBlock']);
    const { podSelector, namespaceSelector, ipBlock } = table;
    const hasSelector = !isMissing(podSelector) || !isMissing(namespaceSelector);
    if (!isMissing(ipBlock)) {
      if (hasSelector)
        this.say(way, 'ipBlock stands alone: put podSelector and namespaceSelector in another entry');
      return this.#block(ipBlock, [...way, 'ipBlock']);
    }
    if (!hasSelector) {
      if (isTable(value)) this.say(way, 'must have podSelector, namespaceSelector or ipBlock');
      return null;
    }
    return {
      kind: 'pods',
      namespaces: isMissing(namespaceSelector)
        ? null
        : this.selector(namespaceSelector, [...way, 'namespaceSelector']),
      pods: isMissing(podSelector) ? null : this.selector(podSelector, [...way, 'podSelector']),
    };
  }

  #port(value: unknown, way: Way): PortRule {
    const table = this.table(value, way, ['port', 'endPort', 'protocol']);
    const protocol = this.#protocol(table.protocol, [...way, 'protocol']);
    const { port, endPort } = table;
    const whole = { protocol, from: 0, to: 65535 };
    if (isMissing(port)) {
      if (!isMissing(endPort)) this.say([...way, 'endPort'], 'needs a port to begin with');
      return whole;
    }
    if (typeof port === 'string') {
      if (!portName.test(port))
        this.say(
          [...way, 'port'],
          `"${port}" can be no name of a port (and a number must not stand in quotes)`,
        );
      if (!isMissing(endPort)) this.say([...way, 'endPort'], 'needs a number as port, not a name');
      return { protocol, name: port };
    }
    if (!isPort(port)) {
      this.say(
        [...way, 'port'],
        `must be a number from 1 to 65535 or the name of a port, not ${shown(port)}`,
      );
      return whole;
    }
    if (isMissing(endPort)) return { protocol, from: port, to: port };
    if (!isPort(endPort))
      this.say([...way, 'endPort'], `must be a number from 1 to 65535, not ${shown(endPort)}`);
    else if (endPort < port) this.say([...way, 'endPort'], `must not be below port ${port}`);
    else return { protocol, from: port, to: endPort };
    return whole;
  }

  #protocol(value: unknown, way: Way): PolicyProtocol {
    if (isMissing(value)) return 'TCP';
    const protocol = policyProtocols.find((known) => known === value);
    if (protocol === undefined)
      this.say(way, `must be one of ${policyProtocols.join(', ')}, not ${shown(value)}`);
    return protocol ?? 'TCP';
  }

  rules(value: unknown, way: Way, peersKey: 'from' | 'to'): PolicyRule[] {
    return this.list(value, way).map((rule, i) => {
      const at = [...way, i];
      const table = this.table(rule, at, [peersKey, 'ports']);
      const peers = this.list(table[peersKey], [...at, peersKey]);
      const ports = this.list(table.ports, [...at, 'ports']);
      return {
        peers:
          peers.length === 0
            ? null
            : peers.flatMap((peer, k) => this.#peer(peer, [...at, peersKey, k]) ?? []),
        ports: ports.length === 0 ? null : ports.map((port, k) => this.#port(port, [...at, 'ports', k])),
      };
    });
  }

  /** Ingress always, egress where it has rules, if it does not say. */
  types(value: unknown, egress: readonly PolicyRule[]): { ingress: boolean; egress: boolean } {
    const types = this.list(value, ['policyTypes']);
    types.forEach((type, i) => {
      if (type !== 'Ingress' && type !== 'Egress')
        this.say(['policyTypes', i], `must be Ingress or Egress, not ${shown(type)}`);
    });
    if (types.length > 2) this.say(['policyTypes'], 'must name Ingress and Egress at most once');
    if (types.length === 0) return { ingress: true, egress: egress.length > 0 };
    return { ingress: types.includes('Ingress'), egress: types.includes('Egress') };
  }
}

function isPort(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 65535;
}

function isStrictlyInside(inner: Cidr, outer: Cidr): boolean {
  return inner.prefix > outer.prefix && blockHolds(outer, inner.base);
}

/** Whether a block is of IPv4 addresses. */
export function isIpv4Block({ base, prefix }: Cidr): boolean {
  return prefix >= 96 && isMapped(base);
}

/** Whether the address (16 bytes) lies in the block. An IPv6 block holds no IPv4 address, however wide it is. */
export function blockHolds(block: Cidr, address: Uint8Array): boolean {
  const { base, prefix } = block;
  if (isIpv4Block(block) !== isMapped(address)) return false;
  const whole = prefix >> 3;
  for (let i = 0; i < whole; i++) if (base[i] !== address[i]) return false;
  const rest = prefix & 7;
  if (rest === 0) return true;
  const mask = (0xff << (8 - rest)) & 0xff;
  return ((base[whole] ?? 0) & mask) === ((address[whole] ?? 0) & mask);
}

/** Reads a spec. */
export function readPolicySpec(namespace: string, name: string, spec: unknown): ReadPolicy {
  const reader = new Reader();
  const table = reader.table(
    isMissing(spec) ? {} : spec,
    [],
    ['podSelector', 'policyTypes', 'ingress', 'egress'],
  );
  const pods = isMissing(table.podSelector) ? [] : reader.selector(table.podSelector, ['podSelector']);
  const ingress = reader.rules(table.ingress, ['ingress'], 'from');
  const egress = reader.rules(table.egress, ['egress'], 'to');
  const types = reader.types(table.policyTypes, egress);
  if (reader.problems.length > 0) return { ok: false, problems: reader.problems };
  return {
    ok: true,
    policy: {
      namespace,
      name,
      pods,
      ingress: types.ingress ? ingress : null,
      egress: types.egress ? egress : null,
    },
  };
}
