/** The JSON Schema (and types) of flow batches as JSON, for people and programs without Avro: one batch, or a list. */
import Type, { type Static } from 'typebox';
import { actions, sides, states } from './closed-lists.ts';

const closed = { additionalProperties: false };
/** Largest count that a double holds exactly. */
const maxCount = Number.MAX_SAFE_INTEGER;
const largestMs = 8.64e15;

const Time = Type.Union([Type.Integer({ minimum: 0, maximum: largestMs }), Type.String({ maxLength: 40 })], {
  description: 'a time as ms since the epoch or ISO 8601 with its zone, such as 2026-01-31T12:00:00.000Z',
});
const Address = Type.String({ maxLength: 45, description: 'an IPv4 or IPv6 address in text' });
const Port = Type.Integer({
  minimum: 0,
  maximum: 65_535,
  description: 'a port, 0 where the protocol has none',
});
const Count = Type.Integer({ minimum: 0, maximum: maxCount, description: 'a count' });
const Name = Type.String({ maxLength: 256, description: 'a name of at most 256 characters' });
const Text = Type.String({ maxLength: 1024, description: 'a text of at most 1024 characters' });

/** Protocols by name; any other goes by its IP protocol number. */
export const protocolNumbers: Readonly<Record<string, number>> = {
  icmp: 1,
  igmp: 2,
  tcp: 6,
  udp: 17,
  gre: 47,
  esp: 50,
  icmpv6: 58,
  sctp: 132,
};

const Protocol = Type.Union(
  [
    Type.Integer({ minimum: 0, maximum: 255 }),
    ...Object.keys(protocolNumbers).map((protocol) => Type.Literal(protocol)),
  ],
  { description: `an IP protocol number or one of ${Object.keys(protocolNumbers).join(', ')}` },
);

export const JsonFlow = Type.Object(
  {
    start: Time,
    end: Type.Optional(Time),
    durationMs: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 4_294_967_295,
        description: 'ms from start to end, instead of end',
      }),
    ),
    sourceAddress: Address,
    sourcePort: Type.Optional(Port),
    destinationAddress: Address,
    destinationPort: Type.Optional(Port),
    protocol: Protocol,
    originalDestinationAddress: Type.Optional(Address),
    originalDestinationPort: Type.Optional(Port),
    reporter: Type.Optional(
      Type.Union(
        sides.map((side) => Type.Literal(side)),
        { description: `which end reports it, one of ${sides.join(', ')}; source where absent` },
      ),
    ),
    bytesForward: Type.Optional(Count),
    bytesReverse: Type.Optional(Count),
    packetsForward: Type.Optional(Count),
    packetsReverse: Type.Optional(Count),
    connectionCount: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 2_147_483_647, description: 'connections begun; 1 where absent' }),
    ),
    flags: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 65_535, description: 'TCP flags seen, or ICMP type * 256 + code' }),
    ),
    state: Type.Optional(
      Type.Union(
        states.map((state) => Type.Literal(state)),
        { description: `one of ${states.join(', ')}` },
      ),
    ),
    action: Type.Optional(
      Type.Union(
        actions.map((action) => Type.Literal(action)),
        { description: `what the network did, one of ${actions.join(', ')}` },
      ),
    ),
    actionReason: Type.Optional(Text),
    dnsName: Type.Optional(Text),
    processName: Type.Optional(Text),
    sourceHint: Type.Optional(Text),
    destinationHint: Type.Optional(Text),
  },
  closed,
);

export const JsonFlowBatch = Type.Object(
  {
    agentId: Type.String({ minLength: 1, maxLength: 256, description: 'the stable name of who reports' }),
    bootId: Type.Optional(
      Type.String({ minLength: 1, maxLength: 256, description: 'changes when counting begins anew' }),
    ),
    sequence: Type.Optional(
      Type.Integer({ minimum: 1, maximum: maxCount, description: 'from 1, without gaps' }),
    ),
    cluster: Type.Optional(Name),
    node: Type.Optional(Name),
    network: Type.Optional(Name),
    sourceKind: Type.Optional(Name),
    observedFrom: Type.Optional(Time),
    observedTo: Type.Optional(Time),
    sourceDroppedCount: Type.Optional(Count),
    samplingRate: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 2_147_483_647, description: 'one of how many was looked at' }),
    ),
    clockOffsetMs: Type.Optional(
      Type.Integer({
        minimum: -2_147_483_648,
        maximum: 2_147_483_647,
        description: "ms that the sender's clock, by which all times are, is ahead of that of ingest",
      }),
    ),
    clockErrorMs: Type.Optional(
      Type.Integer({
        minimum: -1,
        maximum: 2_147_483_647,
        description: 'ms that clockOffsetMs may be off; -1 where it was not measured',
      }),
    ),
    flows: Type.Array(JsonFlow),
  },
  {
    ...closed,
    description:
      'One batch. Without bootId and sequence they come from the content, so that the same document counts once; ' +
      'network is the cluster where absent, or default; observedFrom and observedTo span the flows where absent.',
  },
);

export type JsonFlow = Static<typeof JsonFlow>;
export type JsonFlowBatch = Static<typeof JsonFlowBatch>;
