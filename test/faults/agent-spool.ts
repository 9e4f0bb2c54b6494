/** What a real agent is given to send: batches that an earlier run of it left in its spool. */
import { readdirSync } from 'node:fs';
import { Spool } from '../../services/agent/spool/spool.ts';
import type { Traffic } from './traffic.ts';

const mebi = 1024 * 1024;
/** Small, so that delivered batches leave the disk a few at a time, as an agent that dies sends the others of theirs again. */
const maxSpoolBytes = 2 * mebi;

export function fillSpool(folder: string, traffic: Traffic, agentId: string, batchCount: number): void {
  const spool = new Spool({
    folder,
    bootId: 'earlier',
    maxSpoolBytes,
    maxUnsavedBytes: 0,
    onEvent: (event) => {
      throw new Error(`the spool could not be filled: ${JSON.stringify(event)}`);
    },
  });
  for (let i = 0; i < batchCount; i++) {
    const { flowCount, message } = traffic.batch(Date.now(), { agentId, bootId: 'earlier' });
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
