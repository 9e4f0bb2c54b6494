/** Reads what `nft list ruleset` prints: tables with sets and chains, and what perimeter rules use of them. */
import { type Chain, layOut } from './chains.ts';
import {
  type Draft,
  everyOf,
  narrow,
  newDraft,
  replyReason,
  Unreadable,
  withCondition,
} from './nft-match.ts';
import type { Ignored, RuleFile } from './rule.ts';

interface Token {
  readonly text: string;
  readonly line: number;
  readonly isQuoted: boolean;
}

/** Words, strings, `{`, `}`, `,`, `;`, `!=`, `=`, and the ends of lines as `\n`. */
function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  let line = 1;
  const pattern = /\n|#[^\n]*|"([^"\n]*)"|!=|[{},;=]|[^\s{},;="]+/g;
  for (const found of text.matchAll(pattern)) {
    const [all, quoted] = found;
    if (all === '\n') tokens.push({ text: '\n', line: line++, isQuoted: false });
    else if (!all.startsWith('#')) tokens.push({ text: quoted ?? all, line, isQuoted: quoted !== undefined });
  }
  return tokens;
}

/** A statement of a block, with the block that it opens, if it does. */
interface Statement {
  readonly line: number;
  readonly words: readonly Token[];
}

class Reader {
  readonly #tokens: readonly Token[];
  #at = 0;
  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }
  peek(): Token | undefined {
    return this.#tokens[this.#at];
  }
  next(): Token | undefined {
    return this.#tokens[this.#at++];
  }
  skipBreaks(): void {
    while (this.peek()?.text === '\n' || this.peek()?.text === ';') this.#at++;
  }
  /** Words up to the end of the statement; braces within it (sets in place) stay whole, however many lines they take. */
  statement(): Statement {
    const words: Token[] = [];
    let depth = 0;
    for (let token = this.peek(); token !== undefined; token = this.peek()) {
      if (depth === 0 && !token.isQuoted && (token.text === '\n' || token.text === ';' || token.text === '}'))
        break;
      this.#at++;
      if (token.isQuoted) words.push(token);
      else if (token.text !== '\n') {
        if (token.text === '{') depth++;
        if (token.text === '}') depth--;
        words.push(token);
      }
    }
    return { line: words[0]?.line ?? 0, words };
  }
}

function shown(words: readonly Token[]): string {
  return words.map(({ text, isQuoted }) => (isQuoted ? `"${text}"` : text)).join(' ');
}

type Sets = ReadonlyMap<string, readonly string[]>;

/** The words of one rule, taken one after another. */
class Words {
  readonly #words: readonly Token[];
  #at = 0;
  constructor(words: readonly Token[]) {
    this.#words = words;
  }
  get isDone(): boolean {
    return this.#at >= this.#words.length;
  }
  get here(): string {
    return this.#words[this.#at]?.text ?? '';
  }
  take(): string {
    const text = this.here;
    this.#at++;
    return text;
  }
  takeIf(...texts: readonly string[]): boolean {
    if (this.isDone || !texts.includes(this.here)) return false;
    this.#at++;
    return true;
  }
  /** A value, a list `a,b`, a set in place or by name. */
  values(sets: Sets): string[] {
    if (this.takeIf('{')) return this.#list('}');
    const first = this.take();
    if (first === '') throw new Unreadable('a value is missing');
    if (first.startsWith('@')) {
      const named = sets.get(first.slice(1));
      if (named === undefined) throw new Unreadable(`there is no set ${first}`);
      return [...named];
    }
    const out = [first];
    while (this.takeIf(',')) out.push(this.take());
    return out;
  }
  #list(end: string): string[] {
    const out: string[] = [];
    while (!this.isDone && !this.takeIf(end)) {
      const item = this.take();
      if (item === ':' || item === '.') throw new Unreadable('maps and joined keys are not understood');
      if (item !== ',') out.push(item);
    }
    return out;
  }
}

/** Words that open a condition and its fields; `meta` may be left out before its own. */
const scopes = new Set([
  'ip',
  'ip6',
  'tcp',
  'udp',
  'udplite',
  'sctp',
  'th',
  'icmp',
  'icmpv6',
  'ct',
  'meta',
  'ether',
]);
const metaFields = new Set([
  'iifname',
  'oifname',
  'iif',
  'oif',
  'iifgroup',
  'oifgroup',
  'mark',
  'skuid',
  'skgid',
  'pkttype',
  'l4proto',
  'nfproto',
]);

function takeRest(words: Words, ends: readonly string[]): void {
  while (!words.isDone && !ends.includes(words.here)) words.take();
}

const verdictWords = [
  'accept',
  'drop',
  'reject',
  'jump',
  'goto',
  'return',
  'continue',
  'comment',
  'counter',
  'log',
];

