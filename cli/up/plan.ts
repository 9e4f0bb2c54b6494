/** Decides what `eastwest up` runs, from the configuration alone. */
import { resolve } from 'node:path';
import type { ListenPurpose } from '../../lib/runtime/http.ts';
import type { ConfigOf } from '../../lib/runtime/service.ts';
import type { ProcessSpec } from '../../lib/runtime/supervisor.ts';
import type { sections } from '../sections.ts';
import { folderPaths } from './folder.ts';

export type AllConfig = ConfigOf<typeof sections>;

export interface UpPlan {
  readonly processes: readonly ProcessSpec[];
  /** Ports that must be free. */
  readonly ports: readonly ListenPurpose[];
  readonly demo: boolean;
}

export interface PlanInput {
  readonly config: AllConfig;
  /** The script that runs the command, and the global options to hand on. */
  readonly script: string;
  readonly globalArgv: readonly string[];
  /** False with `--no-demo`. */
  readonly demoWanted: boolean;
  /** Token of this machine's agents, when `up` keeps the tokens. */
  readonly token: string | undefined;
}

/** Whether `up` keeps the agents' tokens; it doesn't where the operator names a file of them. */
export function keepsTokens(config: AllConfig): boolean {
  return config.ingest.tokensFile === '';
}

/** Ports that must be free before `up` starts. */
export function requiredPorts(config: AllConfig): ListenPurpose[] {
  const { query, ingest, store } = config;
  const ports = [
    { host: query.host, port: query.port, who: 'query (the page and the API)', option: 'query.port' },
    { host: ingest.host, port: ingest.port, who: 'ingest (flows from agents)', option: 'ingest.port' },
  ];
  if (config.store.url === '') {
    const { httpPort, tcpPort } = store.embedded;
    ports.push(
      {
        host: '127.0.0.1',
        port: httpPort,
        who: 'store (ClickHouse HTTP)',
        option: 'store.embedded.httpPort',
      },
      {
        host: '127.0.0.1',
        port: tcpPort,
        who: 'store (ClickHouse native)',
        option: 'store.embedded.tcpPort',
      },
    );
  }
  return ports;
}

/** A host that can be connected to, for one that is listened on. */
export function reachableHost(host: string): string {
  return host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
}

/** Base URL of a service on this machine. */
export function localUrl(at: { readonly host: string; readonly port: number }): string {
  const host = reachableHost(at.host);
  return `http://${host.includes(':') ? `[${host}]` : host}:${at.port}`;
}

type InventorySource = AllConfig['kubelink']['sources'][number];

/** The inventory sources under `up`: those of the operator, this host itself, and what is put over HTTP. */
function kubelinkSources(config: AllConfig): Partial<InventorySource>[] {
  const { sources } = config.kubelink;
  const added: Partial<InventorySource>[] = [
    { kind: 'local-host', network: config.agent.network },
    { kind: 'api' },
  ];
  return [...sources, ...added.filter(({ kind }) => sources.every((source) => source.kind !== kind))];
}

/** Longest reporting interval of this host's own agent, ms: whoever looks at the page wants to see what they just did. */
const shownSoonMs = 2000;

export function planUp(input: PlanInput): UpPlan {
  const { config, token } = input;
  const embeddedStore = config.store.url === '';
  const demo = input.demoWanted && config.kubelink.sources.length === 0;
  const ingestUrl = localUrl(config.ingest);
  const spec = (
    name: string,
    dependsOn: readonly string[],
    own: { set?: Readonly<Record<string, string>>; environment?: Readonly<Record<string, string>> } = {},
  ): ProcessSpec => ({
    name,
    argv: [
      input.script,
      name,
      ...input.globalArgv,
      // A free port each: they are found in up.json and by `eastwest doctor`.
      ...Object.entries({ 'runtime.http.port': '0', ...own.set }).flatMap(([key, value]) => [
        '--set',
        `${key}=${value}`,
      ]),
    ],
    environment: own.environment ?? {},
    kind: name === 'migrate' ? 'job' : 'service',
    dependsOn,
  });
  const tokenFor = (variable: string): { environment?: Readonly<Record<string, string>> } =>
    token === undefined ? {} : { environment: { [variable]: token } };
  const tokensFile: Readonly<Record<string, string>> = keepsTokens(config)
    ? { 'ingest.tokensFile': resolve(folderPaths(config.runtime.dataDir).tokens) }
    : {};
  // The store as well as its tables: it is to be stopped after those that use it.
  const storeUsersNeed = embeddedStore ? ['store', 'migrate'] : ['migrate'];
  const processes = [
    ...(embeddedStore ? [spec('store', [])] : []),
    // It waits for the store by itself, and loads meanwhile.
    spec('migrate', []),
    spec('ingest', [], { set: tokensFile }),
    spec('kubelink', [], { set: { 'kubelink.sources': JSON.stringify(kubelinkSources(config)) } }),
    spec('enrich', storeUsersNeed),
    spec('query', storeUsersNeed),
    spec('alert', storeUsersNeed),
    spec('agent', ['ingest'], {
      set: {
        'agent.ingestUrl': ingestUrl,
        'agent.intervalMs': String(Math.min(config.agent.intervalMs, shownSoonMs)),
      },
      ...tokenFor('EASTWEST_AGENT_TOKEN'),
    }),
    ...(demo
      ? [
          spec('demo', ['ingest'], {
            set: { 'demo.ingestUrl': ingestUrl },
            ...tokenFor('EASTWEST_DEMO_INGEST_TOKEN'),
          }),
        ]
      : []),
  ];
  return { processes, ports: requiredPorts(config), demo };
}
