-- The ledger by quarters of an hour: 2,000 agents that report every ten seconds leave 17 million rows a day in `batches`,
-- and 0.2 million here. Every answer says how complete it is from these; only what a window cuts through, and runs of
-- numbers with holes, are read batch by batch (services/query/sql/batches.ts).
CREATE TABLE IF NOT EXISTS batches_15m
(
    slot DateTime('UTC') COMMENT 'Quarter of an hour in which the bus took them' CODEC(Delta(4), LZ4),
    agent LowCardinality(String),
    boot LowCardinality(String),
    cluster LowCardinality(String),
    node LowCardinality(String),
    source_kind LowCardinality(String),
    outcome Enum8('written' = 0, 'resent' = 1, 'dead' = 2),
    cause Enum8('none' = 0, 'undecodable' = 1, 'unknown-schema' = 2, 'too-many-flows' = 3, 'bad-value' = 4, 'time-out-of-range' = 5),
    numbered UInt8 COMMENT 'Whether they have a sequence number',
    batches SimpleAggregateFunction(sum, UInt64) CODEC(Delta(8), LZ4),
    flows SimpleAggregateFunction(sum, UInt64) CODEC(Delta(8), LZ4),
    flows_written SimpleAggregateFunction(sum, UInt64) CODEC(Delta(8), LZ4),
    flows_refused SimpleAggregateFunction(sum, UInt64) CODEC(Delta(8), LZ4),
    source_dropped SimpleAggregateFunction(sum, UInt64) CODEC(Delta(8), LZ4),
    sampling_rate SimpleAggregateFunction(max, UInt32) CODEC(LZ4),
    first_sequence SimpleAggregateFunction(min, UInt64) CODEC(Delta(8), LZ4),
    last_sequence SimpleAggregateFunction(max, UInt64) CODEC(Delta(8), LZ4),
    first_received SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(Delta(8), LZ4),
    last_received SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(Delta(8), LZ4),
    last_observed_to SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(Delta(8), LZ4)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMMDD(slot)
PRIMARY KEY (agent, boot, slot)
ORDER BY (agent, boot, slot, cluster, node, source_kind, outcome, cause, numbered)
SETTINGS index_granularity = 1024, non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS batches_15m_view TO batches_15m AS
SELECT
    toStartOfFifteenMinutes(raw.received) AS slot, raw.agent AS agent, toLowCardinality(raw.boot) AS boot, raw.cluster AS cluster, raw.node AS node,
    raw.source_kind AS source_kind, raw.outcome AS outcome, raw.cause AS cause, toUInt8(raw.sequence > 0) AS numbered,
    count() AS batches, sum(raw.flows) AS flows, sum(raw.flows_written) AS flows_written, sum(raw.flows_refused) AS flows_refused,
    sum(raw.source_dropped) AS source_dropped, max(raw.sampling_rate) AS sampling_rate,
    min(raw.sequence) AS first_sequence, max(raw.sequence) AS last_sequence,
    min(raw.received) AS first_received, max(raw.received) AS last_received, max(raw.observed_to) AS last_observed_to
FROM batches AS raw
GROUP BY ALL;

-- How long after their end flows were queryable, in classes of 1/64: what a quantile over a long window is told from.
CREATE TABLE IF NOT EXISTS delays_15m
(
    slot DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    delay_ms Int64 COMMENT 'Middle of the class' CODEC(ZSTD(1)),
    flows UInt64 CODEC(ZSTD(1))
)
ENGINE = SummingMergeTree
PARTITION BY toYYYYMMDD(slot)
ORDER BY (slot, delay_ms)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS delays_15m_view TO delays_15m AS
WITH
    toUnixTimestamp64Milli(raw.written) - toUnixTimestamp64Milli(raw.observed_to) + each.1 AS exact_ms,
    toUInt64(greatest(exact_ms, 0)) AS ms,
    toUInt8(greatest(toInt32(floor(log2(greatest(ms, 1)))) - 6, 0)) AS bits
SELECT
    toStartOfFifteenMinutes(raw.received) AS slot,
    if(exact_ms < 0, exact_ms, toInt64(bitShiftLeft(bitShiftRight(ms, bits), bits) + bitShiftRight(bitShiftLeft(toUInt64(1), bits), 1))) AS delay_ms,
    sum(each.2) AS flows
FROM batches AS raw
ARRAY JOIN if(empty(raw.end_ages), [(toUInt32(0), raw.flows_written)], arrayZip(raw.end_ages, raw.end_flows)) AS each
WHERE raw.outcome = 'written'
GROUP BY ALL;

-- From when on the rollups hold every batch: what was there before them is read batch by batch for as long as it is kept.
CREATE TABLE IF NOT EXISTS batches_15m_from
(
    complete_from DateTime('UTC')
)
ENGINE = MergeTree
ORDER BY tuple();

INSERT INTO batches_15m_from
SELECT toStartOfFifteenMinutes(max(received)) + toIntervalMinute(15) FROM batches HAVING count() > 0;
