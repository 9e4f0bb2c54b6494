-- How late each flow was queryable: ages of a batch's flows at observed_to in classes (off by a sixteenth at most), and how
-- many flows are of each. Empty for batches from before.
ALTER TABLE batches
    ADD COLUMN IF NOT EXISTS end_ages Array(UInt32) COMMENT 'How long before observed_to flows ended, ms' CODEC(ZSTD(3)),
    ADD COLUMN IF NOT EXISTS end_flows Array(UInt32) COMMENT 'How many flows are of each of these ages' CODEC(ZSTD(3)),
    COMMENT COLUMN written 'When its flows were queryable: its line is written after them';
