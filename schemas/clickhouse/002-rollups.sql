-- Edges per minute. One row per side, so that a merged count can take the larger of the two.
-- src_ip and dst_ip are kept only where no workload is known, :: otherwise.
CREATE TABLE IF NOT EXISTS edges_1m
(
    time DateTime CODEC(Delta(4), ZSTD(3)),
    src_identity UInt64 CODEC(ZSTD(3)),
    dst_identity UInt64 CODEC(ZSTD(3)),
    src_ip IPv6 CODEC(ZSTD(3)),
    dst_ip IPv6 CODEC(ZSTD(3)),
    dst_port UInt16 CODEC(ZSTD(3)),
    protocol UInt8 CODEC(ZSTD(3)),
    verdict Enum8('unexplained' = 0, 'allowed' = 1, 'denied' = 2) CODEC(ZSTD(3)),
    reason Enum8('rule' = 0, 'no-rule' = 1, 'port-not-covered' = 2, 'unknown-source' = 3, 'unknown-destination' = 4, 'outside-scope' = 5) CODEC(ZSTD(3)),
    rule UInt64 CODEC(ZSTD(3)),
    side Enum8('source' = 0, 'destination' = 1, 'middle' = 2) CODEC(ZSTD(3)),
    flows UInt64 CODEC(ZSTD(3)),
    connections UInt64 CODEC(ZSTD(3)),
    bytes_forward UInt64 CODEC(ZSTD(3)),
    bytes_reverse UInt64 CODEC(ZSTD(3)),
    packets_forward UInt64 CODEC(ZSTD(3)),
    packets_reverse UInt64 CODEC(ZSTD(3))
)
ENGINE = SummingMergeTree
PARTITION BY toYYYYMMDD(time)
ORDER BY (dst_identity, dst_port, src_identity, time, protocol, src_ip, dst_ip, verdict, reason, rule, side)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS edges_1m_view TO edges_1m AS
SELECT
    toStartOfMinute(time) AS time, src_identity, dst_identity,
    if(src_workload = 0, src_ip, toIPv6('::')) AS src_ip,
    if(dst_workload = 0, dst_ip, toIPv6('::')) AS dst_ip,
    dst_port, protocol, verdict, reason, rule, side,
    count() AS flows, sum(flows.connections) AS connections,
    sum(flows.bytes_forward) AS bytes_forward, sum(flows.bytes_reverse) AS bytes_reverse,
    sum(flows.packets_forward) AS packets_forward, sum(flows.packets_reverse) AS packets_reverse
FROM flows
GROUP BY time, src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, reason, rule, side;

CREATE TABLE IF NOT EXISTS edges_1h AS edges_1m
ENGINE = SummingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (dst_identity, dst_port, src_identity, time, protocol, src_ip, dst_ip, verdict, reason, rule, side)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS edges_1h_view TO edges_1h AS
SELECT
    toStartOfHour(time) AS time, src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, reason, rule, side,
    sum(edges_1m.flows) AS flows, sum(edges_1m.connections) AS connections,
    sum(edges_1m.bytes_forward) AS bytes_forward, sum(edges_1m.bytes_reverse) AS bytes_reverse,
    sum(edges_1m.packets_forward) AS packets_forward, sum(edges_1m.packets_reverse) AS packets_reverse
FROM edges_1m
GROUP BY time, src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, reason, rule, side;

-- First and last time an edge was seen with a verdict, exact to the second.
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
    first_seen SimpleAggregateFunction(min, DateTime),
    last_seen SimpleAggregateFunction(max, DateTime),
    first_written SimpleAggregateFunction(min, DateTime64(3)) COMMENT 'When the store first heard of it'
)
ENGINE = AggregatingMergeTree
ORDER BY (dst_identity, dst_port, src_identity, protocol, src_ip, dst_ip, verdict)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS edges_seen_view TO edges_seen AS
SELECT
    src_identity, dst_identity,
    if(src_workload = 0, src_ip, toIPv6('::')) AS src_ip,
    if(dst_workload = 0, dst_ip, toIPv6('::')) AS dst_ip,
    dst_port, protocol, verdict,
    anyLast(flows.reason) AS reason, min(flows.time) AS first_seen, max(flows.time) AS last_seen, now64(3) AS first_written
FROM flows
GROUP BY src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict;
