/** What a command asks with, and where it writes. */
import { type Client, openClient } from './client.ts';
import type { AskOptions } from './options.ts';
import { openScreen, type Screen } from './screen.ts';

export interface Asking {
  readonly client: Client;
  readonly screen: Screen;
}

export function start(options: AskOptions): Asking {
  return { client: openClient(options.url), screen: openScreen(options.wide === true) };
}
