/** A policy of any size and the identities it speaks of: the shape of a bank's, without a bank. */
import type { Selectable } from '../lib/policy/match.ts';
import type { ReferenceFlow } from '../lib/policy/reference.ts';
import type { Actor, IpList, PolicyDocument, Rule, Ruleset } from '../schemas/policy.ts';

const roles = [
  'web',
  'api',
  'db',
  'cache',
  'worker',
  'batch',
  'gateway',
  'queue',
  'search',
  'admin',
] as const;
const envs = ['prod', 'uat', 'dev', 'dr'] as const;
const sites = ['lon', 'fra', 'nyc', 'sgp'] as const;
const appCount = 250;
const listCount = 200;

/** The same numbers each time. */
export function numbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

const appName = (i: number): string => `app-${i % appCount}`;
const listName = (i: number): string => `partner-${i % listCount}`;
const addressOf = (i: number): string => `203.${(i >> 8) & 255}.${i & 255}.${(i * 7) & 255}`;

/** Identities of 250 apps: 10,000 are every role of each in every environment. Index 0 is the unknown one. */
export function makeIdentities(count: number): Selectable[] {
  const own = Array.from({ length: count - 1 }, (_, i): Selectable => {
    const app = appName(i);
    const role = roles[Math.floor(i / appCount) % roles.length] ?? 'web';
    const env = envs[Math.floor(i / appCount / roles.length) % envs.length] ?? 'prod';
    const labels = { app, role, env, loc: sites[i % sites.length] ?? 'lon', team: `team-${i % 40}` };
    return { kind: 'pod', cluster: 'east', namespace: `${app}-${env}`, name: '', labels };
  });
  return [{ kind: 'unknown', cluster: '', namespace: '', name: '', labels: {} }, ...own];
}

/** The i-th rule of an app, of ten kinds that take turns; every one is a rule that people write. */
function ruleOf(app: number, i: number, below: (below: number) => number): Rule {
  const name = `rule-${i}`;
  const role = (at: number): string => roles[(at + i) % roles.length] ?? 'web';
  const own = (labels: Record<string, string | string[]>): Actor[] => [
    { labels: { app: appName(app), ...labels } },
  ];
  const port = 1024 + below(20_000);
  switch (i % 10) {
    case 0:
      return { name, from: own({ role: role(0) }), to: own({ role: role(1) }), services: ['http'] };
    case 1:
      return {
        name,
        from: own({ role: [role(1), role(3)] }),
        to: own({ role: role(2) }),
        services: [{ port }],
      };
    case 2:
      return {
        name,
        from: [{ labels: { app: appName(below(appCount)), role: role(1) } }],
        to: own({ role: 'api' }),
        services: [{ port: `${port}-${port + 10}` }],
        scope: 'extra',
      };
    case 3:
      return {
        name,
        from: own({ env: 'prod' }),
        to: [{ ipList: listName(below(listCount)) }],
        services: ['https'],
      };
    case 4:
      return {
        name,
        from: [{ labels: { app: appName(app), env: { group: 'nonprod' } } }],
        to: [{ labels: { app: appName(below(appCount)), env: { not: 'prod' } } }],
        services: ['http', { port }],
      };
    case 5:
      return { name, from: own({}), to: [{ dns: `api-${below(500)}.example.com` }], services: ['https'] };
    case 6:
      return {
        name,
        from: [{ labels: { role: 'worker' } }],
        to: [{ labels: { role: 'queue' } }],
        services: [{ port }],
        scope: 'intra',
      };
    case 7:
      return { name, from: [{ any: true }], to: own({ role: 'gateway' }), services: [{ port }] };
    case 8:
      return {
        name,
        from: own({ role: role(4) }),
        to: [{ cidr: addressOf(below(4096)) }],
        services: [{ port }],
      };
    default:
      return {
        name,
        from: [{ labels: { app: { not: appName(app) } } }],
        to: own({ role: 'db' }),
        services: [{ port }],
        action: 'deny',
      };
  }
}

/** A policy with so many rules, in rulesets of up to 40 with an app as their scope. */
export function makePolicy(ruleCount: number, version = 1): PolicyDocument {
  const below = numbers(ruleCount);
  const rulesets: Ruleset[] = [];
  for (let made = 0; made < ruleCount; ) {
    const app = rulesets.length;
    const size = Math.min(40, ruleCount - made);
    rulesets.push({
      name: `${appName(app)}-${Math.floor(app / appCount)}`,
      scope: [
        { app: appName(app), env: ['prod', 'dr'] },
        { app: appName(app), env: { group: 'nonprod' } },
      ],
      rules: Array.from({ length: size }, (_, i) => ruleOf(app, i, below)),
    });
    made += size;
  }
  const ipLists = Array.from({ length: listCount }, (_, i): IpList => {
    const blocks = Array.from({ length: 20 }, (_, n) => `198.${i & 127}.${n * 8}.0/21`);
    return {
      name: listName(i),
      cidrs: [...blocks, `!198.${i & 127}.8.${i & 255}`],
      names: [`*.partner-${i}.example`],
    };
  });
  return {
    v: 1,
    version,
    author: 'bench',
    appliedMs: 0,
    labels: [],
    labelGroups: [{ name: 'nonprod', key: 'env', values: ['uat', 'dev'] }],
    profiles: [],
    ipLists,
    services: [
      { name: 'http', ports: [{ port: 80 }, { port: 8080 }] },
      { name: 'https', ports: [{ port: 443 }] },
    ],
    rulesets,
  };
}

/** Flows between these identities: half of them within an app, some to addresses of partners. Ends are indexes. */
export function makeFlows(
  identities: readonly Selectable[],
  count: number,
): (ReferenceFlow & { readonly sourceIndex: number; readonly destinationIndex: number })[] {
  const below = numbers(count);
  const known = identities.length - 1;
  const ports = [80, 80, 443, 443, 8080, 5432];
  return Array.from({ length: count }, () => {
    const sourceIndex = 1 + below(known);
    const within = 1 + ((sourceIndex - 1 + appCount * below(roles.length * envs.length)) % known);
    const choice = below(10);
    const destinationIndex = choice < 5 ? within : choice < 9 ? 1 + below(known) : 0;
    const end = (index: number, address: string): ReferenceFlow['source'] => ({
      ...(identities[index] ?? { kind: 'unknown', cluster: '', namespace: '', name: '', labels: {} }),
      address,
    });
    return {
      sourceIndex,
      destinationIndex,
      source: end(sourceIndex, `10.${below(256)}.${below(256)}.${below(256)}`),
      destination: end(
        destinationIndex,
        `${destinationIndex === 0 ? 198 : 10}.${below(128)}.${below(200)}.${below(256)}`,
      ),
      port: below(4) > 0 ? (ports[below(ports.length)] ?? 80) : 1024 + below(20_000),
      protocol: 6,
      process: '',
    };
  });
}
