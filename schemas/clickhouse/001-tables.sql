-- Times are UTC whatever the server's zone is, so that days and months begin alike everywhere.
-- How long rows stay is a setting, applied to these tables by the migration program.

-- Labelled flows, one row for each report of each side. Sorted so that neighbours are alike (bytes per row), destination first.
CREATE TABLE IF NOT EXISTS flows
(
    time DateTime('UTC') COMMENT 'Begin of what the flow reports; labels are those of this moment' CODEC(DoubleDelta, ZSTD(1)),
    duration_ms UInt32 CODEC(T64, ZSTD(1)),
    src_ip IPv6 COMMENT 'IPv4 is mapped into ::ffff:0:0/96' CODEC(ZSTD(1)),
    src_port UInt16 CODEC(T64, ZSTD(1)),
    dst_ip IPv6 CODEC(ZSTD(1)),
    dst_port UInt16 CODEC(ZSTD(1)),
    protocol UInt8 COMMENT 'IP protocol number' CODEC(ZSTD(1)),
    original_dst_ip IPv6 COMMENT 'Destination before NAT, or ::' CODEC(ZSTD(1)),
    original_dst_port UInt16 CODEC(ZSTD(1)),
    src_workload UInt64 COMMENT 'workloads.id, or 0' CODEC(ZSTD(1)),
    dst_workload UInt64 CODEC(ZSTD(1)),
    src_identity UInt64 COMMENT 'identities.id' CODEC(ZSTD(1)),
    dst_identity UInt64 CODEC(ZSTD(1)),
    src_provenance Enum8('none' = 0, 'pod' = 1, 'host' = 2, 'service' = 3, 'node' = 4, 'range' = 5, 'name' = 6) CODEC(ZSTD(1)),
    src_certainty Enum8('none' = 0, 'exact' = 1, 'grace' = 2, 'late' = 3, 'ambiguous' = 4) CODEC(ZSTD(1)),
    dst_provenance Enum8('none' = 0, 'pod' = 1, 'host' = 2, 'service' = 3, 'node' = 4, 'range' = 5, 'name' = 6) CODEC(ZSTD(1)),
    dst_certainty Enum8('none' = 0, 'exact' = 1, 'grace' = 2, 'late' = 3, 'ambiguous' = 4) CODEC(ZSTD(1)),
    side Enum8('source' = 0, 'destination' = 1, 'middle' = 2) COMMENT 'Which end reported it' CODEC(ZSTD(1)),
    state Enum8('unknown' = 0, 'new' = 1, 'open' = 2, 'closed' = 3, 'timed_out' = 4, 'refused' = 5) CODEC(ZSTD(1)),
    action Enum8('unknown' = 0, 'forwarded' = 1, 'dropped' = 2) COMMENT 'What the network did, as reported' CODEC(ZSTD(1)),
    action_reason LowCardinality(String) CODEC(ZSTD(1)),
    flags UInt16 COMMENT 'TCP flags (union), or ICMP type * 256 + code' CODEC(ZSTD(1)),
    verdict Enum8('unexplained' = 0, 'allowed' = 1, 'denied' = 2) CODEC(ZSTD(1)),
    reason Enum8('rule' = 0, 'no-rule' = 1, 'port-not-covered' = 2, 'unknown-source' = 3, 'unknown-destination' = 4, 'outside-scope' = 5) CODEC(ZSTD(1)),
    rule UInt64 COMMENT 'rules.id, or 0' CODEC(ZSTD(1)),
    policy UInt32 COMMENT 'Version of the policy that gave the verdict' CODEC(ZSTD(1)),
    bytes_forward UInt64 CODEC(T64, ZSTD(1)),
    bytes_reverse UInt64 CODEC(T64, ZSTD(1)),
    packets_forward UInt64 CODEC(T64, ZSTD(1)),
    packets_reverse UInt64 CODEC(T64, ZSTD(1)),
    connections UInt32 COMMENT 'Connections begun in this report' CODEC(ZSTD(1)),
    dns_name LowCardinality(String) COMMENT 'Name the source asked for' CODEC(ZSTD(1)),
    process LowCardinality(String) COMMENT 'Process on the reporter''s side' CODEC(ZSTD(1)),
    agent LowCardinality(String) COMMENT 'Who reported it' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(time)
ORDER BY (dst_identity, dst_port, src_identity, src_ip, dst_ip, time)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;

-- The ledger: every batch that was read from the bus, written with the block that holds its flows.
CREATE TABLE IF NOT EXISTS batches
(
    agent LowCardinality(String),
    boot String CODEC(ZSTD(3)),
    sequence UInt64 CODEC(Delta(8), ZSTD(3)),
    cluster LowCardinality(String),
    node LowCardinality(String),
    source_kind LowCardinality(String),
    observed_from DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(3)),
    observed_to DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(3)),
    received DateTime64(3, 'UTC') COMMENT 'When the bus took it' CODEC(Delta(8), ZSTD(3)),
    written DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When its block was written' CODEC(Delta(8), ZSTD(3)),
    flows UInt32 COMMENT 'Flows in the batch' CODEC(ZSTD(3)),
    flows_written UInt32 CODEC(ZSTD(3)),
    flows_refused UInt32 COMMENT 'Flows left out of the block for the cause' CODEC(ZSTD(3)),
    source_dropped UInt64 COMMENT 'Flows the source lost before the agent saw them' CODEC(ZSTD(3)),
    sampling_rate UInt32 CODEC(ZSTD(3)),
    outcome Enum8('written' = 0, 'resent' = 1, 'dead' = 2),
    cause Enum8('none' = 0, 'undecodable' = 1, 'unknown-schema' = 2, 'too-many-flows' = 3, 'bad-value' = 4, 'time-out-of-range' = 5),
    topic LowCardinality(String),
    bus_partition UInt32 CODEC(ZSTD(3)),
    bus_offset UInt64 CODEC(Delta(8), ZSTD(3))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(received)
