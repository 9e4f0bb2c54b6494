/** Wires the door: configuration, tokens, bus, HTTP. */
import { readFile, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { BusConfig } from '../../lib/bus/config.ts';
import { openBus } from '../../lib/bus/open.ts';
import { topicSpecs } from '../../lib/bus/topics.ts';
import { countBuffersAsMemory } from '../../lib/runtime/collector.ts';
import { RuntimeConfig } from '../../lib/runtime/config.ts';
import { OperatorError } from '../../lib/runtime/exit.ts';
import { explainListenError } from '../../lib/runtime/http.ts';
import { defineService } from '../../lib/runtime/service.ts';
import { buildIngest } from './app.ts';
import { makeBusLink } from './bus-link.ts';
import { IngestConfig } from './config.ts';
import { makeIngestMetrics } from './metrics.ts';
import { Pressure } from './pressure.ts';
import { makeTokenBook, parseTokensFile, type TokenBook } from './tokens.ts';

const tokensCheckMs = 5_000;

/** The tokens of the configuration and the file; `follow` reads the file again when it has changed. */
async function openTokens(config: IngestConfig, log: Logger) {
  const { tokensFile } = config;
  const load = async (): Promise<{ book: TokenBook; changedMs: number }> => {
    if (tokensFile === '') return { book: makeTokenBook(config.tokens), changedMs: 0 };
    const { mtimeMs: changedMs } = await stat(tokensFile);
    const book = makeTokenBook(config.tokens, parseTokensFile(await readFile(tokensFile, 'utf8')));
    return { book, changedMs };
  };
  let loaded = await load().catch((error: Error) => {
    throw new OperatorError(
      `the tokens file ${tokensFile} (ingest.tokensFile) cannot be used: ${error.message}`,
    );
  });
  return {
    current: () => loaded.book,
    async follow(signal: AbortSignal): Promise<void> {
      while (tokensFile !== '' && !signal.aborted) {
        await delay(tokensCheckMs, undefined, { signal }).catch(() => undefined);
        try {
          if ((await stat(tokensFile)).mtimeMs === loaded.changedMs) continue;
          loaded = await load();
          log.info({ tokens: loaded.book.size }, 'read the tokens file again');
        } catch (error) {
          log.warn({ err: error }, 'the tokens file cannot be read; the tokens stay as they were');
        }
      }
    },
  };
}

export const service = defineService({
  name: 'ingest',
  description: 'Takes flow batches over HTTP, checks them, and puts them on the bus.',
  sections: { ingest: IngestConfig, bus: BusConfig, runtime: RuntimeConfig },
  async run({ config, log, metrics, readiness, memory, signal }) {
    countBuffersAsMemory();
    const { ingest, runtime } = config;
    const tokens = await openTokens(ingest, log);
    if (tokens.current().size === 0) {
      log.warn(
        ingest.anonymousLoopback
          ? 'no tokens are configured: flows are taken from this machine only'
          : 'no tokens are configured: no flows are taken',
      );
    }
    const door = makeIngestMetrics(metrics);
    const pressure = new Pressure(ingest, memory.isTight);
    const link = makeBusLink({
      open: () => openBus(config.bus, { dataDir: runtime.dataDir, log, clientId: 'eastwest-ingest' }),
      topics: topicSpecs(config.bus),
      readiness,
      log,
      signal,
      onBacklog: (batchCount) => {
        pressure.seeBacklog(batchCount);
        door.backlogBatches.set(batchCount);
      },
    });
    const app = buildIngest({
      config: ingest,
      bus: link.current,
      onAppendError: link.doubt,
      tokens: tokens.current,
      pressure,
      metrics: door,
      log,
      now: Date.now,
    });
    try {
      const url = await app.listen({ host: ingest.host, port: ingest.port });
      log.info({ url }, 'taking flows');
    } catch (error) {
      const { host, port } = ingest;
      throw explainListenError(error, { host, port, who: 'ingest (flows)', option: 'ingest.port' });
    }
    await Promise.all([link.run(), tokens.follow(signal)]);
    await app.close();
    await link.close();
  },
});
