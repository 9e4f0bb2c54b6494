-- What people query: names instead of ids. Ids are looked up in dictionaries, and only those of the columns a query uses.
-- A dictionary follows its table within about ten seconds; update_lag covers inserts that take longer to show.
CREATE OR REPLACE DICTIONARY identities_dict
(
    id UInt64,
    kind String,
    cluster String,
    namespace String,
    name String,
    zone String,
    app String,
    role String,
    env String,
    loc String,
    criticality String,
    label_keys Array(String),
    label_values Array(String)
)
PRIMARY KEY id
SOURCE(CLICKHOUSE(
    USER '{username}' PASSWORD '{password}'
    QUERY 'SELECT id, kind, cluster, namespace, name, zone, app, role, env, loc, lower(label_values[indexOf(label_keys, ''criticality'')]) AS criticality, label_keys, label_values FROM {database}.identities WHERE {condition}'
    UPDATE_FIELD 'updated_at' UPDATE_LAG 60))
LAYOUT(HASHED())
LIFETIME(MIN 1 MAX 3);

CREATE OR REPLACE DICTIONARY workloads_dict
(
    id UInt64,
    name String,
    node String
)
PRIMARY KEY id
SOURCE(CLICKHOUSE(
    USER '{username}' PASSWORD '{password}'
    QUERY 'SELECT id, name, node FROM {database}.workloads WHERE {condition}'
    UPDATE_FIELD 'updated_at' UPDATE_LAG 60))
LAYOUT(HASHED())
LIFETIME(MIN 1 MAX 3);

CREATE OR REPLACE DICTIONARY rules_dict
(
    id UInt64,
    ruleset String,
    name String
)
PRIMARY KEY id
SOURCE(CLICKHOUSE(
    USER '{username}' PASSWORD '{password}'
    QUERY 'SELECT DISTINCT id, ruleset, name FROM {database}.rules'))
LAYOUT(HASHED())
LIFETIME(MIN 1 MAX 3);

-- Every flow as it is known now: what was settled when it was written, days that are being relabelled, and what came early
-- in its newest version.
CREATE OR REPLACE VIEW flows_all AS
SELECT
    time, duration_ms, src_ip, src_port, dst_ip, dst_port, protocol, original_dst_ip, original_dst_port,
    src_workload, dst_workload, src_identity, dst_identity, src_provenance, src_certainty, dst_provenance,
    dst_certainty, side, state, action, action_reason, flags, verdict, reason, rule, policy, bytes_forward,
    bytes_reverse, packets_forward, packets_reverse, connections, dns_name, process, agent, toUInt8(0) AS pending
FROM flows
UNION ALL
SELECT
    time, duration_ms, src_ip, src_port, dst_ip, dst_port, protocol, original_dst_ip, original_dst_port,
    src_workload, dst_workload, src_identity, dst_identity, src_provenance, src_certainty, dst_provenance,
    dst_certainty, side, state, action, action_reason, flags, verdict, reason, rule, policy, bytes_forward,
    bytes_reverse, packets_forward, packets_reverse, connections, dns_name, process, agent, toUInt8(0) AS pending
FROM flows_relabel
UNION ALL
SELECT
    time, duration_ms, src_ip, src_port, dst_ip, dst_port, protocol, original_dst_ip, original_dst_port,
    src_workload, dst_workload, src_identity, dst_identity, src_provenance, src_certainty, dst_provenance,
    dst_certainty, side, state, action, action_reason, flags, verdict, reason, rule, policy, bytes_forward,
    bytes_reverse, packets_forward, packets_reverse, connections, dns_name, process, agent, pending
FROM flows_late FINAL
WHERE sign = 1;

