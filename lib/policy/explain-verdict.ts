/** Verdicts of one policy, with their explanation: the engine says what, the explainer why. */
import type { Reason, Verdict } from '../../schemas/closed-lists.ts';
import { reasons, verdicts } from '../../schemas/closed-lists.ts';
import { ruleId } from '../inventory/ids.ts';
import { parseAddress } from '../net/address.ts';
import { PolicyEngine, reasonCodeOf, ruleOf, verdictCodeOf } from './engine.ts';
import { type ExplainedEnd, Explainer, type NearRule, type RulePath } from './explain.ts';
import type { JudgedPort } from './explain-fit.ts';
import { type Hint, hintOf } from './explain-hint.ts';
import type { Selectable } from './match.ts';
import type { PolicySpan } from './timeline.ts';

export interface Judgement {
  readonly verdict: Verdict;
  readonly reason: Reason;
  /** Id of the rule that decides (see `rules.id`); null where none does. */
  readonly ruleId: string | null;
}

export interface Explanation extends Judgement {
  readonly rule: RulePath | null;
  /** Rules that match too and decide nothing, as the rule's action comes first. */
  readonly also: readonly RulePath[];
  readonly near: readonly NearRule[];
  readonly hint: Hint | null;
}

/** Near rules that an explanation names at most. */
const maxNear = 5;
/** Identities that one engine is asked about at most; then another is made. */
const maxIdentities = 100_000;

const keyOf = ({ kind, cluster, namespace, name, labels }: Selectable): string =>
  JSON.stringify([
    kind,
    cluster,
    namespace,
    name,
    Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)),
  ]);

export class Judge {
  readonly #span: PolicySpan;
  #engine: PolicyEngine;
  #explainer: Explainer | undefined;
  /** The engine knows identities by number. */
  #identities: Selectable[] = [];
  #numbers = new Map<string, number>();

  /** @param span whose engine nobody else asks: the numbers of identities are the judge's own */
  constructor(span: PolicySpan) {
    this.#span = span;
    this.#engine = span.engine;
  }

  #number(identity: Selectable): number {
    const key = keyOf(identity);
    let number = this.#numbers.get(key);
    if (number === undefined) {
      number = this.#identities.push(identity) - 1;
      this.#numbers.set(key, number);
    }
    return number;
  }

  #blockSet({ address }: ExplainedEnd): number {
    const bytes = address === null ? null : parseAddress(address);
    return bytes === null ? 0 : this.#engine.blockSet(bytes, 0);
  }

  judge(source: ExplainedEnd, destination: ExplainedEnd, asked: JudgedPort): Judgement {
    if (this.#identities.length > maxIdentities) {
      this.#engine = new PolicyEngine(this.#span.document, this.#span.fromMs);
      this.#identities = [];
      this.#numbers = new Map();
    }
    const [from, to] = [this.#number(source.identity), this.#number(destination.identity)];
    const packed = this.#engine.verdict(
      this.#identities,
      from,
      this.#blockSet(source),
      to,
      this.#blockSet(destination),
      asked.port,
      asked.protocol,
      this.#engine.processClass(asked.process),
    );
    const rule = this.#engine.rules[ruleOf(packed)];
    return {
      verdict: verdicts[verdictCodeOf(packed)] ?? 'unexplained',
      reason: reasons[reasonCodeOf(packed)] ?? 'no-rule',
      ruleId: rule === undefined ? null : String(ruleId(rule.ruleset.name, rule.rule.name)),
    };
  }

  /** Makes what {@link explain} needs, a few ms at a time. */
  async prepare(): Promise<void> {
    this.#explainer ??= await Explainer.of(this.#span.document, this.#span.fromMs);
  }

  explain(source: ExplainedEnd, destination: ExplainedEnd, asked: JudgedPort): Explanation {
    this.#explainer ??= new Explainer(this.#span.document, this.#span.fromMs);
    const judgement = this.judge(source, destination, asked);
    const paths = this.#explainer.matching(source, destination, asked);
    const rule = paths.find(({ id }) => id === judgement.ruleId) ?? null;
    const near =
      judgement.verdict === 'allowed' ? [] : this.#explainer.near(source, destination, asked, maxNear);
    const { document } = this.#span;
    return {
      ...judgement,
      rule,
      also: paths.filter((path) => path !== rule),
      near,
      hint: hintOf({ document, ...judgement, rule, near, source, destination, asked }),
    };
  }
}
