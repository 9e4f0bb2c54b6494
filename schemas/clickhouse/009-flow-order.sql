-- only while empty: flows, flows_relabel, flows_relabel_new
-- With the source port before the time, the reports of one connection are neighbours: those of both ends, and one for each
-- interval that it lasts (docs/decisions/008). A sorting key can't be changed where rows are, so a database that has flows
-- keeps its order; every query is the same in both.
CREATE OR REPLACE TABLE flows_relabel_new AS flows
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(time)
ORDER BY (dst_identity, dst_port, src_identity, src_ip, dst_ip, src_port, time)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;

CREATE OR REPLACE TABLE flows_relabel AS flows_relabel_new;

CREATE OR REPLACE TABLE flows AS flows_relabel_new;

-- Views of a table that was replaced are made again.
DROP VIEW IF EXISTS edges_1m_view;

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

DROP VIEW IF EXISTS naming_1m_view;

CREATE MATERIALIZED VIEW IF NOT EXISTS naming_1m_view TO naming_1m AS
SELECT
    toStartOfMinute(raw.time) AS time, toUInt8(0) AS pending,
    raw.src_provenance AS src_provenance, raw.src_certainty AS src_certainty,
    raw.dst_provenance AS dst_provenance, raw.dst_certainty AS dst_certainty, count() AS flows
FROM flows AS raw
GROUP BY ALL;
