/** Wires the agent. */
import { randomUUID } from 'node:crypto';
import { hostname, networkInterfaces } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { BusConfig } from '../../lib/bus/config.ts';
import { RuntimeConfig } from '../../lib/runtime/config.ts';
import { OperatorError } from '../../lib/runtime/exit.ts';
import { defineService } from '../../lib/runtime/service.ts';
import { Agent } from './agent.ts';
import { Clock, type ClockMeasure, followClock, unknownClock } from './clock.ts';
import { AgentConfig } from './config.ts';
import { deliver, type Sender, type SendOutcome } from './deliver.ts';
import { createHttpSender } from './deliver-http.ts';
import { excluder } from './exclude.ts';
import { type AgentMetrics, makeMetrics } from './metrics.ts';
import { OwnAddresses, parseCidrs } from './own-addresses.ts';
import { openSource } from './sources/open.ts';
import type { FlowSource } from './sources/source.ts';
import { lockSpool } from './spool/lock.ts';
import { Spool, type SpoolEvent } from './spool/spool.ts';

/** Wait between looks at a conntrack that was asked for and isn't to be had, ms. */
const sourceRetryMs = 10_000;

/** At the end, how long the last batches may take to be delivered; what is left waits in the spool, ms. */
const lastDeliveryMs = 1500;

interface Config {
  readonly agent: AgentConfig;
  readonly bus: BusConfig;
  readonly runtime: { readonly dataDir: string };
}

function interfaceAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap(
    (addresses) => addresses?.map(({ address }) => address) ?? [],
  );
}

async function quietSleep(ms: number, signal: AbortSignal): Promise<void> {
  // Rejects only when aborted, which the caller looks at itself.
  await sleep(ms, undefined, { signal }).catch(() => undefined);
}

/** Where batches go, and what can be known there of this host's clock. */
interface Outlet {
  readonly sender: Sender;
  readonly measureClock: (sinceMs: number) => ClockMeasure;
  /** Keeps the measure fresh until the signal is aborted. */
  readonly follow: (signal: AbortSignal) => Promise<void>;
}

function openHttp(agent: AgentConfig, metrics: AgentMetrics, log: Logger): Outlet {
  const clock = new Clock({
    wallMs: Date.now,
    monotonicMs: () => performance.now(),
    onJump: (byMs) => {
      metrics.clockJumps.inc();
      log.warn({ byMs: Math.round(byMs) }, "this host's clock jumped; it is measured anew");
    },
  });
  const sender = createHttpSender({
    ingestUrl: agent.ingestUrl,
    token: agent.token,
    compression: agent.compression,
    timeoutMs: agent.deliveryTimeoutMs,
    onTime: (reading) => clock.add(reading),
  });
  const { askTime: ask } = sender;
  return {
    sender,
    measureClock: (sinceMs) => clock.measure(sinceMs),
    follow: (signal) =>
      followClock({ clock, ask, intervalMs: agent.clockProbeMs, sleep: quietSleep }, signal),
  };
}

async function openOutlet(
  config: Config,
  agentId: string,
  metrics: AgentMetrics,
  log: Logger,
): Promise<Outlet> {
  if (config.agent.delivery === 'http') return openHttp(config.agent, metrics, log);
  // Loaded only where it is used: an agent is small.
  const [{ openBus }, { topicSpecs }, { createBusSender }] = await Promise.all([
    import('../../lib/bus/open.ts'),
    import('../../lib/bus/topics.ts'),
    import('./deliver-bus.ts'),
  ]);
  const bus = await openBus(config.bus, {
    dataDir: config.runtime.dataDir,
    log,
    clientId: `eastwest-agent-${agentId}`,
  });
  const sender = createBusSender(bus, topicSpecs(config.bus), agentId);
  // A broker tells no time.
  return { sender, measureClock: () => unknownClock, follow: async () => {} };
}

function showSpool(metrics: AgentMetrics, spool: Spool): void {
  metrics.spoolBatches.set(spool.batchCount);
  metrics.spoolBytes.set({ place: 'disk' }, spool.diskBytes);
  metrics.spoolBytes.set({ place: 'memory' }, spool.unsavedBytes);
}

