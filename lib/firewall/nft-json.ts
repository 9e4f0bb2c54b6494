/** Reads what `nft -j list ruleset` prints. */
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
import type { RuleFile } from './rule.ts';

type Json = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : typeof value === 'number' ? String(value) : '';
}

type Sets = ReadonlyMap<string, readonly unknown[]>;

/** The items of a right side: plain, a prefix, a range, a set in place or by name. */
function itemsOf(value: unknown, sets: Sets, scope: string): string[] {
  if (typeof value === 'string' && value.startsWith('@')) {
    const named = sets.get(`${scope} ${value.slice(1)}`);
    if (named === undefined) throw new Unreadable(`there is no set ${value}`);
    return named.flatMap((item) => itemsOf(item, sets, scope));
  }
  if (typeof value === 'string' || typeof value === 'number') return [String(value)];
  if (Array.isArray(value)) return value.flatMap((item) => itemsOf(item, sets, scope));
  if (isObject(value)) {
    const { prefix, range, set, elem } = value;
    if (isObject(prefix)) return [`${textOf(prefix.addr)}/${textOf(prefix.len)}`];
    if (Array.isArray(range)) return [range.map(textOf).join('-')];
    if (set !== undefined) return itemsOf(set, sets, scope);
    if (isObject(elem)) return itemsOf(elem.val, sets, scope);
  }
  throw new Unreadable(`${JSON.stringify(value).slice(0, 60)} is not understood`);
}

function match(draft: Draft, expression: Json, sets: Sets, scope: string): Draft {
  const { op, left, right } = expression;
  if (op !== '==' && op !== '!=' && op !== 'in')
    throw new Unreadable(`the operator ${textOf(op)} is not understood`);
  const items = itemsOf(right, sets, scope);
  const negated = op === '!=';
  if (isObject(left)) {
    const { payload, meta, ct } = left;
    if (isObject(payload) && typeof payload.protocol === 'string')
      return narrow(draft, payload.protocol, textOf(payload.field), items, negated);
    if (isObject(meta)) return narrow(draft, 'meta', textOf(meta.key), items, negated);
    if (isObject(ct)) return narrow(draft, 'ct', textOf(ct.key), items, negated);
  }
  throw new Unreadable(`${JSON.stringify(left).slice(0, 60)} is not understood`);
}

const silent = new Set(['counter', 'log', 'quota']);

function statement(draft: Draft, expression: Json, sets: Sets, table: string): Draft {
  const [kind = '', value] = Object.entries(expression)[0] ?? [];
  if (silent.has(kind)) return draft;
  if (kind === 'match' && isObject(value)) return match(draft, value, sets, table);
  if (kind === 'accept') return { ...draft, target: { type: 'verdict', action: 'allow' } };
  if (kind === 'drop' || kind === 'reject') return { ...draft, target: { type: 'verdict', action: 'deny' } };
  if ((kind === 'jump' || kind === 'goto') && isObject(value))
    return { ...draft, target: { type: kind, chain: `${table} ${textOf(value.target)}` } };
  if (kind === 'return') return { ...draft, target: { type: 'return' } };
  if (kind === 'limit') return withCondition(draft, 'limit');
  throw new Unreadable(`"${kind}" is not understood`);
}

function problemFile(problem: string): RuleFile {
  return { format: 'nftables', rules: [], ignored: [], problems: [problem] };
}

export function readNftJson(text: string, wanted: string | null): RuleFile {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    return problemFile(`line 1: it is no JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const list = isObject(document) && Array.isArray(document.nftables) ? document.nftables : null;
  if (list === null)
    return problemFile('line 1: expected an object with a list "nftables", as `nft -j list ruleset` prints');
  const sets = new Map<string, readonly unknown[]>();
  const chains = new Map<string, Chain>();
  const tableOf = (of: Json): string => `${textOf(of.family)} ${textOf(of.table)}`;
  list.forEach((entry: unknown, position) => {
    if (!isObject(entry)) return;
    const { set, chain } = entry;
    if (isObject(set))
      sets.set(`${tableOf(set)} ${textOf(set.name)}`, Array.isArray(set.elem) ? set.elem : []);
    if (!isObject(chain)) return;
    const hook = chain.type === 'filter' ? textOf(chain.hook) : chain.hook === undefined ? '' : 'other';
    const policy = hook === '' ? null : chain.policy === 'drop' ? 'deny' : 'allow';
    const name = `${tableOf(chain)} ${textOf(chain.name)}`;
    chains.set(name, {
      name,
      hook,
      policy,
      line: position + 1,
      every: everyOf(textOf(chain.family)),
      rules: [],
    });
  });
  list.forEach((entry: unknown, position) => {
    if (!isObject(entry) || !isObject(entry.rule)) return;
    const { rule } = entry;
    const table = tableOf(rule);
    const chain = chains.get(`${table} ${textOf(rule.chain)}`);
    let draft = newDraft(textOf(rule.family));
    let problem = '';
    try {
      if (!Array.isArray(rule.expr)) throw new Unreadable('it has no expressions');
      for (const expression of rule.expr)
        if (isObject(expression)) draft = statement(draft, expression, sets, table);
      if (draft.isReply) problem = replyReason;
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      problem = error.message;
    }
    chain?.rules.push({
      line: position + 1,
      text: JSON.stringify(rule.expr),
      comment: textOf(rule.comment),
      match: draft.match,
      target: draft.target,
      problem,
    });
  });
  return { format: 'nftables', ...layOut(chains, wanted) };
}
