-- What `eastwest relabel` works with (docs/relabel.md). A day of `flows` is moved here as a whole, in one step, while its
-- rows get their labels anew; new rows of that day go on arriving in `flows`. `flows_all` reads both. A column that is
-- added to `flows` or to a rollup is to be added to its tables here as well: parts move between tables of one structure.
CREATE TABLE IF NOT EXISTS flows_relabel AS flows;

-- The rows of that day as they will be; nobody reads them before they have replaced the others.
CREATE TABLE IF NOT EXISTS flows_relabel_new AS flows;

-- What is to be added to the rollups, where it becomes part of them by moving: so it does once, and no view sees it.
CREATE TABLE IF NOT EXISTS edges_1m_relabel AS edges_1m;

CREATE TABLE IF NOT EXISTS edges_1h_relabel AS edges_1h;

CREATE TABLE IF NOT EXISTS edges_seen_relabel AS edges_seen;

-- Ends of flows to be named, and their names: from `since` on, until the next one of the same end.
CREATE TABLE IF NOT EXISTS relabel_keys
(
    workload UInt64,
    identity UInt64,
    ip IPv6
)
ENGINE = MergeTree
ORDER BY (workload, identity, ip);

CREATE TABLE IF NOT EXISTS relabel_ends
(
    workload UInt64,
    identity UInt64,
    ip IPv6,
    since DateTime('UTC'),
    new_identity UInt64,
    block UInt16 COMMENT 'Set of address blocks that rules speak of',
    known UInt8 COMMENT '0: nothing is known of it any more, it keeps its labels'
)
ENGINE = MergeTree
ORDER BY (workload, identity, ip, since);

-- Pairs of ends to be judged, and what the policy says of them.
CREATE TABLE IF NOT EXISTS relabel_pairs
(
    src_identity UInt64,
    src_block UInt16,
    dst_identity UInt64,
    dst_block UInt16,
    dst_port UInt16,
    protocol UInt8
)
ENGINE = MergeTree
ORDER BY (src_identity, src_block, dst_identity, dst_block, dst_port, protocol);

CREATE TABLE IF NOT EXISTS relabel_verdicts
(
    src_identity UInt64,
    src_block UInt16,
    dst_identity UInt64,
    dst_block UInt16,
    dst_port UInt16,
    protocol UInt8,
    verdict Enum8('unexplained' = 0, 'allowed' = 1, 'denied' = 2),
    reason Enum8('rule' = 0, 'no-rule' = 1, 'port-not-covered' = 2, 'unknown-source' = 3, 'unknown-destination' = 4, 'outside-scope' = 5),
    rule UInt64,
    judged UInt8
)
ENGINE = MergeTree
ORDER BY (src_identity, src_block, dst_identity, dst_block, dst_port, protocol);

-- Each run and how far it is; the newest row of an id counts. What was begun is finished by the next run.
CREATE TABLE IF NOT EXISTS relabels
(
    id String,
    owner String COMMENT 'Process that works at it',
    since DateTime('UTC') COMMENT 'Flows from then on are relabelled',
    policy UInt32 COMMENT 'Version of the policy they are given',
    day UInt32 COMMENT 'Day it is at, as 20260131; 0 between days',
    step LowCardinality(String) COMMENT 'started, taking, building, built, swapped, rolled; done or failed at the end',
    flows UInt64 COMMENT 'Flows looked at so far',
    changed UInt64 COMMENT 'Flows whose labels or verdict changed',
    detail String COMMENT 'Why it failed',
    started DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY id;
