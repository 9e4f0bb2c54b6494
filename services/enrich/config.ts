/** Configuration of the enricher. */
import Type, { type Static } from 'typebox';

export const EnrichConfig = Type.Object(
  {
    maxBlockRows: Type.Integer({
      default: 524288,
      minimum: 1024,
      maximum: 1048576,
      description: 'Flows in one insert at most.',
    }),
    maxBlockBytes: Type.Integer({
      default: 64 * 1024 * 1024,
      minimum: 1024 * 1024,
      description: 'Bytes of messages in one insert at most.',
    }),
    maxHeldBytes: Type.Integer({
      default: 2 * 1024 ** 3,
      minimum: 16 * 1024 * 1024,
      description:
        'Memory for blocks that are built or on their way, bytes, of all partitions of a process: the more it has, the smaller their blocks.',
    }),
    lingerMs: Type.Integer({
      default: 400,
      minimum: 0,
      description: 'Least time, ms, between two inserts of a partition: what comes meanwhile goes into one.',
    }),
    holdMs: Type.Integer({
      default: 2000,
      minimum: 0,
      description:
        'Longest wait, ms, of a flow from its arrival on the bus until the inventory vouches for its time; what is not settled then is written as late and repaired.',
    }),
    repairWindowMs: Type.Integer({
      default: 600_000,
      minimum: 0,
      description:
        'How long, ms, after their writing late flows wait for the inventory, before they stay as they are.',
    }),
    repairIntervalMs: Type.Integer({
      default: 2000,
      minimum: 10,
      description: 'Pause, ms, between two looks for late flows that can be repaired.',
    }),
    maxRepairRows: Type.Integer({
      default: 20_000,
      minimum: 100,
      maximum: 100_000,
      description: 'Late flows that are repaired in one insert at most.',
    }),
    clockToleranceMs: Type.Integer({
      default: 1000,
      minimum: 0,
      description:
        'How far, ms, the times of an agent that has not measured its clock may be off those of the inventory.',
    }),
    inventoryErrorMs: Type.Integer({
      default: 250,
      minimum: 0,
      description:
        'How far, ms, the times of the inventory may be off the clock of ingest; added to what an agent measured.',
    }),
    maxIntervalsPerAddress: Type.Integer({
      default: 64,
      minimum: 2,
      description: 'Owners of one address remembered, newest first.',
    }),
    maxAgeMs: Type.Integer({
      default: 8 * 86400000,
      minimum: 60000,
      description: 'Flows begun longer, ms, before they reached the bus are refused as time-out-of-range.',
    }),
    maxAheadMs: Type.Integer({
      default: 15 * 60000,
      minimum: 0,
      description:
        'Flows begun more than this, ms, after they reached the bus are refused as time-out-of-range.',
    }),
    catalogFlushMs: Type.Integer({
      default: 1000,
      minimum: 50,
      description: 'How often, ms, changed workloads are written to the store.',
    }),
    maxTrackedBoots: Type.Integer({
      default: 100000,
      minimum: 100,
      description: 'Agent boots per partition whose batch sequences are kept in memory to drop repeats.',
    }),
  },
  { additionalProperties: false, description: 'Joining flows with inventory and policy, and writing them.' },
);
export type EnrichConfig = Static<typeof EnrichConfig>;
