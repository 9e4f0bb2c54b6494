/** What a process knows of the one that started it: told over IPC, and gone when that channel closes. */

/** Set by whoever starts a process of ours and holds an IPC channel to it. */
export const parentVariable = 'EASTWEST_PARENT';

export type ParentKind = 'supervisor' | 'launcher' | 'none';

/** Child to supervisor. */
export type ChildMessage =
  | {
      readonly type: 'ready';
      readonly ready: boolean;
      readonly parts: Readonly<Record<string, true | string>>;
    }
  | { readonly type: 'http'; readonly url: string };

export interface ParentLink {
  readonly kind: ParentKind;
  send(message: ChildMessage): void;
  /** Calls `listener` once, when the parent has died or let go of this process. */
  onGone(listener: () => void): void;
}

const parentCheckIntervalMs = 1_000;

function kindOf(value: string | undefined): ParentKind {
  return value === 'supervisor' || value === 'launcher' ? value : 'none';
}

/** Reads how this process was started. */
export function parentLink(source: NodeJS.Process = process): ParentLink {
  const kind = source.send === undefined ? 'none' : kindOf(source.env[parentVariable]);
  return {
    kind,
    send(message) {
      if (kind === 'supervisor' && source.connected) {
        // Without a callback a channel that closes at this moment would raise an error event.
        source.send?.(message, () => undefined);
      }
    },
    onGone(listener) {
      if (kind === 'none') {
        return;
      }
      let told = false;
      const tell = (): void => {
        if (!told) {
          told = true;
          clearInterval(timer);
          listener();
        }
      };
      const first = source.ppid;
      const timer = setInterval(() => source.ppid !== first && tell(), parentCheckIntervalMs);
      timer.unref();
      source.once('disconnect', tell);
      // Listening must not keep a process alive that has nothing else to do.
      source.channel?.unref();
      if (!source.connected) {
        tell();
      }
    },
  };
}
