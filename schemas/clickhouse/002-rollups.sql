-- Edges per minute. One row per side, so that a merged count can take the larger of the two.
-- src_ip and dst_ip are kept only where no workload is known, :: otherwise.
CREATE TABLE IF NOT EXISTS edges_1m
(
    time DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    src_identity UInt64 CODEC(ZSTD(1)),
    dst_identity UInt64 CODEC(ZSTD(1)),
    src_ip IPv6 CODEC(ZSTD(1)),
    dst_ip IPv6 CODEC(ZSTD(1)),
    dst_port UInt16 CODEC(ZSTD(1)),
    protocol UInt8 CODEC(ZSTD(1)),
    verdict Enum8('unexplained' = 0, 'allowed' = 1, 'denied' = 2) CODEC(ZSTD(1)),
    reason Enum8('rule' = 0, 'no-rule' = 1, 'port-not-covered' = 2, 'unknown-source' = 3, 'unknown-destination' = 4, 'outside-scope' = 5) CODEC(ZSTD(1)),
    rule UInt64 CODEC(ZSTD(1)),
    side Enum8('source' = 0, 'destination' = 1, 'middle' = 2) CODEC(ZSTD(1)),
    flows UInt64 CODEC(ZSTD(1)),
    connections UInt64 CODEC(ZSTD(1)),
    bytes_forward UInt64 CODEC(ZSTD(1)),
    bytes_reverse UInt64 CODEC(ZSTD(1)),
    packets_forward UInt64 CODEC(ZSTD(1)),
    packets_reverse UInt64 CODEC(ZSTD(1)),
    first_seen SimpleAggregateFunction(min, DateTime('UTC')) CODEC(ZSTD(1)),
    last_seen SimpleAggregateFunction(max, DateTime('UTC')) CODEC(ZSTD(1))
)
ENGINE = SummingMergeTree
PARTITION BY toYYYYMMDD(time)
ORDER BY (dst_identity, dst_port, src_identity, time, protocol, src_ip, dst_ip, verdict, reason, rule, side)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;

-- Columns of the source are always written `raw.x`: a bare name would mean the alias of that name.
CREATE MATERIALIZED VIEW IF NOT EXISTS edges_1m_view TO edges_1m AS
SELECT
    toStartOfMinute(raw.time) AS time, raw.src_identity AS src_identity, raw.dst_identity AS dst_identity,
    if(raw.src_workload = 0, raw.src_ip, toIPv6('::')) AS src_ip,
    if(raw.dst_workload = 0, raw.dst_ip, toIPv6('::')) AS dst_ip,
    raw.dst_port AS dst_port, raw.protocol AS protocol, raw.verdict AS verdict, raw.reason AS reason, raw.rule AS rule,
    raw.side AS side,
    count() AS flows, sum(raw.connections) AS connections,
    sum(raw.bytes_forward) AS bytes_forward, sum(raw.bytes_reverse) AS bytes_reverse,
    sum(raw.packets_forward) AS packets_forward, sum(raw.packets_reverse) AS packets_reverse,
    min(raw.time) AS first_seen, max(raw.time) AS last_seen
FROM flows AS raw
GROUP BY ALL;

CREATE TABLE IF NOT EXISTS edges_1h AS edges_1m
ENGINE = SummingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (dst_identity, dst_port, src_identity, time, protocol, src_ip, dst_ip, verdict, reason, rule, side)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS edges_1h_view TO edges_1h AS
SELECT
    toStartOfHour(raw.time) AS time, raw.src_identity AS src_identity, raw.dst_identity AS dst_identity,
    raw.src_ip AS src_ip, raw.dst_ip AS dst_ip, raw.dst_port AS dst_port, raw.protocol AS protocol,
    raw.verdict AS verdict, raw.reason AS reason, raw.rule AS rule, raw.side AS side,
    sum(raw.flows) AS flows, sum(raw.connections) AS connections,
    sum(raw.bytes_forward) AS bytes_forward, sum(raw.bytes_reverse) AS bytes_reverse,
    sum(raw.packets_forward) AS packets_forward, sum(raw.packets_reverse) AS packets_reverse,
    min(raw.first_seen) AS first_seen, max(raw.last_seen) AS last_seen
FROM edges_1m AS raw
GROUP BY ALL;

-- First and last time an edge was seen with a verdict, exact to the second. From the minutes, as these are far fewer rows.
CREATE TABLE IF NOT EXISTS edges_seen
(
    src_identity UInt64,
    dst_identity UInt64,
    src_ip IPv6,
    dst_ip IPv6,
    dst_port UInt16,
    protocol UInt8,
    verdict Enum8('unexplained' = 0, 'allowed' = 1, 'denied' = 2),
    reason SimpleAggregateFunction(anyLast, Enum8('rule' = 0, 'no-rule' = 1, 'port-not-covered' = 2, 'unknown-source' = 3, 'unknown-destination' = 4, 'outside-scope' = 5)),
    first_seen SimpleAggregateFunction(min, DateTime('UTC')),
    last_seen SimpleAggregateFunction(max, DateTime('UTC')),
    first_written SimpleAggregateFunction(min, DateTime64(3, 'UTC')) COMMENT 'When the store first heard of it'
)
ENGINE = AggregatingMergeTree
ORDER BY (dst_identity, dst_port, src_identity, protocol, src_ip, dst_ip, verdict)
SETTINGS non_replicated_deduplication_window = 10000, materialize_ttl_recalculate_only = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS edges_seen_view TO edges_seen AS
SELECT
    raw.src_identity AS src_identity, raw.dst_identity AS dst_identity,
    raw.src_ip AS src_ip, raw.dst_ip AS dst_ip,
    raw.dst_port AS dst_port, raw.protocol AS protocol, raw.verdict AS verdict,
    anyLast(raw.reason) AS reason, min(raw.first_seen) AS first_seen, max(raw.last_seen) AS last_seen,
    min(now64(3)) AS first_written
FROM edges_1m AS raw
GROUP BY ALL;
