/**
 * Membership in a Kafka consumer group: join, share out, beat, commit. A partition that stays with this member
 * through a rebalance is kept without a word, if no generation was missed; commits carry the generation.
 */
import kafkajs, { type Cluster, type Kafka } from 'kafkajs';
import { assignPartitions, partitionKey } from '../assignment.ts';
import { Backoff } from '../backoff.ts';
import { type Committed, FencedError, type TopicPartition } from '../bus.ts';
import type { Report } from '../reporter.ts';
import { type Coordinator, closeCluster, findCoordinator, type JoinedGroup, openCluster } from './client.ts';
import { errorType, isMembershipError } from './errors.ts';
import { partitionBounds } from './fetcher.ts';

const protocolName = 'eastwest-sticky';
const protocolVersion = 1;
/** How long the others wait for a member to join a new generation, in session timeouts. */
const rebalanceSessions = 2;

export interface GroupOptions {
  readonly kafka: Kafka;
  readonly group: string;
  readonly topics: readonly string[];
  readonly sessionTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
  readonly commitTimeoutMs: number;
  readonly report: Report;
  /** These are held from now on, and not before. */
  readonly onGained: (partitions: readonly TopicPartition[]) => void;
  readonly onLost: (partitions: readonly TopicPartition[]) => void;
}

interface Membership {
  readonly cluster: Cluster;
  readonly coordinator: Coordinator;
  readonly memberId: string;
  readonly generationId: number;
}

/** Ends a generation from this side: the topics have other partitions now, or a commit was refused. */
class RejoinError extends Error {}

export class GroupMember {
  readonly #options: GroupOptions;
  readonly #closed = new AbortController();
  readonly #done: Promise<void>;
  #held = new Map<string, TopicPartition>();
  #memberId = '';
  #generationId = -1;
  #joined = Promise.withResolvers<Membership>();
  #membership: Membership | undefined;
  #interrupt: ((reason: Error) => void) | undefined;

  constructor(options: GroupOptions) {
    this.#options = options;
    this.#done = this.#run();
  }

  /** What the group committed for the partition, and its first kept offset. Retries while the brokers are away. */
  async committed(
    at: TopicPartition,
    signal: AbortSignal,
  ): Promise<{ committed: Committed | null; earliest: number }> {
    const backoff = new Backoff();
    for (;;) {
      try {
        const { cluster, coordinator } = await this.#whenJoined(signal);
        const { responses } = await coordinator.offsetFetch({
          groupId: this.#options.group,
          topics: [{ topic: at.topic, partitions: [{ partition: at.partition, offset: '-1' }] }],
        });
        const { earliest } = await partitionBounds(cluster, at);
        return { committed: committedOf(responses[0]?.partitions[0]), earliest };
      } catch (error) {
        if (signal.aborted) throw error;
        this.#options.report(error);
        await backoff.wait(signal);
      }
    }
  }

  /** Commits while `lease` is not aborted. @throws {FencedError} when the partition is lost, before or meanwhile. */
  async commit(at: TopicPartition, committed: Committed, lease: AbortSignal): Promise<void> {
    const deadlineMs = performance.now() + this.#options.commitTimeoutMs;
    const backoff = new Backoff();
    for (;;) {
      const membership = await this.#whenJoined(lease).catch(() => undefined);
      if (membership === undefined || lease.aborted) throw this.#fenced(at);
      try {
        const entry = {
          partition: at.partition,
          offset: String(committed.offset),
          metadata: committed.metadata,
        };
        await membership.coordinator.offsetCommit({
          groupId: this.#options.group,
          groupGenerationId: membership.generationId,
          memberId: membership.memberId,
          topics: [{ topic: at.topic, partitions: [entry] }],
        });
        return;
      } catch (error) {
        if (isMembershipError(error)) this.#end(membership, error);
        else if (performance.now() > deadlineMs || isHopeless(error)) throw error;
        else this.#options.report(error);
      }
      await backoff.wait(lease);
    }
  }

  async close(): Promise<void> {
    this.#closed.abort();
    this.#interrupt?.(new RejoinError('closing'));
    await this.#done;
  }

