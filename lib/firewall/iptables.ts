/** Reads what `iptables-save` and `ip6tables-save` print: the table filter, and what perimeter rules use of it. */
import {
  type AddressSet,
  complement,
  everyIpv4,
  everyIpv6,
  intersect,
  parseAddressItem,
  unite,
} from './addresses.ts';
import { type Chain, type ChainRule, layOut, type Match, type Target } from './chains.ts';
import { icmpTypeRange } from './icmp.ts';
import { Unreadable } from './nft-match.ts';
import { otherPorts } from './ports.ts';
import type { Ignored, RuleFile } from './rule.ts';
import { highestPort, type PortRange, protocolNumber, type Services } from './services.ts';

/** Words of a line; quotes hold spaces. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map((match) =>
    match[1] === undefined ? (match[2] ?? '') : match[1].replace(/\\(.)/g, '$1'),
  );
}

interface Draft {
  source: AddressSet;
  destination: AddressSet;
  protocol: PortRange['protocol'];
  ports: readonly (readonly [number, number])[];
  conditions: string[];
  comment: string;
  target: Target;
  isReply: boolean;
}

function addresses(text: string, negated: boolean, every: AddressSet): AddressSet {
  const sets = text.split(',').map((item) => {
    const set = parseAddressItem(item);
    if (typeof set === 'string') throw new Unreadable(set);
    return set;
  });
  const all = intersect(unite(sets.flat()), every);
  return negated ? intersect(complement(all), every) : all;
}

function portList(text: string, negated: boolean): [number, number][] {
  const list = text.split(',').map((item): [number, number] => {
    const match = /^(\d{0,5})(?:(:)(\d{0,5}))?$/.exec(item);
    const first = match?.[1] === '' ? 0 : Number(match?.[1]);
    const last = match?.[2] === undefined ? first : match[3] === '' ? highestPort : Number(match[3]);
    if (match === null || first > last || last > highestPort) throw new Unreadable(`"${item}" is no port`);
    return [first, last];
  });
  return negated ? otherPorts(list) : list;
}

/** Matches that flows do not tell: options with this many values, kept as conditions. */
const untold: Readonly<Record<string, string>> = {
  '-i': 'in-interface',
  '--in-interface': 'in-interface',
  '-o': 'out-interface',
  '--out-interface': 'out-interface',
  '--sport': 'source port',
  '--sports': 'source port',
  '--source-port': 'source port',
  '--limit': 'limit',
  '--limit-burst': 'limit burst',
  '--mark': 'mark',
  '--mac-source': 'source MAC',
  '--physdev-in': 'bridge port',
  '--physdev-out': 'bridge port',
};
const ends: Readonly<Record<string, 'source' | 'destination'>> = {
  '-s': 'source',
  '--source': 'source',
  '--src-range': 'source',
  '-d': 'destination',
  '--destination': 'destination',
  '--dst-range': 'destination',
};
/** Options with one value that change nothing about what matches. */
const silent = new Set(['-m', '--match', '--reject-with', '--log-prefix', '--log-level']);

const verdicts: Readonly<Record<string, Target>> = {
  ACCEPT: { type: 'verdict', action: 'allow' },
  DROP: { type: 'verdict', action: 'deny' },
  REJECT: { type: 'verdict', action: 'deny' },
  RETURN: { type: 'return' },
  LOG: { type: 'none' },
  NFLOG: { type: 'none' },
};

function stateOf(draft: Draft, states: readonly string[], negated: boolean): void {
  if (negated) throw new Unreadable('a negated state is not understood');
  if (states.includes('NEW')) return;
  if (states.every((state) => state === 'ESTABLISHED' || state === 'RELATED' || state === 'INVALID')) {
    draft.isReply = true;
  } else throw new Unreadable(`state ${states.join(',')} is not understood`);
}

