/**
 * Named moments at which a test lets a process die or freeze, so that faults hit where they hurt and can be repeated.
 * Without `EASTWEST_FAILPOINTS` in the environment every call is a look at a null.
 */

import { writeSync } from 'node:fs';

/** `name=kill@3,other=stop@1`: the third time `name` is reached the process ends at once (SIGKILL), or freezes (SIGSTOP). */
const variable = 'EASTWEST_FAILPOINTS';

interface Failpoint {
  readonly signal: NodeJS.Signals;
  countdown: number;
}

const shape = /^([\w.-]+)=(kill|stop)@(\d+)$/;

/** @throws {Error} naming the part that is not understood. */
export function parseFailpoints(text: string): Map<string, Failpoint> {
  const points = new Map<string, Failpoint>();
  for (const part of text.split(',').filter((one) => one !== '')) {
    const [, name, action, count] = shape.exec(part) ?? [];
    if (name === undefined || count === undefined)
      throw new Error(`${variable}: "${part}" is not NAME=kill@COUNT or NAME=stop@COUNT`);
    points.set(name, { signal: action === 'kill' ? 'SIGKILL' : 'SIGSTOP', countdown: Number(count) });
  }
  return points;
}

const text = process.env[variable];
const armed = text === undefined ? null : parseFailpoints(text);

/** A moment that tests may choose. Returns when the process is allowed to go on. */
export function failpoint(name: string): void {
  const point = armed?.get(name);
  if (point === undefined || --point.countdown !== 0) return;
  // At once: after the signal nothing is written any more.
  writeSync(process.stderr.fd, `failpoint ${name} ${point.signal}\n`);
  process.kill(process.pid, point.signal);
}
