/** Colour for terminals; off for pipes, with NO_COLOR, and for dumb terminals. */
import { styleText } from 'node:util';

export type Tone = 'plain' | 'dim' | 'bold' | 'good' | 'warn' | 'bad' | 'alarm';

export interface Style {
  paint(tone: Tone, text: string): string;
}

const formats = {
  dim: 'dim',
  bold: 'bold',
  good: 'green',
  warn: 'yellow',
  bad: 'red',
  alarm: ['bold', 'red'],
} as const;

/** What a stream shows: colour on a terminal that wants it. */
export function styleFor(stream: NodeJS.WriteStream, environment: NodeJS.ProcessEnv = process.env): Style {
  const forced = environment.FORCE_COLOR !== undefined && environment.FORCE_COLOR !== '0';
  const refused = (environment.NO_COLOR ?? '') !== '' || environment.TERM === 'dumb';
  const colour = !refused && (forced || stream.isTTY === true);
  return {
    paint: (tone, text) =>
      colour && tone !== 'plain' && text !== ''
        ? styleText([...[formats[tone]].flat()], text, { validateStream: false })
        : text,
  };
}

const severityTones: Readonly<Record<string, Tone>> = {
  critical: 'alarm',
  high: 'bad',
  medium: 'warn',
  low: 'dim',
};

export function severityTone(severity: string): Tone {
  return severityTones[severity] ?? 'dim';
}

const verdictTones: Readonly<Record<string, Tone>> = { allowed: 'good', denied: 'warn', unexplained: 'bad' };

export function verdictTone(verdict: string): Tone {
  return verdictTones[verdict] ?? 'plain';
}