  #fenced(at: TopicPartition): FencedError {
    return new FencedError(`${partitionKey(at)} belongs to another member of ${this.#options.group} now`);
  }

  /** Rejects when `signal` is aborted first. */
  async #whenJoined(signal: AbortSignal): Promise<Membership> {
    const { promise: gone, reject } = Promise.withResolvers<never>();
    const abort = (): void => reject(new Error('no longer wanted'));
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    try {
      return await Promise.race([this.#joined.promise, gone]);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  async #run(): Promise<void> {
    const { kafka, report, topics } = this.#options;
    const { signal } = this.#closed;
    const backoff = new Backoff();
    while (!signal.aborted) {
      let cluster: Cluster | undefined;
      try {
        cluster = await openCluster(kafka, topics);
        const coordinator = await findCoordinator(cluster, this.#options.group);
        while (!signal.aborted) await this.#liveOneGeneration(cluster, coordinator, backoff);
      } catch (error) {
        if (!signal.aborted) report(error);
      }
      if (cluster !== undefined) {
        if (signal.aborted) await this.#leave(cluster);
        await closeCluster(cluster);
      }
      if (!signal.aborted) await backoff.wait(signal);
    }
    this.#lose([...this.#held.values()]);
  }

  /** Returns when the group goes on to another generation; throws when the coordinator is not to be had. */
  async #liveOneGeneration(cluster: Cluster, coordinator: Coordinator, backoff: Backoff): Promise<void> {
    try {
      const membership = await this.#join(cluster, coordinator);
      backoff.reset();
      await this.#beat(membership);
    } catch (error) {
      if (!isMembershipError(error) && !(error instanceof RejoinError)) throw error;
      this.#noteLoss(error);
    } finally {
      this.#membership = undefined;
      this.#interrupt = undefined;
      // Whoever commits now waits for the next generation.
      this.#joined = Promise.withResolvers();
    }
  }

  async #join(cluster: Cluster, coordinator: Coordinator): Promise<Membership> {
    const { group, topics, sessionTimeoutMs } = this.#options;
    const owned = Buffer.from(JSON.stringify([...this.#held.keys()]), 'utf8');
    const metadata = { version: protocolVersion, topics: [...topics], userData: owned };
    const joined = await coordinator.joinGroup({
      groupId: group,
      sessionTimeout: sessionTimeoutMs,
      rebalanceTimeout: sessionTimeoutMs * rebalanceSessions,
      memberId: this.#memberId,
      groupProtocols: [
        { name: protocolName, metadata: kafkajs.AssignerProtocol.MemberMetadata.encode(metadata) },
      ],
    });
    const isNext = joined.memberId === this.#memberId && joined.generationId === this.#generationId + 1;
    this.#memberId = joined.memberId;
    const { memberAssignment } = await coordinator.syncGroup({
      groupId: group,
      generationId: joined.generationId,
      memberId: joined.memberId,
      groupAssignment: joined.leaderId === joined.memberId ? await shareOut(cluster, joined) : [],
    });
    this.#generationId = joined.generationId;
    const membership = { cluster, coordinator, memberId: joined.memberId, generationId: joined.generationId };
    this.#membership = membership;
    this.#follow(memberAssignment, isNext);
    this.#joined.resolve(membership);
    return membership;
  }

  #follow(memberAssignment: Buffer, isNext: boolean): void {
    const decoded = kafkajs.AssignerProtocol.MemberAssignment.decode(memberAssignment)?.assignment ?? {};
    const now = new Map<string, TopicPartition>();
    for (const [topic, partitions] of Object.entries(decoded)) {
      for (const partition of partitions) now.set(partitionKey({ topic, partition }), { topic, partition });
    }
    // In a generation that this member has missed, another may have held what it holds now.
    this.#lose([...this.#held].filter(([key]) => !isNext || !now.has(key)).map(([, at]) => at));
    const gained = [...now].filter(([key]) => !this.#held.has(key)).map(([, at]) => at);
    this.#held = now;
    this.#options.onGained(gained);
  }

  async #beat({ cluster, coordinator, memberId, generationId }: Membership): Promise<void> {
    const interrupted = new Promise<never>((_, reject) => {
      this.#interrupt = reject;
    });
    // Nobody may be racing when it comes.
    interrupted.catch(() => undefined);
    const known = partitionCounts(cluster, this.#options.topics);
    while (!this.#closed.signal.aborted) {
      const { promise: due, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, this.#options.heartbeatIntervalMs);
      try {
        await Promise.race([due, interrupted]);
      } finally {
        clearTimeout(timer);
      }
      await coordinator.heartbeat({
        groupId: this.#options.group,
        groupGenerationId: generationId,
        memberId,
      });
      await cluster.refreshMetadataIfNecessary();
      if (partitionCounts(cluster, this.#options.topics) !== known)
        throw new RejoinError('the topics have changed');
    }
  }

  /** A commit learned that the generation is over. */
  #end(membership: Membership, error: unknown): void {
    if (this.#membership !== membership) return;
    this.#noteLoss(error);
    this.#interrupt?.(error instanceof Error ? error : new RejoinError(String(error)));
  }

  /** The group has gone on without this member: what it held may be another's already. */
  #noteLoss(error: unknown): void {
    const type = errorType(error);
    if (type === 'UNKNOWN_MEMBER_ID') this.#memberId = '';
    if (type === 'UNKNOWN_MEMBER_ID' || type === 'ILLEGAL_GENERATION') this.#lose([...this.#held.values()]);
  }

  #lose(partitions: readonly TopicPartition[]): void {
    for (const at of partitions) this.#held.delete(partitionKey(at));
    if (partitions.length > 0) this.#options.onLost(partitions);
  }

  async #leave(cluster: Cluster): Promise<void> {
    if (this.#memberId === '') return;
    try {
      const coordinator = await findCoordinator(cluster, this.#options.group);
      await coordinator.leaveGroup({ groupId: this.#options.group, memberId: this.#memberId });
    } catch {
      // The session then ends by itself.
    }
  }
}

/** Committing again would fail the same way. */
function isHopeless(error: unknown): boolean {
  return ['OFFSET_METADATA_TOO_LARGE', 'INVALID_COMMIT_OFFSET_SIZE', 'GROUP_AUTHORIZATION_FAILED'].includes(
    errorType(error),
  );
}

/** Reads an entry of an OffsetFetch answer; -1 stands for nothing committed. */
export function committedOf(
  entry: { readonly offset: string; readonly metadata?: string | null } | undefined,
): Committed | null {
  const offset = Number(entry?.offset ?? -1);
  return entry === undefined || offset < 0 ? null : { offset, metadata: entry.metadata ?? '' };
}

function partitionCounts(cluster: Cluster, topics: readonly string[]): string {
  return topics.map((topic) => cluster.findTopicPartitionMetadata(topic).length).join();
}

/** What the leader sends: each member's partitions. */
async function shareOut(
  cluster: Cluster,
  { members }: JoinedGroup,
): Promise<{ memberId: string; memberAssignment: Buffer }[]> {
  const current = new Map<string, string>();
  const known = members.map(({ memberId, memberMetadata }) => {
    const metadata = kafkajs.AssignerProtocol.MemberMetadata.decode(memberMetadata);
    for (const key of ownedBy(metadata?.userData)) current.set(key, memberId);
    return { id: memberId, topics: metadata?.topics ?? [] };
  });
  const topics = [...new Set(known.flatMap((member) => member.topics))];
  await cluster.addMultipleTargetTopics(topics);
  await cluster.refreshMetadata();
  const partitions = topics.flatMap((topic) =>
    cluster.findTopicPartitionMetadata(topic).map(({ partitionId }) => ({ topic, partition: partitionId })),
  );
  const owners = assignPartitions(known, partitions, current);
  return known.map(({ id }) => {
    const assignment: Record<string, number[]> = {};
    for (const at of partitions) {
      if (owners.get(partitionKey(at)) !== id) continue;
      assignment[at.topic] = [...(assignment[at.topic] ?? []), at.partition];
    }
    const encoded = { version: protocolVersion, assignment, userData: Buffer.alloc(0) };
    return { memberId: id, memberAssignment: kafkajs.AssignerProtocol.MemberAssignment.encode(encoded) };
  });
}

function ownedBy(userData: Buffer | undefined): string[] {
  try {
    const owned: unknown = JSON.parse(userData?.toString('utf8') ?? '[]');
    return Array.isArray(owned) ? owned.map(String) : [];
  } catch {
    // A member of another make; it then moves more than it must.
    return [];
  }
}
