/** The policy that is exported: of a folder, or the one in force. */

import type { PolicyContent } from '../../lib/policy/load.ts';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { openClient } from '../ask/client.ts';
import { problemLines, readPolicyFolder } from '../policy-folder.ts';

/** @throws {OperatorError} where the folder has errors, or no policy is in force. */
export async function policyOf(folder: string | undefined, url: string): Promise<PolicyDocument> {
  const nobody = { v: 1, version: 0, author: '', appliedMs: 0 } as const;
  if (folder === undefined) {
    const answer = await openClient(url).get<{ version: number; policy: PolicyContent }>(
      '/api/v1/policy',
      {},
    );
    if (answer.version === 0)
      throw new OperatorError(
        'no policy is in force: name a folder, or apply one with `eastwest rules apply`',
        exitCodes.usage,
      );
    return { ...nobody, ...answer.policy, version: answer.version };
  }
  const result = await readPolicyFolder(folder);
  if (!result.ok)
    throw new OperatorError(
      ['the policy is wrong, nothing was exported:', ...problemLines(result.problems)].join('\n'),
      exitCodes.usage,
    );
  return { ...nobody, ...result.policy };
}
