/** Settings of `eastwest up`. */
import Type from 'typebox';

export const SupervisorConfig = Type.Object({
  restartInitialMs: Type.Integer({
    default: 500,
    minimum: 1,
    maximum: 60_000,
    description:
      'Wait before a dead process is started again the first time, milliseconds; doubles each time.',
  }),
  restartMaxMs: Type.Integer({
    default: 15_000,
    minimum: 1,
    maximum: 600_000,
    description: 'Longest wait before a dead process is started again, milliseconds.',
  }),
  goodAfterMs: Type.Integer({
    default: 60_000,
    minimum: 1,
    maximum: 86_400_000,
    description:
      'A process that ran this long counts as healthy again: its next restart is quick, milliseconds.',
  }),
  stopEveryoneAfterMs: Type.Integer({
    default: 2_500,
    minimum: 1,
    maximum: 600_000,
    description: 'When stopping, how long a process waits for those that depend on it, milliseconds.',
  }),
  killAfterMs: Type.Integer({
    default: 4_000,
    minimum: 1,
    maximum: 600_000,
    description: 'When stopping, when processes that are still there are killed, milliseconds.',
  }),
  logFileBytes: Type.Integer({
    default: 10_000_000,
    minimum: 1_000,
    maximum: 10_000_000_000,
    description: 'Size at which the log file of a process is put aside, bytes.',
  }),
  logFileCount: Type.Integer({
    default: 3,
    minimum: 0,
    maximum: 1_000,
    description: 'How many full log files of each process are kept.',
  }),
});
