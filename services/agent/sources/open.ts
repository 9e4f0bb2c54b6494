/** Chooses the source: conntrack where it works, else procfs, and says once what conntrack would need. */
import type { Logger } from 'pino';
import type { AgentConfig } from '../config.ts';
import { type ConntrackAbility, checkConntrack } from '../conntrack/check.ts';
import { ConntrackSource } from '../conntrack/source.ts';
import type { AgentMetrics } from '../metrics.ts';
import { ProcfsSource } from '../procfs/source.ts';
import type { FlowSource, SourceUnavailable } from './source.ts';

export interface OpenSourceOptions {
  readonly config: AgentConfig;
  readonly log: Logger;
  readonly metrics: AgentMetrics;
  /** Whether an address belongs to an interface of this network namespace. */
  readonly isInterface: (address: string) => boolean;
}

function adviseOnCounters(ability: ConntrackAbility, log: Logger): void {
  const missing = [
    ...(ability.accounting ? [] : ['net.netfilter.nf_conntrack_acct=1 (byte and packet counts)']),
    ...(ability.timestamps ? [] : ['net.netfilter.nf_conntrack_timestamp=1 (when older connections began)']),
  ];
  if (missing.length > 0)
    log.warn({ missing }, 'set these with sysctl, and connections that begin later say more');
}

function openProcfs({ config, metrics, isInterface }: OpenSourceOptions): FlowSource {
  return new ProcfsSource({
    root: '/proc',
    pollMs: config.pollMs,
    processScanMs: config.processScanMs,
    isOwn: isInterface,
    onPoll: (tookMs) => metrics.pollSeconds.observe(tookMs / 1000),
  });
}

/** Where conntrack was asked for and can't be had, the reason is returned. */
export async function openSource(options: OpenSourceOptions): Promise<FlowSource | SourceUnavailable> {
  const { config, log, metrics } = options;
  if (config.source === 'procfs') return openProcfs(options);
  const ability = await checkConntrack(config.conntrackCommand);
  if ('accounting' in ability) {
    adviseOnCounters(ability, log);
    return new ConntrackSource({
      command: config.conntrackCommand,
      bufferBytes: config.conntrackBufferBytes,
      ability,
      log,
      onRestart: () => metrics.sourceRestarts.inc(),
      onUnreadable: () => metrics.unreadableLines.inc(),
    });
  }
  if (config.source === 'conntrack') return ability;
  log.warn(
    { reason: ability.reason, toGrant: ability.message },
    "conntrack is not to be had: this host's own sockets are read from /proc instead, without byte counts",
  );
  return openProcfs(options);
}
