/** Which parts of a process work already, and why the others don't. */
import type { Readiness } from './service.ts';

export interface ReadinessState {
  /** True when at least one part is known and none is missing. */
  readonly ready: boolean;
  readonly parts: Readonly<Record<string, true | string>>;
}

export interface ReadinessBoard extends Readiness {
  state(): ReadinessState;
}

/** `onChange` is called with every state that differs from the one before. */
export function createReadiness(onChange: (state: ReadinessState) => void): ReadinessBoard {
  const parts = new Map<string, true | string>();
  const state = (): ReadinessState => ({
    ready: parts.size > 0 && [...parts.values()].every((part) => part === true),
    parts: Object.fromEntries(parts),
  });
  return {
    state,
    set(part, value) {
      if (parts.get(part) !== value) {
        parts.set(part, value);
        onChange(state());
      }
    },
  };
}
