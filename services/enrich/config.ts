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
    lingerMs: Type.Integer({
      default: 500,
      minimum: 0,
      description: 'Longest wait, ms, for a block to fill before it is written.',
    }),
    holdMs: Type.Integer({
      default: 2000,
      minimum: 0,
      description: 'Longest wait, ms, for inventory that a pod address of a block still lacks.',
    }),
    clockToleranceMs: Type.Integer({
      default: 1000,
      minimum: 0,
      description:
        'How far, ms, the clocks of agents and inventory may be apart before a label is called uncertain.',
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
