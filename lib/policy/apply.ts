/** Applies a policy if it says anything else than the one in force. */
import type { PolicyDocument } from '../../schemas/policy.ts';
import type { Bus } from '../bus/bus.ts';
import { diffPolicies, type PolicyChange } from './diff.ts';
import { emptyPolicy } from './engine.ts';
import type { PolicyContent } from './load.ts';
import { policyHistory, publishPolicy } from './publish.ts';

export interface Applied {
  /** The policy that is in force now; where nothing was to be written, the one before. */
  readonly document: PolicyDocument;
  readonly changes: readonly PolicyChange[];
}

/** What a version says, without when and by whom. */
export function contentOf({
  v: _,
  version: __,
  author: ___,
  appliedMs: ____,
  ...content
}: PolicyDocument): PolicyContent {
  return content;
}

/** Publishes `content` where it differs from the newest version; null where nothing does. `dryRun` only tells what would. */
export async function applyContent(
  bus: Bus,
  content: PolicyContent,
  author: string,
  dryRun: boolean,
): Promise<Applied | null> {
  const newest = (await policyHistory(bus)).at(-1) ?? emptyPolicy;
  const changes = diffPolicies(contentOf(newest), content);
  if (changes.length === 0) return null;
  return { changes, document: dryRun ? newest : await publishPolicy(bus, content, author) };
}
