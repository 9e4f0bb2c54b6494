-- Counts are read by every question about edges. Packed by their width they are smaller than with ZSTD(1) and read in half
-- the time (docs/decisions/009). Existing parts are rewritten as they are merged.
ALTER TABLE edges_1m
    MODIFY COLUMN flows UInt64 CODEC(T64, Default),
    MODIFY COLUMN connections UInt64 CODEC(T64, Default),
    MODIFY COLUMN bytes_forward UInt64 CODEC(T64, Default),
    MODIFY COLUMN bytes_reverse UInt64 CODEC(T64, Default),
    MODIFY COLUMN packets_forward UInt64 CODEC(T64, Default),
    MODIFY COLUMN packets_reverse UInt64 CODEC(T64, Default);

ALTER TABLE edges_1h
    MODIFY COLUMN flows UInt64 CODEC(T64, Default),
    MODIFY COLUMN connections UInt64 CODEC(T64, Default),
    MODIFY COLUMN bytes_forward UInt64 CODEC(T64, Default),
    MODIFY COLUMN bytes_reverse UInt64 CODEC(T64, Default),
    MODIFY COLUMN packets_forward UInt64 CODEC(T64, Default),
    MODIFY COLUMN packets_reverse UInt64 CODEC(T64, Default);

ALTER TABLE edges_1m_relabel
    MODIFY COLUMN flows UInt64 CODEC(T64, Default),
    MODIFY COLUMN connections UInt64 CODEC(T64, Default),
    MODIFY COLUMN bytes_forward UInt64 CODEC(T64, Default),
    MODIFY COLUMN bytes_reverse UInt64 CODEC(T64, Default),
    MODIFY COLUMN packets_forward UInt64 CODEC(T64, Default),
    MODIFY COLUMN packets_reverse UInt64 CODEC(T64, Default);

ALTER TABLE edges_1h_relabel
    MODIFY COLUMN flows UInt64 CODEC(T64, Default),
    MODIFY COLUMN connections UInt64 CODEC(T64, Default),
    MODIFY COLUMN bytes_forward UInt64 CODEC(T64, Default),
    MODIFY COLUMN bytes_reverse UInt64 CODEC(T64, Default),
    MODIFY COLUMN packets_forward UInt64 CODEC(T64, Default),
    MODIFY COLUMN packets_reverse UInt64 CODEC(T64, Default);
