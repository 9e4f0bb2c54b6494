/** Finds out before anything starts whether a port is free. */
import { createServer } from 'node:net';
import { explainListenError, type ListenPurpose } from '../../lib/runtime/http.ts';

/** The error of listening there, or `undefined` when it works. */
export async function tryPort(host: string, port: number): Promise<unknown> {
  const server = createServer();
  return new Promise((settle) => {
    server.once('error', (error) => settle(error));
    server.listen({ host, port, exclusive: true }, () => server.close(() => settle(undefined)));
  });
}

/** What is wrong with each port that can't be used, in words for the operator; port 0 is always fine. */
export async function portProblems(purposes: readonly ListenPurpose[]): Promise<string[]> {
  const problems: string[] = [];
  for (const purpose of purposes.filter(({ port }) => port !== 0)) {
    const error = await tryPort(purpose.host, purpose.port);
    if (error !== undefined) {
      const explained = explainListenError(error, purpose);
      problems.push(explained instanceof Error ? explained.message : String(explained));
    }
  }
  return problems;
}
