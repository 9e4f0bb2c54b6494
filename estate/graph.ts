/** Who calls whom by intention, and which of that the bank has written rules for. Both policy and traffic follow it. */
import { appName, tiersOf } from './catalogue.ts';
import { hash32 } from './random.ts';
import type { World } from './world.ts';

/** What an application uses outside itself. */
export interface AppTraits {
  readonly oracle: boolean;
  readonly mq: boolean;
  readonly mainframe: boolean;
  readonly saas: boolean;
  readonly storage: boolean;
  readonly hadoop: boolean;
  readonly partner: boolean;
  readonly proxy: boolean;
  /** Its web tier reads the database, and a rule says that it may. */
  readonly webReadsDatabase: boolean;
}

export function traitsOf(appIndex: number): AppTraits {
  const draw = hash32(`${appName(appIndex)}/traits`);
  const tiers = tiersOf(appIndex);
  const oneIn = (count: number, shift: number): boolean => (draw >>> shift) % count === 0;
  return {
    oracle: appIndex === 0 || oneIn(3, 0),
    mq: appIndex === 0 || oneIn(5, 3),
    mainframe: appIndex < 2 || oneIn(8, 6),
    saas: appIndex === 0 || oneIn(4, 9),
    storage: appIndex === 1 || oneIn(5, 12),
    hadoop: appIndex === 1 || oneIn(6, 15),
    partner: appIndex === 4 || oneIn(40, 18),
    proxy: appIndex === 0 || oneIn(6, 21),
    webReadsDatabase: tiers.includes('web') && tiers.includes('db') && appIndex % 12 === 5,
  };
}

export interface AppCall {
  readonly caller: number;
  readonly callee: number;
  /** `ruled`: a rule covers it. `port`: a rule covers the pair, and they also talk on a port it does not name. `gap`: none. */
  readonly cover: 'ruled' | 'port' | 'gap';
}

/** Calls between the APIs of applications, each pair once. */
export function appCalls(world: World): AppCall[] {
  const apps = [...new Set(world.deployments.map((deployment) => deployment.appIndex))]
    .filter((index) => index >= 0)
    .sort((a, b) => a - b);
  const calls: AppCall[] = [];
  apps.forEach((caller, position) => {
    const count = 1 + (hash32(`${world.seed}/${appName(caller)}/calls`) % 4);
    for (let i = 0; i < count; i++) {
      // Callees are near, so that they share a cluster, and low numbers are called by all.
      const draw = hash32(`${world.seed}/${appName(caller)}/callee/${i}`);
      const callee =
        apps[i === 0 ? (position + 1) % apps.length : (position + 2 + (draw % 40)) % apps.length];
      if (callee === undefined || callee === caller) continue;
      if (calls.some((call) => call.caller === caller && call.callee === callee)) continue;
      const chance = draw % 100;
      const first = caller === apps[0];
      const cover = first
        ? 'port'
        : chance < 18 || (apps.length === 2 && !first)
          ? 'gap'
          : chance < 28
            ? 'port'
            : 'ruled';
      calls.push({ caller, callee, cover });
    }
  });
  return calls;
}