function option(draft: Draft, name: string, value: string, negated: boolean, every: AddressSet): void {
  const end = ends[name];
  if (end !== undefined) {
    draft[end] = intersect(draft[end], addresses(value, negated, every));
    return;
  }
  if (name === '-p' || name === '--protocol') {
    const number = value === 'all' ? 'any' : protocolNumber(value);
    if (number === null || negated)
      throw new Unreadable(`protocol ${negated ? '! ' : ''}${value} is not understood`);
    draft.protocol = number;
    return;
  }
  if (name === '--dport' || name === '--dports' || name === '--destination-port') {
    draft.ports = portList(value, negated);
    return;
  }
  if (name === '--icmp-type' || name === '--icmpv6-type') {
    const range = icmpTypeRange(value, name === '--icmpv6-type' ? 58 : 1);
    if (range === null || negated) throw new Unreadable(`ICMP type ${value} is not understood`);
    draft.ports = [[range.first, range.last]];
    return;
  }
  if (name === '--state' || name === '--ctstate') {
    stateOf(draft, value.split(','), negated);
    return;
  }
  if (name === '--comment') {
    draft.comment = value;
    return;
  }
  if (name === '-j' || name === '--jump' || name === '-g' || name === '--goto') {
    const goto = name === '-g' || name === '--goto';
    draft.target = verdicts[value] ?? { type: goto ? 'goto' : 'jump', chain: value };
    return;
  }
  const why = untold[name];
  if (why !== undefined) {
    draft.conditions.push(`${why} ${negated ? 'not ' : ''}${value}`);
    return;
  }
  if (!silent.has(name)) throw new Unreadable(`${name} is not understood`);
}

function readRule(words: readonly string[], line: number, text: string, every: AddressSet): ChainRule {
  const draft: Draft = {
    source: every,
    destination: every,
    protocol: 'any',
    ports: [[0, highestPort]],
    conditions: [],
    comment: '',
    target: { type: 'none' },
    isReply: false,
  };
  let problem = '';
  try {
    for (let i = 0; i < words.length; ) {
      let negated = words[i] === '!';
      if (negated) i++;
      const name = words[i] ?? '';
      i++;
      if (name === '--syn') continue;
      if (name === '--tcp-flags') {
        draft.conditions.push(`TCP flags ${words[i]} ${words[i + 1]}`);
        i += 2;
        continue;
      }
      if (words[i] === '!') {
        negated = true;
        i++;
      }
      if (words[i] === undefined) throw new Unreadable(`${name} is not understood`);
      option(draft, name, words[i] ?? '', negated, every);
      i++;
    }
    if (draft.isReply)
      problem = 'it is about replies and what belongs to them, which flows count with their connection';
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    problem = error.message;
  }
  const services: Services = draft.ports.map(([first, last]) => ({ protocol: draft.protocol, first, last }));
  const match: Match = {
    source: draft.source,
    destination: draft.destination,
    services,
    conditions: draft.conditions,
  };
  return { line, text, comment: draft.comment, match, target: draft.target, problem };
}

const hooks: Readonly<Record<string, string>> = { FORWARD: 'forward', INPUT: 'input', OUTPUT: 'output' };

/** @param wanted the chain to audit; `null` is FORWARD */
export function readIptables(text: string, wanted: string | null): RuleFile {
  const chains = new Map<string, Chain>();
  const ignored: Ignored[] = [];
  const problems: string[] = [];
  let table = '';
  const lines = text.split(/\r\n|\n|\r/);
  const every = lines.some((line) => /^#.*ip6tables/.test(line)) ? everyIpv6 : everyIpv4;
  lines.forEach((raw, position) => {
    const line = position + 1;
    const content = raw.trim();
    if (content === '' || content.startsWith('#') || content === 'COMMIT') return;
    if (content.startsWith('*')) {
      table = content.slice(1);
      return;
    }
    if (table === '') {
      problems.push(`line ${line}: "${content.slice(0, 60)}" stands before any table; expected *filter`);
      return;
    }
    if (table !== 'filter') {
      if (content.startsWith('-'))
        ignored.push({ line, text: content, reason: `table ${table} does not filter` });
      return;
    }
    if (content.startsWith(':')) {
      const [name = '', policy = '-'] = content.slice(1).split(/\s+/);
      const action = policy === 'ACCEPT' ? 'allow' : policy === '-' ? null : 'deny';
      chains.set(name, { name, hook: hooks[name] ?? '', policy: action, line, every, rules: [] });
      return;
    }
    // Counters may stand before a rule.
    const words = wordsOf(content.replace(/^\[\d+:\d+\]\s*/, ''));
    const chain = words[0] === '-A' ? chains.get(words[1] ?? '') : undefined;
    if (chain === undefined)
      ignored.push({ line, text: content, reason: 'it is no rule of a chain that was declared' });
    else chain.rules.push(readRule(words.slice(2), line, content, every));
  });
  if (problems.length > 0) return { format: 'iptables-save', rules: [], ignored: [], problems };
  const laid = layOut(chains, wanted);
  return {
    format: 'iptables-save',
    rules: laid.rules,
    ignored: [...ignored, ...laid.ignored].sort((a, b) => a.line - b.line),
    problems: laid.problems,
  };
}
