-- only while empty: batches
-- The ledger by quarters of an hour first, in small granules: the begin and the end of a window, and a run of numbers with a
-- hole, are read batch by batch without the rest of the day. As with flows (009), a database that has rows keeps its order,
-- and is right as it is, only slower.
CREATE OR REPLACE TABLE batches_new AS batches
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(received)
PRIMARY KEY (toStartOfFifteenMinutes(received), agent)
ORDER BY (toStartOfFifteenMinutes(received), agent, boot, sequence, bus_offset)
SETTINGS index_granularity = 1024, non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;

CREATE OR REPLACE TABLE batches AS batches_new;

DROP TABLE IF EXISTS batches_new;
