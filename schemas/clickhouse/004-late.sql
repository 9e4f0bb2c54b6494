-- Flows that were written before the inventory was known to be complete for their time, and what became of them.
-- A row is never changed: its repair adds a row that cancels it (sign -1, the version it had) and its successor (sign 1,
-- a higher version, pending 0), both in one insert. All columns of `flows`, then what naming a row again needs.
-- time, the same in every version, is in the sorting key so that FINAL leaves out whole days and parts.
CREATE TABLE IF NOT EXISTS flows_late
(
    time DateTime('UTC') COMMENT 'Begin of what the flow reports; the same in every version of a row' CODEC(DoubleDelta, ZSTD(1)),
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
    agent LowCardinality(String) COMMENT 'Who reported it' CODEC(ZSTD(1)),
    start_ms DateTime64(3, 'UTC') COMMENT 'Begin by the clock of the server' CODEC(DoubleDelta, ZSTD(1)),
    tolerance_ms UInt32 COMMENT 'How far that clock may be off' CODEC(ZSTD(1)),
    network LowCardinality(String) COMMENT 'Network of the reporter' CODEC(ZSTD(1)),
    src_hint String COMMENT 'Uid of the workload as the reporter saw it, or empty' CODEC(ZSTD(1)),
    dst_hint String CODEC(ZSTD(1)),
    bus_partition UInt32 CODEC(ZSTD(1)),
    block UInt64 COMMENT 'First offset of the block that it came in' CODEC(Delta(8), ZSTD(1)),
    row UInt32 COMMENT 'Index in that block' CODEC(Delta(4), ZSTD(1)),
    pass UInt32 COMMENT '1: as it was written first; else the number of the repair within the partition' CODEC(ZSTD(1)),
    version UInt32 COMMENT 'From 1' CODEC(ZSTD(1)),
    sign Int8 COMMENT '1, or -1 to cancel the row of this version' CODEC(ZSTD(1)),
    pending UInt8 COMMENT '1 until it is repaired' CODEC(ZSTD(1)),
    written DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1)),
    INDEX written_index written TYPE minmax GRANULARITY 1
)
ENGINE = VersionedCollapsingMergeTree(sign, version)
PARTITION BY toYYYYMMDD(time)
PRIMARY KEY (bus_partition, block, row)
ORDER BY (bus_partition, block, row, time)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;

-- What becomes of late rows is decided here first, by one insert under one token: late rows of a block, or that it has none
-- (row 4294967295), and repairs. Only what is read back goes to `flows_late`: of two enrichers at the same work both then
-- write the same, and it makes no difference which one's rows a rollup takes. Without partitions, so that an insert is
-- one part and all of it wins or loses.
CREATE TABLE IF NOT EXISTS late_changes AS flows_late
ENGINE = MergeTree
PARTITION BY tuple()
PRIMARY KEY (bus_partition, pass, block)
ORDER BY (bus_partition, pass, block, row)
TTL toDateTime(written) + INTERVAL 2 DAY
SETTINGS non_replicated_deduplication_window = 100000;

-- Rollups keep what is pending apart: its repair takes exactly that away again. Sums of unsigned columns wrap around, so a
-- cancelling row adds 2^64 - x. A group whose flows sum to 0 is no more: every reader leaves it out.
ALTER TABLE edges_1m
    ADD COLUMN IF NOT EXISTS pending UInt8 COMMENT '1: named before the inventory was complete' CODEC(ZSTD(1)) AFTER side,
    MODIFY ORDER BY (dst_identity, dst_port, src_identity, time, protocol, src_ip, dst_ip, verdict, reason, rule, side, pending);

ALTER TABLE edges_1h
    ADD COLUMN IF NOT EXISTS pending UInt8 COMMENT '1: named before the inventory was complete' CODEC(ZSTD(1)) AFTER side,
    MODIFY ORDER BY (dst_identity, dst_port, src_identity, time, protocol, src_ip, dst_ip, verdict, reason, rule, side, pending);

-- Rows from before stand for one flow or more: 1 keeps them in answers.
ALTER TABLE edges_seen
    ADD COLUMN IF NOT EXISTS pending UInt8 COMMENT '1: named before the inventory was complete' AFTER verdict,
    ADD COLUMN IF NOT EXISTS flows SimpleAggregateFunction(sum, UInt64) DEFAULT 1 COMMENT '0: cancelled' AFTER reason,
    MODIFY ORDER BY (dst_identity, dst_port, src_identity, protocol, src_ip, dst_ip, verdict, pending);

-- edges_1m_view stays: what it leaves out, pending, is 0. Since MODIFY QUERY a view has another token than after the next
-- start of the server, which would count repeated blocks twice; renamed there and back it has the lasting one, and
-- neither misses a row nor takes one twice. (The first RENAME is for a migration that was interrupted.)
RENAME TABLE IF EXISTS edges_1h_view_renamed TO edges_1h_view;

ALTER TABLE edges_1h_view MODIFY QUERY
SELECT
    toStartOfHour(raw.time) AS time, raw.src_identity AS src_identity, raw.dst_identity AS dst_identity,
    raw.src_ip AS src_ip, raw.dst_ip AS dst_ip, raw.dst_port AS dst_port, raw.protocol AS protocol,
    raw.verdict AS verdict, raw.reason AS reason, raw.rule AS rule, raw.side AS side, raw.pending AS pending,
    sum(raw.flows) AS flows, sum(raw.connections) AS connections,
    sum(raw.bytes_forward) AS bytes_forward, sum(raw.bytes_reverse) AS bytes_reverse,
    sum(raw.packets_forward) AS packets_forward, sum(raw.packets_reverse) AS packets_reverse,
    min(raw.first_seen) AS first_seen, max(raw.last_seen) AS last_seen