function statementOf(draft: Draft, words: Words, sets: Sets, table: string): Draft {
  const word = words.take();
  if (scopes.has(word) || metaFields.has(word)) {
    const [scope, field] = scopes.has(word) ? [word, words.take()] : ['meta', word];
    if (words.here === '.') throw new Unreadable('maps and joined keys are not understood');
    if (words.here === 'vmap' || words.here === 'map')
      throw new Unreadable('maps and joined keys are not understood');
    const negated = words.takeIf('!=');
    words.takeIf('==');
    if (words.here === '&' || words.here === '<' || words.here === '>')
      throw new Unreadable(`the operator ${words.here} is not understood`);
    return narrow(draft, scope, field, words.values(sets), negated);
  }
  if (word === 'accept') return { ...draft, target: { type: 'verdict', action: 'allow' } };
  if (word === 'drop') return { ...draft, target: { type: 'verdict', action: 'deny' } };
  if (word === 'reject') {
    takeRest(words, ['comment']);
    return { ...draft, target: { type: 'verdict', action: 'deny' } };
  }
  if (word === 'jump' || word === 'goto')
    return { ...draft, target: { type: word, chain: `${table} ${words.take()}` } };
  if (word === 'return') return { ...draft, target: { type: 'return' } };
  if (word === 'comment') return { ...draft, comment: words.take() };
  if (word === 'limit') {
    takeRest(words, verdictWords);
    return withCondition(draft, 'limit');
  }
  if (word === 'counter') {
    if (words.takeIf('packets')) words.take();
    if (words.takeIf('bytes')) words.take();
  } else if (word === 'log') takeRest(words, verdictWords);
  else if (word !== 'continue') throw new Unreadable(`"${word}" is not understood`);
  return draft;
}

interface Tables {
  readonly chains: Map<string, Chain>;
  readonly ignored: Ignored[];
  readonly problems: string[];
}

interface RawRule {
  readonly chain: Chain;
  readonly statement: Statement;
}

/** `elements = { a, b timeout 5s }` of a set. */
function elementsOf(words: readonly Token[]): string[] {
  const at = words.findIndex(({ text }) => text === '{');
  const out: string[] = [];
  let isFirst = true;
  for (const { text } of words.slice(at + 1)) {
    if (text === '}') break;
    if (text === ',') isFirst = true;
    else if (isFirst) {
      out.push(text);
      isFirst = false;
    }
  }
  return out;
}

function readBlock(reader: Reader, each: (statement: Statement) => void): void {
  for (;;) {
    reader.skipBreaks();
    const token = reader.peek();
    if (token === undefined) return;
    if (token.text === '}' && !token.isQuoted) {
      reader.next();
      return;
    }
    each(reader.statement());
  }
}

/** The header of a chain, `type filter hook forward priority filter; policy drop;`, may be one statement or several. */
function readChain(
  reader: Reader,
  family: string,
  name: string,
  line: number,
): { chain: Chain; statements: Statement[] } {
  let hook = '';
  let policy: Chain['policy'] = null;
  const statements: Statement[] = [];
  readBlock(reader, (statement) => {
    const words = statement.words.map(({ text }) => text);
    if (words[0] === 'type') {
      hook = words[1] === 'filter' ? (words[words.indexOf('hook') + 1] ?? '') : 'other';
      policy = 'allow';
    } else if (words[0] === 'policy') policy = words[1] === 'drop' ? 'deny' : 'allow';
    else if (words[0] !== 'comment') statements.push(statement);
  });
  return { chain: { name, hook, policy, line, every: everyOf(family), rules: [] }, statements };
}

function readTable(reader: Reader, family: string, table: string, out: Tables): void {
  const sets = new Map<string, readonly string[]>();
  const raw: RawRule[] = [];
  for (;;) {
    reader.skipBreaks();
    const token = reader.next();
    if (token === undefined || token.text === '}') break;
    const name = reader.next()?.text ?? '';
    if ((token.text !== 'chain' && token.text !== 'set') || reader.peek()?.text !== '{') {
      out.ignored.push({
        line: token.line,
        text: `${token.text} ${name}`,
        reason: 'only chains and sets are understood',
      });
      const { words } = reader.statement();
      if (words.length === 0 && reader.peek()?.text === '}') reader.next();
      continue;
    }
    reader.next();
    if (token.text === 'set') {
      readBlock(reader, ({ words }) => {
        if (words[0]?.text === 'elements') sets.set(name, elementsOf(words));
      });
      if (!sets.has(name)) sets.set(name, []);
      continue;
    }
    const { chain, statements } = readChain(reader, family, `${family} ${table} ${name}`, token.line);
    out.chains.set(chain.name, chain);
    raw.push(...statements.map((statement) => ({ chain, statement })));
  }
  for (const { chain, statement } of raw) {
    const words = new Words(statement.words);
    let draft = newDraft(family);
    let problem = '';
    try {
      while (!words.isDone) draft = statementOf(draft, words, sets, `${family} ${table}`);
      if (draft.isReply) problem = replyReason;
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      problem = error.message;
    }
    const { match, target, comment } = draft;
    chain.rules.push({ line: statement.line, text: shown(statement.words), comment, match, target, problem });
  }
}

/** @param wanted the chain to audit; `null` is all of the hook forward */
export function readNftText(text: string, wanted: string | null): RuleFile {
  const reader = new Reader(tokensOf(text));
  const out: Tables = { chains: new Map(), ignored: [], problems: [] };
  for (;;) {
    reader.skipBreaks();
    const token = reader.next();
    if (token === undefined) break;
    const [family, table, brace] = [reader.next(), reader.next(), reader.next()];
    if (token.text !== 'table' || family === undefined || table === undefined || brace?.text !== '{') {
      out.problems.push(
        `line ${token.line}: "${token.text}" stands where a table is expected, as \`nft list ruleset\` prints it`,
      );
      break;
    }
    readTable(reader, family.text, table.text, out);
  }
  if (out.problems.length > 0) return { format: 'nftables', rules: [], ignored: [], problems: out.problems };
  const laid = layOut(out.chains, wanted);
  const ignored = [...out.ignored, ...laid.ignored].sort((a, b) => a.line - b.line);
  return { format: 'nftables', rules: laid.rules, ignored, problems: laid.problems };
}
