/** What rules cost: a verdict that is remembered and one that is not, compiling, and the enricher with few rules and many. */
import type { Inventory } from '../lib/inventory/inventory.ts';
import { parseAddress } from '../lib/net/address.ts';
import { PolicyEngine, reasonCodeOf, ruleOf, verdictCodeOf } from '../lib/policy/engine.ts';
import type { Selectable } from '../lib/policy/match.ts';
import { referenceVerdict } from '../lib/policy/reference.ts';
import { PolicyTimeline } from '../lib/policy/timeline.ts';
import { reasons, verdicts } from '../schemas/closed-lists.ts';
import type { Actor, PolicyDocument, Rule } from '../schemas/policy.ts';
import { makeEnrichment } from './hot-path.ts';
import { makeFlows, makeIdentities, makePolicy, numbers } from './policy-world.ts';
import { type Figure, medianSeconds, mustEqual } from './report.ts';
import { loadWorld, type Traffic } from './traffic.ts';

const identityCount = 10_000;
const ruleCounts = [10, 1000, 10_000] as const;
const nowMs = Date.UTC(2026, 0, 1);
/** The plain reading takes milliseconds a flow at 10,000 rules. */
const referenceFlows = 200;

const counted = (count: number): string => count.toLocaleString('en');

/** All flows with a verdict each, against the plain reading of a sample. */
async function benchVerdicts(identities: readonly Selectable[], ruleCount: number): Promise<Figure[]> {
  const policy = makePolicy(ruleCount);
  const flows = makeFlows(identities, 100_000);
  const engine = await PolicyEngine.compile(policy, nowMs, identities);
  const sources = flows.map(({ source }) => engine.blockSet(parseAddress(source.address)!, 0));
  const destinations = flows.map(({ destination }) => engine.blockSet(parseAddress(destination.address)!, 0));
  const packed = new Int32Array(flows.length);
  const judgeAll = (): void => {
    for (let i = 0; i < flows.length; i++) {
      const flow = flows[i]!;
      packed[i] = engine.verdict(
        identities,
        flow.sourceIndex,
        sources[i]!,
        flow.destinationIndex,
        destinations[i]!,
        flow.port,
        flow.protocol,
      );
    }
  };
  const begin = performance.now();
  judgeAll();
  const missSeconds = (performance.now() - begin) / 1000;
  const hitSeconds = await medianSeconds(5, judgeAll);
  const sample = flows.slice(0, referenceFlows);
  const plainBegin = performance.now();
  const plain = sample.map((flow) => referenceVerdict(policy, nowMs, flow));
  const plainRate = sample.length / ((performance.now() - plainBegin) / 1000);
  mustEqual(
    `verdicts with ${ruleCount} rules`,
    sample.map((_, i) => {
      const compiled = engine.rules[ruleOf(packed[i]!)];
      return {
        verdict: verdicts[verdictCodeOf(packed[i]!)],
        reason: reasons[reasonCodeOf(packed[i]!)],
        rule: compiled === undefined ? '' : `${compiled.ruleset.name}/${compiled.rule.name}`,
      };
    }),
    plain,
  );
  const of = `${counted(ruleCount)} rules, ${counted(identityCount)} identities`;
  const figure = (what: string, seconds: number): Figure => ({
    name: `verdict, ${what}, ${of}`,
    value: flows.length / seconds,
    unit: 'verdicts/s',
    baseline: plainRate,
    against: 'reading every rule',
  });
  return [figure('not remembered', missSeconds), figure('remembered', hitSeconds)];
}

/** Processor time of this thread, ms: what others do on the machine is not in it. */
function threadMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

