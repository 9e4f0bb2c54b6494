/** `eastwest labels explain`. */
import { exitCodes } from '../../lib/runtime/exit.ts';
import type { AskOptions } from './options.ts';
import type { Screen } from './screen.ts';
import { start } from './start.ts';

export type ExplainOptions = AskOptions;

interface Subject {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly addresses: readonly string[];
  readonly current: boolean;
}

interface Explanation {
  readonly workload: Subject | null;
  readonly labels: readonly { readonly key: string; readonly value: string; readonly source: string }[];
  readonly refused: readonly { readonly reason: string }[];
  readonly notes: readonly string[];
  readonly profile: string | null;
  readonly managed: boolean;
  readonly otherProfiles: readonly string[];
  readonly policy: number;
  readonly matches: readonly Subject[];
  readonly total: number;
}

function subjectText({ kind, cluster, namespace, name }: Subject): string {
  return `${kind} ${[cluster, namespace, name].filter((part) => part !== '').join('/')}`;
}

function showSeveral(screen: Screen, word: string, { matches, total }: Explanation): void {
  screen.table(
    [
      { title: 'KIND' },
      { title: 'CLUSTER' },
      { title: 'NAMESPACE' },
      { title: 'NAME', min: 14 },
      { title: 'ADDRESSES' },
      { title: 'UID' },
    ],
    matches.map((match) => [
      match.kind,
      match.cluster,
      match.namespace,
      { text: match.name, tone: match.current ? 'bold' : 'dim' },
      match.addresses.join(' '),
      match.uid,
    ]),
  );
  screen.note(
    `${total} workloads are called ${word}: ask again with cluster/namespace/name, or with the uid of one`,
  );
}

function profileText({ profile, managed, policy, otherProfiles }: Explanation): string {
  if (profile === null) return `no profile of policy ${policy} matches it`;
  const also = otherProfiles.length === 0 ? '' : `; later ones that match too: ${otherProfiles.join(', ')}`;
  return managed
    ? `profile ${profile} of policy ${policy}${also}`
    : `not managed: profile ${profile} of policy ${policy} gives no labels${also}`;
}

/** Resolves with the exit code: 1 where the word means nobody, or more than one. */
export async function explain(word: string, options: ExplainOptions): Promise<number> {
  const { client, screen } = start(options);
  const answer = await client.get<Explanation>('/api/v1/labels/explain', { workload: word });
  const { workload } = answer;
  const code = workload === null ? exitCodes.failure : exitCodes.ok;
  if (options.json === true) {
    screen.json(answer);
    return code;
  }
  if (workload === null) {
    if (answer.total > 0) showSeveral(screen, word, answer);
    else screen.note(`nobody is called ${word}: ask with a name, namespace/name, a uid or an address`);
    return code;
  }
  const gone = workload.current ? '' : ', which is gone';
  screen.line(`${subjectText(workload)}${gone}  ${workload.addresses.join(' ')}`.trimEnd());
  screen.line(profileText(answer));
  if (answer.labels.length > 0)
    screen.table(
      [{ title: 'LABEL' }, { title: 'VALUE' }, { title: 'FROM', min: 20 }],
      answer.labels.map(({ key, value, source }) => [key, value, source]),
    );
  else screen.line('it has no labels');
  for (const { reason } of answer.refused) screen.line(`refused: ${reason}`);
  for (const note of answer.notes) screen.line(`note: ${note}`);
  return code;
}
