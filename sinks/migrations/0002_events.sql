-- Views of single entries.
CREATE VIEW events
(
    append_time DateTime64(3, 'UTC') COMMENT 'Append time of the broker',
    occurred_at DateTime64(6, 'UTC') COMMENT 'Time of the event, by the clock of the source',
    event_type LowCardinality(String) COMMENT 'request.*, grant.*, session.*, or the pipeline''s own',
    outcome LowCardinality(String) COMMENT 'success, failure, denied, pending, unknown',
    subject_id String COMMENT 'Holder of the access',
    actor_id String COMMENT 'Principal that caused the event',
    actor_kind LowCardinality(String) COMMENT 'human, service, agent, system, unknown',
    actor_on_behalf_of String COMMENT 'The person, where the actor is an agent or impersonates somebody',
    resource_kind LowCardinality(String) COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment LowCardinality(String) COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    grant_id String COMMENT 'Grant of the event',
    request_id String COMMENT 'Request of the event',
    session_id String COMMENT 'Session of the event',
    approvals Array(Tuple(reviewer String, group String, decision String, at Nullable(DateTime64(6, 'UTC')), reason String, forced Bool)) COMMENT 'All decisions known at this event',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of the access',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End of the access',
    expiry_source LowCardinality(String) COMMENT 'native, derived, policy, unknown',
    removal_evidence LowCardinality(String) COMMENT 'none, deadline, api_accepted, confirmed',
    reason String COMMENT 'Reason',
    ticket String COMMENT 'Ticket or incident',
    customer String COMMENT 'Customer on whose data support staff worked',
    error String COMMENT 'Error that the tool reported',
    client_ip String COMMENT 'Address of the client',
    command String COMMENT 'Command',
    args Array(String) COMMENT 'Arguments of the command',
    query String COMMENT 'Query',
    exit_code Nullable(Int64) COMMENT 'Exit code of the command',
    finding_rule LowCardinality(String) COMMENT 'Rule of the finding, on events of the pipeline',
    source_system LowCardinality(String) COMMENT 'The tool',
    source_instance LowCardinality(String) COMMENT 'Installation of the tool',
    native_type LowCardinality(String) COMMENT 'The tool''s own name for the event',
    native_id String COMMENT 'The tool''s own id of its record',
    tenant LowCardinality(String) COMMENT 'Tenant',
    signature LowCardinality(String) COMMENT 'valid; missing or invalid: not believed; unregistered: the source need not sign',
    event_id String COMMENT 'uuid5 of the source record',
    raw String COMMENT 'The tool''s own record, unchanged',
    origin LowCardinality(String) COMMENT 'Log of the entry',
    `index` UInt64 COMMENT 'Position in that log',
    sealed_at DateTime64(6, 'UTC') COMMENT 'When the sealer signed the batch'
)
AS SELECT
    append_time, occurred_at, event_type, outcome, subject_id, actor_id, actor_kind, actor_on_behalf_of, resource_kind, resource_id,
    resource_environment, entitlement, grant_id, request_id, session_id, approvals, starts_at, expires_at, expiry_source,
    removal_evidence, reason, ticket, customer, error, client_ip, command, args, query, exit_code, finding_rule,
    source_system, source_instance, native_type, native_id, tenant, signature, event_id, raw, origin, `index`, sealed_at
FROM entries
WHERE decode_error = '' AND event_type != 'query.executed'
COMMENT 'Every decoded event except executed queries, with its place in the ledger';

CREATE VIEW rejected_events
(
    append_time DateTime64(3, 'UTC') COMMENT 'Append time of the broker',
    origin LowCardinality(String) COMMENT 'Log of the entry',
    `index` UInt64 COMMENT 'Position in that log',
    `offset` UInt64 COMMENT 'Kafka offset in the input partition',
    code String COMMENT 'Stable error code',
    decode_error String COMMENT 'Code and detail',
    key Nullable(String) COMMENT 'Kafka key, unchanged',
    value_bytes UInt64 COMMENT 'Size of the value',
    value Nullable(String) COMMENT 'The value, unchanged'
)
AS SELECT
    append_time, origin, `index`, `offset`, splitByChar(':', decode_error)[1] AS code, decode_error, key,
    toUInt64(ifNull(length(value), 0)) AS value_bytes, value
FROM entries
WHERE decode_error != '' AND erased_at IS NULL
COMMENT 'Records that are not valid events: sealed and kept like all others';

CREATE VIEW checkpoints
(
    origin LowCardinality(String) COMMENT 'Name of the log',
    size UInt64 COMMENT 'Number of entries that the checkpoint covers',
    root String COMMENT 'Merkle root over them, base64',
    sealed_at DateTime64(6, 'UTC') COMMENT 'When it was signed, by the clock of the sealer',
    note String COMMENT 'The signed note (C2SP tlog-checkpoint)'
)
AS SELECT origin, `index` + 1 AS size, splitByChar('\n', note)[3] AS root, sealed_at, note
FROM entries
WHERE note != ''
COMMENT 'Every signed checkpoint';