/** How long `work` takes, and the processor time of the longest turn of the event loop meanwhile, in seconds. */
async function longestTurn(work: () => Promise<unknown>): Promise<{ seconds: number; longest: number }> {
  let longest = 0;
  let last = threadMs();
  let isOver = false;
  const turn = (): void => {
    const now = threadMs();
    longest = Math.max(longest, now - last);
    last = now;
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  const begin = performance.now();
  await work();
  const seconds = (performance.now() - begin) / 1000;
  isOver = true;
  return { seconds, longest: longest / 1000 };
}

async function benchCompile(identities: readonly Selectable[], ruleCount: number): Promise<Figure[]> {
  const policy = makePolicy(ruleCount);
  let whole = 0;
  const wholeSeconds = await medianSeconds(3, () => {
    whole = new PolicyEngine(policy, nowMs).rules.length;
  });
  mustEqual('rules compiled', whole, ruleCount);
  const rules = await longestTurn(() => PolicyEngine.compile(policy, nowMs));
  const all = await longestTurn(() => PolicyEngine.compile(policy, nowMs, identities));
  const of = `${counted(ruleCount)} rules`;
  return [
    {
      name: `compiling ${of} in slices`,
      value: rules.seconds,
      unit: 's',
      baseline: wholeSeconds,
      against: 'all at once',
    },
    {
      name: `the same, and meeting ${counted(identityCount)} identities`,
      value: all.seconds,
      unit: 's',
      baseline: 2,
      against: 'the time a change may take',
    },
    {
      name: 'longest stall of the event loop by it (processor time)',
      value: Math.max(rules.longest, all.longest),
      unit: 's',
      baseline: wholeSeconds,
      against: 'all at once',
    },
  ];
}

/** Rules of a policy, cut or filled up to `count` with rules between applications that the inventory really has. */
function sized(policy: PolicyDocument, inventory: Inventory, count: number, version: number): PolicyDocument {
  const own = new PolicyEngine(policy, Date.now()).rules.length;
  if (own >= count) {
    let left = count;
    const rulesets = policy.rulesets.flatMap((ruleset) => {
      const rules = ruleset.rules.slice(0, left);
      left -= rules.length;
      return rules.length === 0 ? [] : [{ ...ruleset, rules }];
    });
    return { ...policy, version, rulesets };
  }
  const below = numbers(count);
  const workloads = inventory.identities.list.filter(({ labels }) => labels.app !== undefined);
  const actor = (): Actor => {
    const { labels } = workloads[below(workloads.length)]!;
    const { app = '', role, env } = labels;
    return {
      labels: { app, ...(role === undefined ? {} : { role }), ...(env === undefined ? {} : { env }) },
    };
  };
  const rules = Array.from({ length: count - own }, (_, i): Rule => {
    const services = [{ port: 20_000 + below(10_000) }];
    const to: Actor = i % 10 === 0 ? { cidr: `203.0.${below(256)}.${below(256)}` } : actor();
    return { name: `filler-${i}`, from: [actor()], to: [to], services };
  });
  return { ...policy, version, rulesets: [...policy.rulesets, { name: 'filler', rules }] };
}

function timelineOf(policy: PolicyDocument): PolicyTimeline {
  const policies = new PolicyTimeline();
  policies.add(policy);
  return policies;
}

/** Rounds of the two take turns, so that what else the machine does meets both. */
async function benchEnricher(traffic: Traffic): Promise<Figure[]> {
  const { inventory } = loadWorld(traffic);
  const [few, many] = [10, 10_000].map((count) => {
    const policy = sized(traffic.policy, inventory, count, count);
    const policies = timelineOf(policy);
    mustEqual('rules in force', policies.at(Date.now()).engine.rules.length, count);
    const enrich = makeEnrichment(inventory, policies);
    const seconds: number[] = [];
    return { enrich, seconds };
  });
  let rows = 0;
  const round = ({ enrich, seconds }: NonNullable<typeof few>): void => {
    const begin = performance.now();
    enrich(traffic, ({ rowCount }) => {
      rows += rowCount;
    });
    seconds.push((performance.now() - begin) / 1000);
  };
  const rounds = 7;
  for (let i = 0; i < rounds; i++) for (const one of [few!, many!]) round(one);
  mustEqual('flows enriched', rows, 2 * rounds * traffic.flowCount);
  const rate = (seconds: number): number => traffic.flowCount / seconds;
  const median = ([, ...seconds]: readonly number[]): number =>
    seconds.toSorted((a, b) => a - b)[rounds >> 1]!;
  return [
    {
      name: 'enrichment, one core, 10,000 rules',
      value: rate(median(many!.seconds)),
      unit: 'flows/s',
      baseline: rate(median(few!.seconds)),
      against: 'with 10 rules',
    },
    {
      name: 'the same, first pass after a change of policy',
      value: rate(many!.seconds[0]!),
      unit: 'flows/s',
      baseline: rate(few!.seconds[0]!),
      against: 'with 10 rules',
    },
  ];
}

export async function benchPolicy(traffic: Traffic): Promise<Figure[]> {
  const identities = makeIdentities(identityCount);
  const figures: Figure[] = [];
  for (const ruleCount of ruleCounts) figures.push(...(await benchVerdicts(identities, ruleCount)));
  figures.push(...(await benchCompile(identities, 10_000)));
  figures.push(...(await benchEnricher(traffic)));
  return figures;
}