-- direction: who crosses what. 'internal' stays in one cluster (or outside of all), 'cross-cluster' goes from one to another,
-- 'datacentre' joins a cluster with a VM, a host or a range inside, 'leaves-estate' and 'enters-estate' say it.
-- severity: '' unless unexplained.
CREATE OR REPLACE VIEW flows_labeled AS
SELECT
    raw.time AS time,
    raw.duration_ms AS duration_ms,
    if(raw.src_ip BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:255.255.255.255'), substring(toString(raw.src_ip), 8), toString(raw.src_ip)) AS src_ip,
    raw.src_port AS src_port,
    if(raw.dst_ip BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:255.255.255.255'), substring(toString(raw.dst_ip), 8), toString(raw.dst_ip)) AS dst_ip,
    raw.dst_port AS dst_port,
    transform(raw.protocol, [1, 6, 17, 58, 132], ['icmp', 'tcp', 'udp', 'icmpv6', 'sctp'], toString(raw.protocol)) AS protocol,
    if(raw.src_workload = 0, dictGet('identities_dict', 'name', raw.src_identity), dictGet('workloads_dict', 'name', raw.src_workload)) AS src_name,
    dictGet('identities_dict', 'kind', raw.src_identity) AS src_kind,
    dictGet('identities_dict', 'app', raw.src_identity) AS src_app,
    dictGet('identities_dict', 'role', raw.src_identity) AS src_role,
    dictGet('identities_dict', 'env', raw.src_identity) AS src_env,
    dictGet('identities_dict', 'loc', raw.src_identity) AS src_loc,
    dictGet('identities_dict', 'namespace', raw.src_identity) AS src_namespace,
    dictGet('identities_dict', 'cluster', raw.src_identity) AS src_cluster,
    dictGet('identities_dict', 'zone', raw.src_identity) AS src_zone,
    mapFromArrays(dictGet('identities_dict', 'label_keys', raw.src_identity), dictGet('identities_dict', 'label_values', raw.src_identity)) AS src_labels,
    if(raw.dst_workload = 0, dictGet('identities_dict', 'name', raw.dst_identity), dictGet('workloads_dict', 'name', raw.dst_workload)) AS dst_name,
    dictGet('identities_dict', 'kind', raw.dst_identity) AS dst_kind,
    dictGet('identities_dict', 'app', raw.dst_identity) AS dst_app,
    dictGet('identities_dict', 'role', raw.dst_identity) AS dst_role,
    dictGet('identities_dict', 'env', raw.dst_identity) AS dst_env,
    dictGet('identities_dict', 'loc', raw.dst_identity) AS dst_loc,
    dictGet('identities_dict', 'namespace', raw.dst_identity) AS dst_namespace,
    dictGet('identities_dict', 'cluster', raw.dst_identity) AS dst_cluster,
    dictGet('identities_dict', 'zone', raw.dst_identity) AS dst_zone,
    mapFromArrays(dictGet('identities_dict', 'label_keys', raw.dst_identity), dictGet('identities_dict', 'label_values', raw.dst_identity)) AS dst_labels,
    multiIf(
        dst_zone = 'outside', 'leaves-estate',
        src_zone = 'outside', 'enters-estate',
        src_cluster = dst_cluster, 'internal',
        src_cluster != '' AND dst_cluster != '', 'cross-cluster',
        'datacentre') AS direction,
    multiIf(
        raw.verdict != 'unexplained', '',
        dictGet('identities_dict', 'criticality', raw.dst_identity) = 'critical', 'critical',
        direction = 'leaves-estate', 'high',
        direction != 'internal', 'medium',
        'low') AS severity,
    raw.verdict AS verdict,
    raw.reason AS reason,
    if(raw.rule = 0, '', concat(dictGet('rules_dict', 'ruleset', raw.rule), '/', dictGet('rules_dict', 'name', raw.rule))) AS rule,
    raw.policy AS policy,
    raw.src_provenance AS src_provenance,
    raw.src_certainty AS src_certainty,
    raw.dst_provenance AS dst_provenance,
    raw.dst_certainty AS dst_certainty,
    raw.pending AS pending,
    raw.bytes_forward + raw.bytes_reverse AS bytes,
    raw.packets_forward + raw.packets_reverse AS packets,
    raw.bytes_forward AS bytes_forward,
    raw.bytes_reverse AS bytes_reverse,
    raw.packets_forward AS packets_forward,
    raw.packets_reverse AS packets_reverse,
    raw.connections AS connections,
    raw.side AS side,
    raw.state AS state,
    raw.action AS action,
    raw.action_reason AS action_reason,
    raw.dns_name AS dns_name,
    raw.process AS process,
    raw.agent AS agent,
    if(raw.original_dst_port = 0 AND raw.original_dst_ip = toIPv6('::'), '', if(raw.original_dst_ip BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:255.255.255.255'), substring(toString(raw.original_dst_ip), 8), toString(raw.original_dst_ip))) AS original_dst_ip,
    raw.original_dst_port AS original_dst_port,
    raw.src_workload AS src_workload,
    raw.dst_workload AS dst_workload,
    raw.src_identity AS src_identity,
    raw.dst_identity AS dst_identity,
    raw.rule AS rule_id
FROM flows_all AS raw;

-- Per minute and side: sum the counts of one side, or both ends of a connection count twice. What was taken back, by a
-- repair or with other labels, is left out: FINAL adds up what was not merged yet.
CREATE OR REPLACE VIEW edges_labeled AS
SELECT
    raw.time AS time,
    multiIf(raw.src_ip = toIPv6('::'), '', raw.src_ip BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:255.255.255.255'), substring(toString(raw.src_ip), 8), toString(raw.src_ip)) AS src_ip,
    multiIf(raw.dst_ip = toIPv6('::'), '', raw.dst_ip BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:255.255.255.255'), substring(toString(raw.dst_ip), 8), toString(raw.dst_ip)) AS dst_ip,
    raw.dst_port AS dst_port,
    transform(raw.protocol, [1, 6, 17, 58, 132], ['icmp', 'tcp', 'udp', 'icmpv6', 'sctp'], toString(raw.protocol)) AS protocol,
    dictGet('identities_dict', 'name', raw.src_identity) AS src_name,
    dictGet('identities_dict', 'kind', raw.src_identity) AS src_kind,
    dictGet('identities_dict', 'app', raw.src_identity) AS src_app,
    dictGet('identities_dict', 'role', raw.src_identity) AS src_role,
    dictGet('identities_dict', 'env', raw.src_identity) AS src_env,
    dictGet('identities_dict', 'loc', raw.src_identity) AS src_loc,
    dictGet('identities_dict', 'namespace', raw.src_identity) AS src_namespace,
    dictGet('identities_dict', 'cluster', raw.src_identity) AS src_cluster,
    dictGet('identities_dict', 'zone', raw.src_identity) AS src_zone,
    mapFromArrays(dictGet('identities_dict', 'label_keys', raw.src_identity), dictGet('identities_dict', 'label_values', raw.src_identity)) AS src_labels,
    dictGet('identities_dict', 'name', raw.dst_identity) AS dst_name,
    dictGet('identities_dict', 'kind', raw.dst_identity) AS dst_kind,
    dictGet('identities_dict', 'app', raw.dst_identity) AS dst_app,
    dictGet('identities_dict', 'role', raw.dst_identity) AS dst_role,
    dictGet('identities_dict', 'env', raw.dst_identity) AS dst_env,
    dictGet('identities_dict', 'loc', raw.dst_identity) AS dst_loc,
    dictGet('identities_dict', 'namespace', raw.dst_identity) AS dst_namespace,
    dictGet('identities_dict', 'cluster', raw.dst_identity) AS dst_cluster,
    dictGet('identities_dict', 'zone', raw.dst_identity) AS dst_zone,
    mapFromArrays(dictGet('identities_dict', 'label_keys', raw.dst_identity), dictGet('identities_dict', 'label_values', raw.dst_identity)) AS dst_labels,
    multiIf(
        dst_zone = 'outside', 'leaves-estate',
        src_zone = 'outside', 'enters-estate',
        src_cluster = dst_cluster, 'internal',
        src_cluster != '' AND dst_cluster != '', 'cross-cluster',
        'datacentre') AS direction,
    multiIf(
        raw.verdict != 'unexplained', '',
        dictGet('identities_dict', 'criticality', raw.dst_identity) = 'critical', 'critical',
        direction = 'leaves-estate', 'high',
        direction != 'internal', 'medium',
        'low') AS severity,
    raw.verdict AS verdict,
    raw.reason AS reason,
    if(raw.rule = 0, '', concat(dictGet('rules_dict', 'ruleset', raw.rule), '/', dictGet('rules_dict', 'name', raw.rule))) AS rule,
    raw.side AS side,
    raw.pending AS pending,
    raw.flows AS flows,
    raw.connections AS connections,
    raw.bytes_forward + raw.bytes_reverse AS bytes,
    raw.packets_forward + raw.packets_reverse AS packets,
    raw.bytes_forward AS bytes_forward,
    raw.bytes_reverse AS bytes_reverse,
    raw.packets_forward AS packets_forward,
    raw.packets_reverse AS packets_reverse,
    raw.src_identity AS src_identity,
    raw.dst_identity AS dst_identity,
    raw.rule AS rule_id
FROM edges_1m AS raw FINAL
WHERE raw.flows != 0;

CREATE OR REPLACE VIEW identities_current AS
SELECT * FROM identities FINAL;

-- Intervals that last now; all of them, with their ends, are in workloads FINAL.
CREATE OR REPLACE VIEW workloads_current AS
SELECT
    raw.id AS id, raw.kind AS kind, raw.cluster AS cluster, raw.namespace AS namespace, raw.name AS name, raw.node AS node,
    raw.uid AS uid, raw.identity AS identity, raw.network AS network,
    if(raw.ip BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:255.255.255.255'), substring(toString(raw.ip), 8), toString(raw.ip)) AS ip,
    raw.valid_from AS valid_from, raw.valid_to AS valid_to, raw.updated_at AS updated_at
FROM workloads AS raw FINAL
WHERE raw.valid_from <= now64(3) AND raw.valid_to > now64(3);

-- One row per unexplained edge since the rollup per hour began. Sides are merged by the larger sum, which is exact where
-- either side reported everything; sides names those that did. pending: 1 where all of it was named before the inventory
-- was complete.
CREATE OR REPLACE VIEW unknown_connections AS
SELECT
    raw.first_seen AS first_seen,
    raw.last_seen AS last_seen,
    multiIf(raw.src_ip = toIPv6('::'), '', raw.src_ip BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:255.255.255.255'), substring(toString(raw.src_ip), 8), toString(raw.src_ip)) AS src_ip,
    multiIf(raw.dst_ip = toIPv6('::'), '', raw.dst_ip BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:255.255.255.255'), substring(toString(raw.dst_ip), 8), toString(raw.dst_ip)) AS dst_ip,
    raw.dst_port AS dst_port,
    transform(raw.protocol, [1, 6, 17, 58, 132], ['icmp', 'tcp', 'udp', 'icmpv6', 'sctp'], toString(raw.protocol)) AS protocol,
    dictGet('identities_dict', 'name', raw.src_identity) AS src_name,
    dictGet('identities_dict', 'kind', raw.src_identity) AS src_kind,
    dictGet('identities_dict', 'app', raw.src_identity) AS src_app,
    dictGet('identities_dict', 'role', raw.src_identity) AS src_role,
    dictGet('identities_dict', 'env', raw.src_identity) AS src_env,
    dictGet('identities_dict', 'loc', raw.src_identity) AS src_loc,
    dictGet('identities_dict', 'namespace', raw.src_identity) AS src_namespace,
    dictGet('identities_dict', 'cluster', raw.src_identity) AS src_cluster,
    dictGet('identities_dict', 'zone', raw.src_identity) AS src_zone,
    mapFromArrays(dictGet('identities_dict', 'label_keys', raw.src_identity), dictGet('identities_dict', 'label_values', raw.src_identity)) AS src_labels,
    dictGet('identities_dict', 'name', raw.dst_identity) AS dst_name,
    dictGet('identities_dict', 'kind', raw.dst_identity) AS dst_kind,
    dictGet('identities_dict', 'app', raw.dst_identity) AS dst_app,
    dictGet('identities_dict', 'role', raw.dst_identity) AS dst_role,
    dictGet('identities_dict', 'env', raw.dst_identity) AS dst_env,
    dictGet('identities_dict', 'loc', raw.dst_identity) AS dst_loc,
    dictGet('identities_dict', 'namespace', raw.dst_identity) AS dst_namespace,
    dictGet('identities_dict', 'cluster', raw.dst_identity) AS dst_cluster,
    dictGet('identities_dict', 'zone', raw.dst_identity) AS dst_zone,
    mapFromArrays(dictGet('identities_dict', 'label_keys', raw.dst_identity), dictGet('identities_dict', 'label_values', raw.dst_identity)) AS dst_labels,
    multiIf(
        dst_zone = 'outside', 'leaves-estate',
        src_zone = 'outside', 'enters-estate',
        src_cluster = dst_cluster, 'internal',
        src_cluster != '' AND dst_cluster != '', 'cross-cluster',
        'datacentre') AS direction,
    multiIf(
        raw.verdict != 'unexplained', '',
        dictGet('identities_dict', 'criticality', raw.dst_identity) = 'critical', 'critical',
        direction = 'leaves-estate', 'high',
        direction != 'internal', 'medium',
        'low') AS severity,
    raw.reason AS reason,
    raw.pending AS pending,
    counts.sides AS sides,
    counts.connections AS connections,
    counts.bytes AS bytes,
    counts.packets AS packets,
    raw.src_identity AS src_identity,
    raw.dst_identity AS dst_identity
FROM
(
    SELECT
        src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, min(known.open) AS pending,
        argMin(known.last_reason, known.open) AS reason, min(known.first) AS first_seen, max(known.last) AS last_seen
    FROM
    (
        SELECT
            src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, seen.pending AS open,
            anyLast(seen.reason) AS last_reason, min(seen.first_seen) AS first, max(seen.last_seen) AS last
        FROM edges_seen AS seen
        WHERE verdict = 'unexplained'
        GROUP BY src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, open
        HAVING sum(seen.flows) != 0
    ) AS known
    GROUP BY src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict
) AS raw
LEFT JOIN
(
    SELECT
        src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, arraySort(groupArray(toString(sums.side))) AS sides,
        max(sums.connections) AS connections, max(sums.bytes) AS bytes, max(sums.packets) AS packets
    FROM
    (
        SELECT
            src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, side, sum(hours.connections) AS connections,
            sum(hours.bytes_forward + hours.bytes_reverse) AS bytes, sum(hours.packets_forward + hours.packets_reverse) AS packets
        FROM edges_1h AS hours
        WHERE verdict = 'unexplained'
        GROUP BY src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, side
        HAVING sum(hours.flows) != 0
    ) AS sums
    GROUP BY src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol
) AS counts USING (src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol);
