/**
 * Who is in a consumer group, and who holds which partition: rows in the file, changed by whichever member notices.
 * A change of holders raises the group's generation; a holding is named by the generation that began it (`since`).
 */
import { randomUUID } from 'node:crypto';
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { assignPartitions, type GroupMember, partitionKey } from '../assignment.ts';
import type { TopicPartition } from '../bus.ts';
import type { Catalog } from './catalog.ts';
import { isGone, processName } from './liveness.ts';

export interface Holding {
  readonly at: TopicPartition;
  readonly partitionId: number;
  /** The generation in which this member got the partition. */
  readonly since: number;
}

interface MemberRow extends GroupMember {
  readonly process: string;
  readonly sessionTimeoutMs: number;
  readonly beat: number;
}

export class Membership {
  readonly id: string;
  readonly #group: string;
  readonly #topics: readonly string[];
  readonly #catalog: Catalog;
  readonly #sessionTimeoutMs: number;
  readonly #statements: ReturnType<typeof prepareStatements>;
  readonly #process = processName();
  /** When each other member was last seen to beat, by this process's own steady clock. */
  readonly #beats = new Map<string, { beat: number; seenMs: number }>();
  #lastLookMs = 0;

  constructor(
    database: DatabaseSync,
    catalog: Catalog,
    options: { group: string; topics: readonly string[]; sessionTimeoutMs: number },
  ) {
    this.id = `${process.pid}-${randomUUID()}`;
    this.#group = options.group;
    this.#topics = options.topics;
    this.#catalog = catalog;
    this.#sessionTimeoutMs = options.sessionTimeoutMs;
    this.#statements = prepareStatements(database);
  }

  /** Says that this member lives, removes those that do not, and shares the partitions out. In a write transaction. */
  beat(): void {
    const { beat, join } = this.#statements;
    if (Number(beat.run(this.#group, this.id).changes) === 0) {
      join.run(this.#group, this.id, JSON.stringify(this.#topics), this.#process, this.#sessionTimeoutMs);
    }
    const nowMs = performance.now();
    this.#share(this.#removeDead(this.#members(), nowMs));
    this.#lastLookMs = nowMs;
  }

  /** Leaves the group and hands its partitions to the others. In a write transaction. */
  leave(): void {
    this.#statements.leave.run(this.#group, this.id);
    this.#share(this.#members());
  }

  /** The group's generation (0: there is no such group yet). */
  generation(): number {
    return Number(this.#statements.generation.get(this.#group)?.generation ?? 0);
  }

  isMember(): boolean {
    return this.#statements.isMember.get(this.#group, this.id) !== undefined;
  }

  holdings(): Holding[] {
    return this.#statements.holdings.all(this.#group, this.id).map((row) => ({
      at: { topic: String(row.name), partition: Number(row.partition) },
      partitionId: Number(row.partition_id),
      since: Number(row.since),
    }));
  }

  #members(): MemberRow[] {
    return this.#statements.members.all(this.#group).map((row) => {
      const topics: unknown = JSON.parse(String(row.topics));
      return {
        id: String(row.id),
        topics: Array.isArray(topics) ? topics.map(String) : [],
        process: String(row.process),
        sessionTimeoutMs: Number(row.session_timeout_ms),
        beat: Number(row.beat),
      };
    });
  }

  #removeDead(members: readonly MemberRow[], nowMs: number): MemberRow[] {
    // After a pause of this process itself (stopped, suspended) what it saw before says nothing about the others.
    if (nowMs - this.#lastLookMs > this.#sessionTimeoutMs / 2) this.#beats.clear();
    return members.filter((member) => {
      if (member.id === this.id) return true;
      const seen = this.#beats.get(member.id);
      if (seen === undefined || seen.beat !== member.beat)
        this.#beats.set(member.id, { beat: member.beat, seenMs: nowMs });
      const silentMs = nowMs - (this.#beats.get(member.id)?.seenMs ?? nowMs);
      if (silentMs < member.sessionTimeoutMs && !isGone(member.process)) return true;
      this.#beats.delete(member.id);
      this.#statements.leave.run(this.#group, member.id);
      return false;
    });
  }

  #share(members: readonly MemberRow[]): void {
    const partitions: (TopicPartition & { partitionId: number })[] = [];
    for (const topic of new Set(members.flatMap((member) => member.topics))) {
      const partitionIds = this.#catalog.find(topic, true)?.partitionIds ?? [];
      partitionIds.forEach((partitionId, partition) => {
        partitions.push({ topic, partition, partitionId });
      });
    }
    const holders = new Map<number, string>();
    for (const row of this.#statements.holders.all(this.#group)) {
      holders.set(Number(row.partition_id), String(row.member));
    }
    const current = new Map<string, string>();
    for (const at of partitions) {
      const holder = holders.get(at.partitionId);
      if (holder !== undefined) current.set(partitionKey(at), holder);
    }
    const owners = assignPartitions(members, partitions, current);
    const wanted = new Map<number, string>();
    for (const at of partitions) {
      const owner = owners.get(partitionKey(at));
      if (owner !== undefined) wanted.set(at.partitionId, owner);
    }
    this.#store(holders, wanted);
  }

  #store(holders: ReadonlyMap<number, string>, wanted: ReadonlyMap<number, string>): void {
    const { raise, hold, release } = this.#statements;
    const released = [...holders.keys()].filter((partitionId) => !wanted.has(partitionId));
    const given = [...wanted].filter(([partitionId, owner]) => holders.get(partitionId) !== owner);
    if (released.length === 0 && given.length === 0) return;
    raise.run(this.#group);
    const generation = this.generation();
    for (const partitionId of released) release.run(this.#group, partitionId);
    for (const [partitionId, owner] of given) hold.run(this.#group, partitionId, owner, generation);
  }
}

function prepareStatements(
  database: DatabaseSync,
): Record<
  | 'beat'
  | 'join'
  | 'leave'
  | 'members'
  | 'isMember'
  | 'generation'
  | 'raise'
  | 'holders'
  | 'holdings'
  | 'hold'
  | 'release',
  StatementSync
> {
  return {
    beat: database.prepare('UPDATE members SET beat = beat + 1 WHERE group_name = ? AND id = ?'),
    join: database.prepare(
      'INSERT INTO members (group_name, id, topics, process, session_timeout_ms, beat) VALUES (?, ?, ?, ?, ?, 0)',
    ),
    leave: database.prepare('DELETE FROM members WHERE group_name = ? AND id = ?'),
    members: database.prepare('SELECT * FROM members WHERE group_name = ?'),
    isMember: database.prepare('SELECT 1 AS yes FROM members WHERE group_name = ? AND id = ?'),
    generation: database.prepare('SELECT generation FROM groups WHERE name = ?'),
    raise: database.prepare(
      'INSERT INTO groups (name, generation) VALUES (?, 1) ON CONFLICT DO UPDATE SET generation = generation + 1',
    ),
    holders: database.prepare('SELECT partition_id, member FROM assignments WHERE group_name = ?'),
    holdings: database.prepare(
      `SELECT name, partition, partition_id, since FROM assignments
       JOIN partitions ON partitions.id = partition_id JOIN topics ON topics.id = topic_id
       WHERE group_name = ? AND member = ? ORDER BY partition_id`,
    ),
    hold: database.prepare(
      `INSERT INTO assignments (group_name, partition_id, member, since) VALUES (?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET member = excluded.member, since = excluded.since`,
    ),
    release: database.prepare('DELETE FROM assignments WHERE group_name = ? AND partition_id = ?'),
  };
}
