/** The policy on the bus: one message, keyed `policy`, that replaces the one before as a whole. */
import type { PolicyDocument } from '../../schemas/policy.ts';
import { topics } from '../../schemas/topics.ts';
import type { Bus } from '../bus/bus.ts';
import type { PolicyContent } from './load.ts';

const policyKey = 'policy';

/** The policy in force, or null before the first. @throws {Error} where the message is not a policy of a known format. */
export async function currentPolicy(bus: Bus): Promise<PolicyDocument | null> {
  let newest: Uint8Array | null = null;
  await new Promise<void>((resolve, reject) => {
    const tail = bus.tail({
      topic: topics.policy,
      onMessages: (_partition, messages) => {
        newest = messages.findLast(({ key, value }) => key === policyKey && value !== null)?.value ?? newest;
      },
      onCaughtUp: () => {
        tail.then((opened) => opened.close()).then(resolve, reject);
      },
      onError: reject,
    });
    tail.catch(reject);
  });
  if (newest === null) return null;
  const document: PolicyDocument = JSON.parse(Buffer.from(newest).toString('utf8'));
  if (document.v !== 1)
    throw new Error(
      `the policy on the bus has format ${String(document.v)}, which this version does not know`,
    );
  return document;
}

/** Applies a checked policy as the next version. Returns the document that is now in force. */
export async function publishPolicy(
  bus: Bus,
  content: PolicyContent,
  author: string,
): Promise<PolicyDocument> {
  const before = await currentPolicy(bus);
  const document: PolicyDocument = {
    ...content,
    v: 1,
    version: (before?.version ?? 0) + 1,
    author,
    appliedMs: Date.now(),
  };
  await bus.append(topics.policy, [{ key: policyKey, value: Buffer.from(JSON.stringify(document)) }]);
  return document;
}
