-- The evidence: logs, entries, anchors and receipts. Only the sink writes here, and nothing is ever changed except that
-- an erasure empties a payload.
-- No skip indexes: an index that is built over something else hides rows from some queries, and no check of definitions
-- and rows shows it.
CREATE TABLE entries
(
    origin LowCardinality(String) COMMENT 'Name of the log: deployment/topic/partition/epoch',
    `index` UInt64 COMMENT 'Position in the log, without gaps from 0' CODEC(DoubleDelta, LZ4),
    `offset` UInt64 COMMENT 'Kafka offset in the input partition; may have gaps' CODEC(DoubleDelta, LZ4),
    append_time DateTime64(3, 'UTC') COMMENT 'Append time of the broker (flags bit 0 set), or the timestamp of the sender' CODEC(Delta, ZSTD(1)),
    flags UInt8 COMMENT 'Bit 0: append_time was set by the broker',
    previous_leaf_hash FixedString(32) COMMENT 'Leaf hash of the previous entry, or the genesis hash' CODEC(NONE),
    leaf_hash FixedString(32) COMMENT 'RFC 6962 leaf hash, which is also the chain hash' CODEC(NONE),
    payload_hash FixedString(32) COMMENT 'SHA-256 over key, value and headers' CODEC(NONE),
    key Nullable(String) COMMENT 'Kafka key, unchanged' CODEC(ZSTD(1)),
    value Nullable(String) COMMENT 'Kafka value, unchanged: framing and Avro datum' CODEC(ZSTD(1)),
    headers String COMMENT 'Kafka headers, encoded as in the payload hash' CODEC(ZSTD(1)),
    sealed_at DateTime64(6, 'UTC') COMMENT 'When the sealer signed the batch, by its own clock' CODEC(DoubleDelta, LZ4),
    note String COMMENT 'Signed checkpoint of the log after this entry; on the last row of each batch only' CODEC(ZSTD(1)),
    erased_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the payload was erased for legal reasons; the hashes stay',
    decode_error String COMMENT 'Empty, or why the value is not an event: a code, a colon, the detail' CODEC(ZSTD(1)),

    event_id String COMMENT 'uuid5 of the source record: reading a record twice gives the same id' CODEC(ZSTD(1)),
    event_type LowCardinality(String) COMMENT 'request.*, grant.*, session.*, or the pipeline''s own',
    occurred_at DateTime64(6, 'UTC') COMMENT 'Time of the event, by the clock of the source' CODEC(Delta, ZSTD(1)),
    source_system LowCardinality(String) COMMENT 'The tool: teleport, vault …',
    source_instance LowCardinality(String) COMMENT 'Installation of the tool',
    native_id String COMMENT 'The tool''s own id of its record' CODEC(ZSTD(1)),
    native_type LowCardinality(String) COMMENT 'The tool''s own name for the event',
    source_seq Nullable(Int64) COMMENT 'Sequence number of the sender, so that gaps show',
    source_sender LowCardinality(String) COMMENT 'The process that sends: source_seq is its counter',
    mapping_adapter LowCardinality(String) COMMENT 'Adapter that made the event from the tool''s record',
    mapping_version LowCardinality(String) COMMENT 'Its version',
    grant_source_system LowCardinality(String) COMMENT 'Source that issued grant_id: the tool; empty if the event''s own',
    grant_source_instance LowCardinality(String) COMMENT 'Its installation',
    request_source_system LowCardinality(String) COMMENT 'Source that issued request_id: the tool; empty if the event''s own',
    request_source_instance LowCardinality(String) COMMENT 'Its installation',
    session_source_system LowCardinality(String) COMMENT 'Source that issued session_id: the tool; empty if the event''s own',
    session_source_instance LowCardinality(String) COMMENT 'Its installation',
    tenant LowCardinality(String) COMMENT 'Tenant',
    subject_id String COMMENT 'Holder of the access' CODEC(ZSTD(1)),
    subject_kind LowCardinality(String) COMMENT 'human, service, agent, system, unknown',
    subject_email String COMMENT 'Mail address of the subject, if known' CODEC(ZSTD(1)),
    actor_id String COMMENT 'Principal that caused the event' CODEC(ZSTD(1)),
    actor_kind LowCardinality(String) COMMENT 'human, service, agent, system, unknown',
    actor_on_behalf_of String COMMENT 'The person, where the actor is an agent or impersonates somebody' CODEC(ZSTD(1)),
    resource_kind LowCardinality(String) COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource' CODEC(ZSTD(1)),
    resource_environment LowCardinality(String) COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission' CODEC(ZSTD(1)),
    grant_id String COMMENT 'Grant of the event' CODEC(ZSTD(1)),
    grant_id_kind LowCardinality(String) COMMENT 'native: the tool''s own id; synthesized: derived from its record',
    request_id String COMMENT 'Request of the event' CODEC(ZSTD(1)),
    session_id String COMMENT 'Session of the event' CODEC(ZSTD(1)),
    approvals Array(Tuple(reviewer String, group String, decision String, at Nullable(DateTime64(6, 'UTC')), reason String, forced Bool)) COMMENT 'All decisions known at this event' CODEC(ZSTD(1)),
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of the access' CODEC(ZSTD(1)),
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End of the access' CODEC(ZSTD(1)),
    requested_seconds Nullable(Int64) COMMENT 'Requested duration',
    expiry_source LowCardinality(String) COMMENT 'native, derived, policy, unknown',
    ends_by_itself Nullable(Bool) COMMENT 'Whether the credential stops working at expires_at, whatever anybody does',
    removal_evidence LowCardinality(String) COMMENT 'How certain the removal is: none, deadline, api_accepted, confirmed',
    reason String COMMENT 'Reason that the requester or reviewer gave' CODEC(ZSTD(1)),
    ticket String COMMENT 'Ticket or incident' CODEC(ZSTD(1)),
    customer String COMMENT 'Customer on whose data support staff worked' CODEC(ZSTD(1)),
    outcome LowCardinality(String) COMMENT 'success, failure, denied, pending, unknown',
    error String COMMENT 'Error that the tool reported' CODEC(ZSTD(1)),
    client_ip String COMMENT 'Address of the client' CODEC(ZSTD(1)),
    command String COMMENT 'Command' CODEC(ZSTD(1)),
    args Array(String) COMMENT 'Arguments of the command' CODEC(ZSTD(1)),
    query String COMMENT 'Query' CODEC(ZSTD(1)),
    exit_code Nullable(Int64) COMMENT 'Exit code of the command',
    redacted Bool COMMENT 'Part of the action was removed, by the tool or by redaction',
    truncated Bool COMMENT 'The tool truncated the action',
    query_rows Nullable(Int64) COMMENT 'On query.executed: rows of the answer',
    query_duration_ms Nullable(Int64) COMMENT 'On query.executed: how long it took',
    report_result LowCardinality(String) COMMENT 'On source.report, of records that a way in read: mapped, skipped, failed',
    report_reason String COMMENT 'On source.report: why they were skipped, or failed' CODEC(ZSTD(1)),
    report_records Nullable(Int64) COMMENT 'On source.report: how many; 1 where raw has the record itself',
    registered_source_tenant LowCardinality(String) COMMENT 'On source.registered: the only tenant for which the source may report; empty: every tenant',
    registered_source_removed Nullable(Bool) COMMENT 'On source.registered: whether the source is no longer registered',
    finding_rule LowCardinality(String) COMMENT 'Rule of the finding',
    finding_key String COMMENT 'Object of the finding' CODEC(ZSTD(1)),
    finding_severity LowCardinality(String) COMMENT 'info, warning, critical',
    finding_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline of the finding',
    finding_evidence String COMMENT 'JSON object, for people' CODEC(ZSTD(1)),
    finding_accept_index Nullable(Int64) COMMENT 'On finding.closed of an event_conflict: index of the accepted entry',
    received_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the gateway received the record' CODEC(ZSTD(1)),
    raw String COMMENT 'The tool''s own record, after redaction' CODEC(ZSTD(1)),
    raw_sha256 FixedString(32) COMMENT 'SHA-256 of the tool''s own record' CODEC(ZSTD(1)),
    signature LowCardinality(String) COMMENT 'valid; missing or invalid: not believed; unregistered: the source need not sign; empty: not decoded'
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(sealed_at)
ORDER BY (origin, `index`)
SETTINGS non_replicated_deduplication_window = 10000, min_bytes_for_wide_part = 134217728, merge_selector_base = 10, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1
COMMENT 'The stored ledger: every committed record of every partition, with its place in the chain';

CREATE TABLE origins
(
    origin String COMMENT 'Name of the log',
    topic_id FixedString(16) COMMENT 'Kafka id of the input topic, bound by the genesis hash',
    first_offset UInt64 COMMENT 'First input offset that the log covers',
    previous_size UInt64 COMMENT 'Entries of the previous epoch, 0 in epoch 0',
    previous_root FixedString(32) COMMENT 'Root of the previous epoch, zeros in epoch 0',
    genesis_hash FixedString(32) COMMENT 'Previous leaf hash of entry 0'
)
ENGINE = MergeTree
ORDER BY origin
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'The logs, with the inputs of their genesis hash';

CREATE TABLE anchors
(
    origin String COMMENT 'Name of the anchor log',
    `index` UInt64 COMMENT 'Position in the anchor log, without gaps from 0',
    time DateTime64(3, 'UTC') COMMENT 'Time of the anchor, by the clock of its process',
    bodies Array(String) COMMENT 'Checkpoint body of each log, sorted by origin',
    entry String COMMENT 'Leaf data: GLA1, time, count, root over the bodies',
    frontier String COMMENT 'Complete subtrees of the anchor log after this entry',
    note String COMMENT 'Signed checkpoint of the anchor log after this entry'
)
ENGINE = MergeTree
ORDER BY (origin, `index`)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'One entry per minute over the latest checkpoint of every log';

CREATE TABLE receipts
(
    origin String COMMENT 'Name of the anchor log',
    `index` UInt64 COMMENT 'Index of the anchor',
    target LowCardinality(String) COMMENT 'Anchor target',
    at DateTime64(6, 'UTC') COMMENT 'Time of the answer',
    receipt String COMMENT 'Answer of the target, unchanged',
    error String COMMENT 'Empty if the target accepted the anchor'
)
ENGINE = MergeTree
ORDER BY (origin, `index`, target)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Answers of the anchor targets';
