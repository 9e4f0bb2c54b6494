/** A TCP proxy that stands for the network: it can be cut, lose what is answered, delay it, or take nothing more. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { Transform } from 'node:stream';

export interface NetworkProxy {
  readonly port: number;
  /** Ends all connections, and new ones at once, until `mend`. */
  cut(): void;
  /** Lets questions through and ends the connection instead of answering, until `mend`. */
  deafen(): void;
  /** Lets nothing through in either direction and ends nothing, until `mend`: what is sent waits in buffers. */
  hold(): void;
  mend(): void;
  /** Answers are passed on after this long, ms. */
  delayMs: number;
  close(): Promise<void>;
}

export async function startProxy(targetPort: number, delayMs = 0): Promise<NetworkProxy> {
  let state: 'open' | 'cut' | 'deaf' | 'held' = 'open';
  const pairs = new Set<{ readonly client: Socket; readonly target: Socket }>();
  const waiting = new Set<() => void>();
  const whenLet = (go: () => void): void => {
    if (state === 'held') waiting.add(go);
    else go();
  };
  const server = createServer((client) => {
    client.on('error', () => client.destroy());
    if (state === 'cut') {
      client.destroy();
      return;
    }
    const target = connect(targetPort, '127.0.0.1');
    const pair = { client, target };
    pairs.add(pair);
    target.on('error', () => target.destroy());
    const answers = new Transform({
      transform(chunk, _, done) {
        if (state === 'deaf') {
          client.destroy();
          target.destroy();
          return;
        }
        setTimeout(() => whenLet(() => done(null, chunk)), proxy.delayMs);
      },
    });
    const questions = new Transform({
      transform: (chunk, _, done) => whenLet(() => done(null, chunk)),
    });
    client.pipe(questions).pipe(target);
    target.pipe(answers).pipe(client);
    const end = (): void => {
      client.destroy();
      target.destroy();
      pairs.delete(pair);
    };
    client.on('close', end);
    target.on('close', end);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
  const endAll = (): void => {
    for (const { client, target } of pairs) {
      client.destroy();
      target.destroy();
    }
  };
  const proxy: NetworkProxy = {
    port: address.port,
    delayMs,
    cut() {
      state = 'cut';
      endAll();
    },
    deafen() {
      state = 'deaf';
    },
    hold() {
      state = 'held';
    },
    mend() {
      state = 'open';
      const held = [...waiting];
      waiting.clear();
      for (const go of held) go();
    },
    async close() {
      server.close();
      endAll();
      await once(server, 'close').catch(() => undefined);
    },
  };
  return proxy;
}
