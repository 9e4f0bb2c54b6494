/** A source that knows one host: this machine, under its own name and all its addresses. */
import { hostname, networkInterfaces, uptime } from 'node:os';
import type { InventoryEvent } from '../../../lib/inventory/events.ts';
import type { LocalHostSource } from '../config.ts';
import { canonicalAddress, intervals } from '../manifests/common.ts';
import { Look } from './look.ts';
import type { Source, SourceSink } from './source.ts';

/** What can be read of a machine. */
export interface Machine {
  readonly hostname: string;
  readonly addresses: readonly string[];
  /** When it was booted, ms since the epoch. */
  readonly bootedMs: number;
}

/** Reads this machine. */
export function thisMachine(): Machine {
  const addresses = Object.values(networkInterfaces()).flatMap((list) =>
    (list ?? []).map(({ address }) => address),
  );
  return { hostname: hostname(), addresses, bootedMs: Math.round(Date.now() - uptime() * 1000) };
}

/** The host, with all its addresses in `network`. */
export function machineEvent(machine: Machine, network: string): InventoryEvent {
  const distinct = [...new Set([...machine.addresses, '127.0.0.1', '::1'])].sort();
  const addresses = distinct.map((ip) => ({ ip: canonicalAddress(ip, 'interface address'), network }));
  return {
    v: 1,
    type: 'workload',
    kind: 'host',
    cluster: '',
    uid: `local:${machine.hostname}`,
    name: machine.hostname,
    namespace: '',
    node: '',
    hostNetwork: false,
    labels: { source: 'local' },
    annotations: {},
    addresses: intervals(addresses, machine.bootedMs, 0),
    sinceMs: machine.bootedMs,
  };
}

export function localHostSource(
  name: string,
  source: LocalHostSource,
  read: () => Machine = thisMachine,
): Source {
  let look: Look | null = null;
  let completeToMs = 0;
  return {
    name,
    start(sink: SourceSink): void {
      const tell = async (): Promise<void> => {
        const beganMs = Date.now();
        try {
          sink.snapshot([machineEvent(read(), source.network)]);
          completeToMs = beganMs;
        } catch (error) {
          sink.failing(
            `the interfaces cannot be read: ${error instanceof Error ? error.message : String(error)}`,
          );
        }
      };
      look = new Look({ look: tell, debounceMs: 0, intervalMs: source.intervalMs });
      look.start();
    },
    completeToMs: () => completeToMs,
    async stop(): Promise<void> {
      await look?.stop();
    },
  };
}
