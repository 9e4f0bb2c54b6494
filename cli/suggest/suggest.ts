/** `eastwest suggest`: rules for what no rule explains, as YAML for a pull request. */
import { writeFile } from 'node:fs/promises';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import type { Completeness } from '../ask/answers.ts';
import type { AskOptions } from '../ask/options.ts';
import type { Screen } from '../ask/screen.ts';
import { start } from '../ask/start.ts';
import { countText, shareText } from '../ask/words.ts';
import { endText } from '../draft/draft.ts';
import { readPolicyFiles } from '../draft/files.ts';
import { whileWaiting } from '../draft/waiting.ts';

export interface SuggestOptions extends AskOptions {
  readonly since?: string;
  readonly until?: string;
  readonly app?: string;
  readonly policy?: string;
  readonly output?: string;
}

type End = Parameters<typeof endText>[0];

interface SuggestAnswer {
  readonly rules: readonly {
    readonly ruleset: string;
    readonly rule: { readonly name: string };
    readonly evidence: { readonly connections: number; readonly sourceWorkloads: number };
    readonly coverageGained: number | null;
    readonly confidence: { readonly score: number; readonly level: string };
    readonly opens: { readonly allowedPairs: number; readonly seenPairs: number };
  }[];
  readonly review: readonly {
    readonly reasons: readonly { readonly reason: string }[];
    readonly evidence: { readonly connections: number };
    readonly edges: readonly {
      readonly source: End;
      readonly destination: End;
      readonly port: number;
      readonly protocol: string;
    }[];
  }[];
  readonly reviewTotal: number;
  readonly before: { readonly connections: number | null };
  readonly after: { readonly connections: number | null };
  readonly yaml: string;
  readonly completeness: Completeness;
}

/** Lines under review that are shown; the file and `--json` have more. */
const maxReviewShown = 20;

const tones = { high: 'good', medium: 'warn', low: 'bad' } as const;

function toneOf(level: string): (typeof tones)[keyof typeof tones] {
  return level === 'high' || level === 'medium' ? tones[level] : tones.low;
}

function show(screen: Screen, { rules, review, reviewTotal, before, after }: SuggestAnswer): void {
  if (rules.length > 0)
    screen.table(
      [
        { title: 'RULE', min: 20 },
        { title: 'CONNECTIONS', align: 'right' },
        { title: 'WORKLOADS', align: 'right' },
        { title: 'GAIN', align: 'right' },
        { title: 'CONFIDENCE' },
        { title: 'SEEN', align: 'right' },
        { title: 'OF PAIRS', align: 'right' },
      ],
      rules.map(({ ruleset, rule, evidence, coverageGained, confidence, opens }) => [
        `${ruleset}/${rule.name}`,
        countText(evidence.connections),
        countText(evidence.sourceWorkloads),
        shareText(coverageGained),
        { text: `${confidence.level} ${confidence.score.toFixed(2)}`, tone: toneOf(confidence.level) },
        countText(opens.seenPairs),
        countText(opens.allowedPairs),
      ]),
    );
  if (review.length > 0) {
    screen.line('');
    screen.line(screen.style.paint('warn', 'under review, and in no rule:'));
    screen.table(
      [
        { title: 'SOURCE', min: 14 },
        { title: 'DESTINATION', min: 14 },
        { title: 'PORT' },
        { title: 'CONNECTIONS', align: 'right' },
        { title: 'WHY', min: 14 },
      ],
      review
        .slice(0, maxReviewShown)
        .flatMap(({ edges: [edge], evidence, reasons }) =>
          edge === undefined
            ? []
            : [
                [
                  endText(edge.source),
                  endText(edge.destination),
                  `${edge.port}/${edge.protocol}`,
                  countText(evidence.connections),
                  reasons.map(({ reason }) => reason).join(', '),
                ],
              ],
        ),
    );
    if (reviewTotal > maxReviewShown) screen.line(`and ${countText(reviewTotal - maxReviewShown)} more`);
  }
  screen.line('');
  screen.line(
    `${countText(rules.length)} rules: coverage of connections ${shareText(before.connections)} before, ${shareText(after.connections)} with them`,
  );
}

async function write(file: string, yaml: string): Promise<void> {
  try {
    await writeFile(file, yaml);
  } catch (error) {
    throw new OperatorError(
      `${file}: ${error instanceof Error ? error.message : String(error)}`,
      exitCodes.usage,
    );
  }
}

/** The YAML goes to the file, or to stdout; with a file, what is in it is shown as tables. */
export async function suggest(options: SuggestOptions): Promise<void> {
  const { since, until, app, policy, output } = options;
  const files = policy === undefined ? undefined : await readPolicyFiles(policy);
  const { client, screen } = start(options);
  const answer = await whileWaiting(
    'looking for rules',
    client.post<SuggestAnswer>('/api/v1/suggestions', { files, since: since ?? '24h', until, app }),
  );
  if (output !== undefined) await write(output, answer.yaml);
  if (options.json === true) screen.json(answer);
  else if (output === undefined) process.stdout.write(answer.yaml);
  else {
    show(screen, answer);
    screen.note(
      `written to ${output}: put it into the policy folder and run \`eastwest rules check\` on that`,
    );
  }
  screen.completeness(answer.completeness);
}