FROM edges_1m AS raw
GROUP BY ALL;

RENAME TABLE edges_1h_view TO edges_1h_view_renamed;

RENAME TABLE edges_1h_view_renamed TO edges_1h_view;

RENAME TABLE IF EXISTS edges_seen_view_renamed TO edges_seen_view;

ALTER TABLE edges_seen_view MODIFY QUERY
SELECT
    raw.src_identity AS src_identity, raw.dst_identity AS dst_identity,
    raw.src_ip AS src_ip, raw.dst_ip AS dst_ip,
    raw.dst_port AS dst_port, raw.protocol AS protocol, raw.verdict AS verdict, raw.pending AS pending,
    anyLast(raw.reason) AS reason, sum(raw.flows) AS flows, min(raw.first_seen) AS first_seen, max(raw.last_seen) AS last_seen,
    min(now64(3)) AS first_written
FROM edges_1m AS raw
GROUP BY ALL;

RENAME TABLE edges_seen_view TO edges_seen_view_renamed;

RENAME TABLE edges_seen_view_renamed TO edges_seen_view;

CREATE MATERIALIZED VIEW IF NOT EXISTS edges_1m_late_view TO edges_1m AS
SELECT
    toStartOfMinute(raw.time) AS time, raw.src_identity AS src_identity, raw.dst_identity AS dst_identity,
    if(raw.src_workload = 0, raw.src_ip, toIPv6('::')) AS src_ip,
    if(raw.dst_workload = 0, raw.dst_ip, toIPv6('::')) AS dst_ip,
    raw.dst_port AS dst_port, raw.protocol AS protocol, raw.verdict AS verdict, raw.reason AS reason, raw.rule AS rule,
    raw.side AS side, raw.pending AS pending,
    toUInt64(sum(raw.sign)) AS flows, toUInt64(sum(raw.sign * raw.connections)) AS connections,
    toUInt64(sum(raw.sign * raw.bytes_forward)) AS bytes_forward, toUInt64(sum(raw.sign * raw.bytes_reverse)) AS bytes_reverse,
    toUInt64(sum(raw.sign * raw.packets_forward)) AS packets_forward, toUInt64(sum(raw.sign * raw.packets_reverse)) AS packets_reverse,
    min(raw.time) AS first_seen, max(raw.time) AS last_seen
FROM flows_late AS raw
GROUP BY ALL;

-- How flows were named, per minute: what the ledger says of certainty, without reading the flows.
CREATE TABLE IF NOT EXISTS naming_1m
(
    time DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    pending UInt8 CODEC(ZSTD(1)),
    src_provenance Enum8('none' = 0, 'pod' = 1, 'host' = 2, 'service' = 3, 'node' = 4, 'range' = 5, 'name' = 6) CODEC(ZSTD(1)),
    src_certainty Enum8('none' = 0, 'exact' = 1, 'grace' = 2, 'late' = 3, 'ambiguous' = 4) CODEC(ZSTD(1)),
    dst_provenance Enum8('none' = 0, 'pod' = 1, 'host' = 2, 'service' = 3, 'node' = 4, 'range' = 5, 'name' = 6) CODEC(ZSTD(1)),
    dst_certainty Enum8('none' = 0, 'exact' = 1, 'grace' = 2, 'late' = 3, 'ambiguous' = 4) CODEC(ZSTD(1)),
    flows UInt64 CODEC(ZSTD(1))
)
ENGINE = SummingMergeTree
PARTITION BY toYYYYMMDD(time)
ORDER BY (time, pending, src_provenance, src_certainty, dst_provenance, dst_certainty)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS naming_1m_view TO naming_1m AS
SELECT
    toStartOfMinute(raw.time) AS time, toUInt8(0) AS pending,
    raw.src_provenance AS src_provenance, raw.src_certainty AS src_certainty,
    raw.dst_provenance AS dst_provenance, raw.dst_certainty AS dst_certainty, count() AS flows
FROM flows AS raw
GROUP BY ALL;

CREATE MATERIALIZED VIEW IF NOT EXISTS naming_1m_late_view TO naming_1m AS
SELECT
    toStartOfMinute(raw.time) AS time, raw.pending AS pending,
    raw.src_provenance AS src_provenance, raw.src_certainty AS src_certainty,
    raw.dst_provenance AS dst_provenance, raw.dst_certainty AS dst_certainty, toUInt64(sum(raw.sign)) AS flows
FROM flows_late AS raw
GROUP BY ALL;

-- How far each source of inventory vouches for itself, as the enrichers have heard; the newest row of a source counts.
CREATE TABLE IF NOT EXISTS inventory_sources
(
    source String,
    complete_to DateTime64(3, 'UTC') COMMENT 'Every change that took effect until then is known',
    updated_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY source;

-- Who had an address is asked by the address alone.
ALTER TABLE workloads ADD INDEX IF NOT EXISTS ip_index ip TYPE bloom_filter(0.01) GRANULARITY 1;

ALTER TABLE workloads MATERIALIZE INDEX ip_index;

-- Named ranges as they are now; the newest row of a network and CIDR counts.
CREATE TABLE IF NOT EXISTS ranges
(
    network LowCardinality(String),
    first IPv6 COMMENT 'First address of the CIDR; IPv4 is mapped',
    prefix UInt8 COMMENT 'Of 128 bits: 96 more than an IPv4 prefix says',
    last IPv6,
    name String,
    zone LowCardinality(String) COMMENT 'inside or outside of the estate',
    identity UInt64,
    removed UInt8 DEFAULT 0,
    updated_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (network, first, prefix);