function openSpool(
  agent: AgentConfig,
  folder: string,
  bootId: string,
  metrics: AgentMetrics,
  log: Logger,
): Spool {
  const onEvent = (event: SpoolEvent): void => {
    switch (event.kind) {
      case 'unwritable':
        log.error(
          { folder, err: event.error },
          'the spool cannot be written: batches wait in memory until it can',
        );
        break;
      case 'writable':
        log.info({ folder }, 'the spool is written again');
        break;
      case 'cut':
        log.warn({ file: event.file, bytes: event.bytes }, 'an unfinished batch was cut off the spool');
        break;
      case 'dropped':
        metrics.dropped.inc({ cause: event.cause }, event.flowCount);
        log.error(
          { cause: event.cause, batches: event.batchCount, flows: event.flowCount },
          'flows were dropped',
        );
        break;
    }
  };
  const { maxSpoolBytes, maxUnsavedBytes } = agent;
  return new Spool({ folder, bootId, maxSpoolBytes, maxUnsavedBytes, onEvent });
}

/** Refuses a folder that another agent uses; one that can't be written at all is the spool's to report. */
function lock(folder: string, log: Logger): () => void {
  let taken: ReturnType<typeof lockSpool>;
  try {
    taken = lockSpool(folder);
  } catch (error) {
    log.warn({ folder, err: error }, 'the spool folder could not be locked');
    return () => undefined;
  }
  if ('heldBy' in taken) {
    throw new OperatorError(
      `another agent (process ${taken.heldBy}) uses the spool ${folder}: stop it, or give this one another agent.spoolDir`,
    );
  }
  return taken.release;
}

export const service = defineService({
  name: 'agent',
  description: 'Reports the connections of this host.',
  sections: { runtime: RuntimeConfig, agent: AgentConfig, bus: BusConfig },
  async run({ config, log, metrics: registry, readiness, signal }) {
    const { agent: settings } = config;
    const agentId = settings.id === '' ? hostname() : settings.id;
    const metrics = makeMetrics(registry);
    const folder = resolve(
      settings.spoolDir === '' ? join(config.runtime.dataDir, 'agent-spool') : settings.spoolDir,
    );
    const ownAddresses = new OwnAddresses(parseCidrs('agent.localCidrs', settings.localCidrs));
    const isExcluded = excluder(settings);
    const bootId = randomUUID();
    const unlock = lock(folder, log);
    const spool = openSpool(settings, folder, bootId, metrics, log);
    readiness.set('source', 'not opened yet');

    const onOutcome = (outcome: SendOutcome): void => {
      showSpool(metrics, spool);
      metrics.deliveries.inc({ outcome: outcome.kind === 'retry' ? outcome.cause : outcome.kind });
    };
    const { sender, measureClock, follow } = await openOutlet(config, agentId, metrics, log);
    const delivering = new AbortController();
    const following = follow(delivering.signal);
    const delivery = deliver(
      {
        queue: spool,
        sender,
        backoffMinMs: settings.backoffMinMs,
        backoffMaxMs: settings.backoffMaxMs,
        log,
        random: Math.random,
        sleep: quietSleep,
        onOutcome,
      },
      delivering.signal,
    );

    try {
      ownAddresses.update(interfaceAddresses());
      let source: FlowSource | null = null;
      while (source === null && !signal.aborted) {
        const isInterface = (address: string): boolean => ownAddresses.isInterface(address);
        const opened = await openSource({ config: settings, log, metrics, isInterface });
        if ('start' in opened) {
          source = opened;
        } else {
          readiness.set('source', opened.message);
          log.error(
            { reason: opened.reason, toGrant: opened.message },
            'conntrack was asked for and is not to be had',
          );
          await quietSleep(sourceRetryMs, signal);
        }
      }
      if (source === null) return;
      const agent = new Agent({
        ...settings,
        identity: {
          agentId,
          cluster: settings.cluster,
          node: settings.node === '' ? hostname() : settings.node,
          network: settings.network,
          sourceKind: source.kind,
        },
        bootId,
        isExcluded,
        source,
        spool,
        ownAddresses,
        readAddresses: interfaceAddresses,
        onReported: () => showSpool(metrics, spool),
        metrics,
        log,
        nowMs: Date.now,
        monotonicMs: () => performance.now(),
        measureClock: (sinceMs) => {
          const measure = measureClock(sinceMs);
          metrics.clockOffset.set(measure.offsetMs / 1000);
          metrics.clockError.set(measure.errorMs < 0 ? -1 : measure.errorMs / 1000);
          return measure;
        },
      });
      await agent.start();
      metrics.sourceKind.set({ kind: source.kind }, 1);
      readiness.set('source', true);
      log.info({ agent: agentId, boot: bootId, source: source.kind, spool: folder }, 'watching connections');
      await new Promise<void>((resolve) => {
        if (signal.aborted) resolve();
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
      await agent.stop();
      const untilMs = Date.now() + lastDeliveryMs;
      while (spool.batchCount > 0 && Date.now() < untilMs) await sleep(20);
    } finally {
      delivering.abort();
      await Promise.all([delivery, following]);
      await sender.close();
      unlock();
    }
  },
});
