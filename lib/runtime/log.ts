/** Log lines: JSON for machines, readable on a terminal. */
import pino, { type DestinationStream, type Logger } from 'pino';
import pretty from 'pino-pretty';

export interface LogOptions {
  readonly name: string;
  readonly level: string;
  /** `auto`: readable when standard output is a terminal and no supervisor reads it. */
  readonly format: 'auto' | 'json' | 'pretty';
  readonly supervised: boolean;
}

/** A stream that writes log lines readably, one line each, for people. */
export function prettyStream(options: {
  colour: boolean;
  destination?: NodeJS.WritableStream;
}): DestinationStream {
  return pretty({
    colorize: options.colour,
    translateTime: 'SYS:HH:MM:ss.l',
    ignore: 'pid,hostname',
    sync: true,
    ...(options.destination === undefined ? {} : { destination: options.destination }),
  });
}

/** Lines leave the process before the call returns, so that the last words of a dying process are not lost. */
export function createLogger(options: LogOptions): Logger {
  const terminal = process.stdout.isTTY === true && !options.supervised;
  const readable = options.format === 'pretty' || (options.format === 'auto' && terminal);
  const stream = readable ? prettyStream({ colour: terminal }) : pino.destination({ fd: 1, sync: true });
  return pino({ name: options.name, level: options.level, timestamp: pino.stdTimeFunctions.isoTime }, stream);
}
