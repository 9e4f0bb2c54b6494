/**
 * The policy on the bus: each version is a message with a key of its own, so that compaction keeps them all and a flow can
 * be judged by the version of its time. Of two messages with one version the first counts; whoever wrote the second takes
 * the next number.
 */
import { randomUUID } from 'node:crypto';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { topics } from '../../schemas/topics.ts';
import type { Bus, BusMessage } from '../bus/bus.ts';
import type { PolicyContent } from './load.ts';

/** A new version takes effect this much later, so that every enricher has it before the first flow it is for; ms. */
export const applyLeadMs = 1000;
/** Versions that stay on the topic; flows of earlier ones are judged by the oldest that is left. */
const keptVersions = 100;

/** The policy of a message, or null where it takes one away. @throws {Error} where it is not a policy of a known format. */
export function policyOfMessage({
  value,
  offset,
}: Pick<BusMessage, 'value' | 'offset'>): PolicyDocument | null {
  if (value === null) return null;
  // Whoever publishes checks the whole policy first (lib/policy/load.ts), so its shape is trusted here.
  const document = JSON.parse(
    Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('utf8'),
  ) as PolicyDocument;
  if (document.v !== 1)
    throw new Error(
      `the policy at offset ${offset} of the topic has format ${String(document.v)}, which this version does not know`,
    );
  return document;
}

interface Published {
  readonly key: string;
  readonly document: PolicyDocument;
}

async function readPublished(bus: Bus): Promise<Published[]> {
  const byKey = new Map<string, PolicyDocument>();
  await new Promise<void>((resolve, reject) => {
    const tail = bus.tail({
      topic: topics.policy,
      onMessages: (_partition, messages) => {
        for (const message of messages) {
          if (message.key === null) continue;
          const document = policyOfMessage(message);
          if (document === null) byKey.delete(message.key);
          else byKey.set(message.key, document);
        }
      },
      onCaughtUp: () => {
        tail.then((opened) => opened.close()).then(resolve, reject);
      },
      onError: reject,
    });
    tail.catch(reject);
  });
  const versions = new Map<number, Published>();
  for (const [key, document] of byKey)
    if (!versions.has(document.version)) versions.set(document.version, { key, document });
  return [...versions.values()].sort((a, b) => a.document.version - b.document.version);
}

/** All versions that are kept, ascending. @throws {Error} where a message is not a policy of a known format. */
export async function policyHistory(bus: Bus): Promise<PolicyDocument[]> {
  return (await readPublished(bus)).map(({ document }) => document);
}

/** The newest policy, or null before the first. @throws {Error} as {@link policyHistory} does. */
export async function currentPolicy(bus: Bus): Promise<PolicyDocument | null> {
  return (await policyHistory(bus)).at(-1) ?? null;
}

/**
 * Applies a checked policy as the next version, for flows that begin {@link applyLeadMs} from now or later. Returns the
 * document; its `appliedMs` is the moment from which it holds.
 */
export async function publishPolicy(
  bus: Bus,
  content: PolicyContent,
  author: string,
): Promise<PolicyDocument> {
  for (;;) {
    const published = await readPublished(bus);
    const version = (published.at(-1)?.document.version ?? 0) + 1;
    const key = `policy/${version}/${randomUUID()}`;
    const document: PolicyDocument = {
      ...content,
      v: 1,
      version,
      author,
      appliedMs: Date.now() + applyLeadMs,
    };
    await bus.append(topics.policy, [{ key, value: Buffer.from(JSON.stringify(document)) }]);
    const winner = (await readPublished(bus)).find((one) => one.document.version === version);
    const old = published.slice(0, Math.max(0, published.length - keptVersions)).map((one) => one.key);
    const taken = winner?.key === key ? [] : [key];
    if (old.length + taken.length > 0)
      await bus.append(
        topics.policy,
        [...old, ...taken].map((gone) => ({ key: gone, value: null })),
      );
    if (taken.length === 0) return document;
  }
}
