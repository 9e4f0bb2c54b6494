/** Committed positions of groups; a commit is taken only from the present holder of the partition. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { type Committed, FencedError } from '../bus.ts';
import type { Holding } from './membership.ts';

export class Offsets {
  readonly #read: StatementSync;
  readonly #store: StatementSync;
  readonly #holder: StatementSync;

  constructor(database: DatabaseSync) {
    this.#read = database.prepare(
      'SELECT next, metadata FROM offsets WHERE group_name = ? AND partition_id = ?',
    );
    this.#store = database.prepare(
      `INSERT INTO offsets (group_name, partition_id, next, metadata) VALUES (?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET next = excluded.next, metadata = excluded.metadata`,
    );
    this.#holder = database.prepare(
      'SELECT member, since FROM assignments WHERE group_name = ? AND partition_id = ?',
    );
  }

  committed(group: string, partitionId: number): Committed | null {
    const row = this.#read.get(group, partitionId);
    return row === undefined ? null : { offset: Number(row.next), metadata: String(row.metadata) };
  }

  /** In a write transaction. @throws {FencedError} when `member` no longer holds the partition since `holding.since`. */
  commit(group: string, member: string, holding: Holding, committed: Committed): void {
    const holder = this.#holder.get(group, holding.partitionId);
    if (holder?.member !== member || Number(holder.since) !== holding.since) {
      throw new FencedError(
        `${holding.at.topic}/${holding.at.partition} belongs to another member of ${group} now`,
      );
    }
    this.#store.run(group, holding.partitionId, committed.offset, committed.metadata);
  }
}