ORDER BY (agent, boot, sequence, bus_offset)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;

-- A distinct set of labels plus kind. Ids are hashes of the content: rows may be written any number of times.
CREATE TABLE IF NOT EXISTS identities
(
    id UInt64,
    kind LowCardinality(String),
    cluster LowCardinality(String),
    namespace LowCardinality(String),
    name String COMMENT 'Name of a range or service; empty otherwise',
    zone LowCardinality(String) COMMENT 'inside or outside of the estate',
    app LowCardinality(String),
    role LowCardinality(String),
    env LowCardinality(String),
    loc LowCardinality(String),
    label_keys Array(String),
    label_values Array(String),
    updated_at DateTime('UTC') DEFAULT now()
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY id;

-- Who had which address when: one row for each address interval of each workload.
CREATE TABLE IF NOT EXISTS workloads
(
    id UInt64,
    kind LowCardinality(String),
    cluster LowCardinality(String),
    namespace LowCardinality(String),
    name String,
    node LowCardinality(String),
    uid String,
    identity UInt64,
    network LowCardinality(String),
    ip IPv6,
    valid_from DateTime64(3, 'UTC'),
    valid_to DateTime64(3, 'UTC') COMMENT 'End of the interval; the far future while it lasts',
    updated_at DateTime('UTC') DEFAULT now()
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (id, network, ip, valid_from);

-- Rules of each policy version.
CREATE TABLE IF NOT EXISTS rules
(
    id UInt64 COMMENT 'Hash of ruleset and rule name',
    policy UInt32,
    ruleset LowCardinality(String),
    name String,
    action LowCardinality(String),
    owner String,
    ticket String,
    definition String COMMENT 'JSON of the rule',
    applied DateTime64(3, 'UTC'),
    author LowCardinality(String)
)
ENGINE = ReplacingMergeTree(applied)
ORDER BY (id, policy);

-- What the alert service has said, or is still trying to say; the newest row of an id counts.
CREATE TABLE IF NOT EXISTS alerts
(
    id String COMMENT 'Webhook message id: the same for every try',
    edge UInt64 COMMENT 'Hash of the edge',
    created DateTime64(3, 'UTC'),
    state LowCardinality(String) COMMENT 'pending, delivered or failed',
    attempts UInt32,
    last_error String,
    receiver LowCardinality(String),
    payload String COMMENT 'JSON body',
    updated_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (id, receiver);
