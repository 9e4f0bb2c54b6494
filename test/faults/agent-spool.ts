/** What a real agent is given to send: batches that an earlier run of it left in its spool. */
import { readdirSync } from 'node:fs';
import { Spool } from '../../services/agent/spool/spool.ts';
import type { BatchSender, Traffic } from './traffic.ts';

const mebi = 1024 * 1024;

export interface SpoolFilling extends Omit<BatchSender, 'bootId'> {
  readonly batchCount: number;
  /** Small, so that delivered batches leave the disk a few at a time, and an agent that dies sends not all of them again. */
  readonly spoolBytes?: number;
}

export function fillSpool(folder: string, traffic: Traffic, filling: SpoolFilling): void {
  const { agentId, maxFlows, batchCount, spoolBytes = 2 * mebi } = filling;
  const sender = { agentId, bootId: 'earlier', ...(maxFlows === undefined ? {} : { maxFlows }) };
  const spool = new Spool({
    folder,
    bootId: sender.bootId,
    maxSpoolBytes: spoolBytes,
    maxUnsavedBytes: 0,
    onEvent: (event) => {
      throw new Error(`the spool could not be filled: ${JSON.stringify(event)}`);
    },
  });
  for (let i = 0; i < batchCount; i++) {
    const { flowCount, message } = traffic.batch(Date.now(), sender);
    spool.append({
      flowCount,
      sourceDroppedCount: 0,
      spoolDropCount: 0,
      observedToMs: Date.now(),
      bytes: message,
    });
  }
}

/** Whether all that was left is delivered. */
export function isDelivered(folder: string): boolean {
  return !readdirSync(folder).some((name) => name.endsWith('.segment'));
}
