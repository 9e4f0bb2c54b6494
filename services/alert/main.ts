/** Wires the alert service: store, state, a watcher, and a delivery for each receiver. */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { RuntimeConfig } from '../../lib/runtime/config.ts';
import { OperatorError } from '../../lib/runtime/exit.ts';
import { defineService, type Readiness } from '../../lib/runtime/service.ts';
import { StoreConfig } from '../../lib/store/config.ts';
import { openStore } from '../../lib/store/open.ts';
import type { Store } from '../../lib/store/store.ts';
import { AlertConfig } from './config.ts';
import { Delivery, receiverFingerprint, receiverName } from './delivery.ts';
import { makeAlertMetrics } from './metrics.ts';
import { readPending, readPendingReceivers, writeRecords } from './records.ts';
import { type AlertState, readState, writeState } from './state.ts';
import { firstState, Watcher } from './watcher.ts';

const retryMs = 1000;
const pageOfOrphans = 1000;

/** Does something with the store, again and again until it works or the process shall end (then `null`). */
async function untilDone<T>(
  act: () => Promise<T>,
  readiness: Readiness,
  log: Logger,
  signal: AbortSignal,
): Promise<T | null> {
  let said = '';
  while (!signal.aborted) {
    try {
      return await act();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      readiness.set('store', why);
      if (why !== said) log.warn({ why }, 'the store is not ready; trying again');
      said = why;
      await delay(retryMs, undefined, { signal }).catch(() => undefined);
    }
  }
  return null;
}

/** Gives up events for receivers that are no longer configured. */
async function failOrphans(store: Store, names: ReadonlySet<string>, log: Logger): Promise<void> {
  for (const receiver of await readPendingReceivers(store)) {
    if (names.has(receiver)) continue;
    for (;;) {
      const records = await readPending(store, receiver, pageOfOrphans);
      if (records.length === 0) break;
      const lastError = 'the receiver is no longer configured';
      const updatedMs = Date.now();
      await writeRecords(
        store,
        records.map((record) => ({
          ...record,
          state: 'failed',
          lastError,
          updatedMs: Math.max(updatedMs, record.updatedMs + 1),
        })),
      );
      log.warn(
        { receiver, events: records.length },
        'events were given up: their receiver is no longer configured',
      );
    }
  }
}

function checkNames(config: AlertConfig): ReadonlySet<string> {
  const names = new Set<string>();
  for (const receiver of config.receivers) {
    const name = receiverName(receiver);
    if (names.has(name))
      throw new OperatorError(`two receivers are called ${name}; give each its own alert.receivers[].name`);
    names.add(name);
  }
  return names;
}

export const service = defineService({
  name: 'alert',
  description: 'Sends a signed webhook for each new connection that nobody can explain.',
  sections: { alert: AlertConfig, store: StoreConfig, runtime: RuntimeConfig },
  async run({ config, log, metrics: registry, readiness, signal }) {
    const { alert } = config;
    readiness.set('store', 'not asked yet');
    const names = checkNames(alert);
    const store = openStore(config.store, { log });
    const metrics = makeAlertMetrics(registry);
    const path = join(config.runtime.dataDir, 'alert-state.json');
    const kept = await readState(path);
    const state: AlertState | null = await untilDone(
      async () => {
        await failOrphans(store, names, log);
        return kept ?? (await firstState(store, alert.backfill));
      },
      readiness,
      log,
      signal,
    );
    if (state === null) {
      await store.close();
      return;
    }
    let writing: Promise<void> = Promise.resolve();
    const remember = (): Promise<void> => {
      writing = writing.catch(() => undefined).then(() => writeState(path, state));
      return writing;
    };
    await remember();
    const deliveries = alert.receivers.map((receiver) => {
      const name = receiverName(receiver);
      const fingerprint = receiverFingerprint(receiver);
      return new Delivery({
        receiver,
        config: alert,
        store,
        metrics,
        log,
        isGone: state.gone[name] === fingerprint,
        onGone: () => {
          state.gone[name] = fingerprint;
          return remember();
        },
      });
    });
    const watcher = new Watcher({
      config: alert,
      store,
      deliveries,
      state,
      remember,
      metrics,
      log,
      readiness,
    });
    log.info(
      { receivers: [...names], scope: alert.scope, since: new Date(state.cursorMs).toISOString() },
      'watching',
    );
    await Promise.all([watcher.run(signal), ...deliveries.map((delivery) => delivery.run(signal))]);
    await store.close();
  },
});
