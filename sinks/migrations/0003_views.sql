CREATE VIEW events
(
    append_time DateTime64(3, 'UTC') COMMENT 'When the broker took the record',
    occurred_at DateTime64(6, 'UTC') COMMENT 'When it happened by the clock of the source',
    event_type LowCardinality(String) COMMENT 'request.*, grant.*, session.*, or the pipeline''s own',
    outcome LowCardinality(String) COMMENT 'success, failure, denied, pending, unknown',
    subject_id String COMMENT 'Who holds the access',
    actor_id String COMMENT 'Who caused this event',
    actor_kind LowCardinality(String) COMMENT 'human, service, agent, system, unknown',
    resource_kind LowCardinality(String) COMMENT 'database, host, role …',
    resource_id String COMMENT 'What is accessed',
    resource_environment LowCardinality(String) COMMENT 'production, staging …, where known',
    entitlement String COMMENT 'The role or permission',
    grant_id String COMMENT 'The grant this event belongs to',
    request_id String COMMENT 'The request this event belongs to',
    session_id String COMMENT 'The session this event belongs to',
    approvals Array(Tuple(reviewer String, group String, decision String, at Nullable(DateTime64(6, 'UTC')), reason String, forced Bool)) COMMENT 'Every decision known at this event',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the access begins',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the access must have ended',
    expiry_source LowCardinality(String) COMMENT 'native, derived, policy, unknown',
    removal_evidence LowCardinality(String) COMMENT 'none, deadline, api_accepted, confirmed',
    reason String COMMENT 'Why',
    ticket String COMMENT 'Ticket or incident',
    error String COMMENT 'What the tool said went wrong',
    client_ip String COMMENT 'Address of the client',
    command String COMMENT 'Command of session.command',
    args Array(String) COMMENT 'Its arguments',
    query String COMMENT 'Statement of session.query',
    exit_code Nullable(Int64) COMMENT 'Exit code of the command',
    source_system LowCardinality(String) COMMENT 'The tool',
    source_instance LowCardinality(String) COMMENT 'Which installation of the tool',
    native_type LowCardinality(String) COMMENT 'The tool''s own name of the event',
    native_id String COMMENT 'The tool''s own id of its record',
    tenant LowCardinality(String) COMMENT 'Tenant',
    event_id String COMMENT 'uuid5 of the source record',
    raw String COMMENT 'The tool''s own record as it came',
    origin LowCardinality(String) COMMENT 'Log that holds the entry',
    `index` UInt64 COMMENT 'Its position there',
    sealed_at DateTime64(6, 'UTC') COMMENT 'When the sealer signed the batch'
)
AS SELECT
    append_time, occurred_at, event_type, outcome, subject_id, actor_id, actor_kind, resource_kind, resource_id,
    resource_environment, entitlement, grant_id, request_id, session_id, approvals, starts_at, expires_at, expiry_source,
    removal_evidence, reason, ticket, error, client_ip, command, args, query, exit_code, source_system, source_instance,
    native_type, native_id, tenant, event_id, raw, origin, `index`, sealed_at
FROM entries
WHERE decode_error = ''
COMMENT 'Every event that could be read, with its place in the ledger';

CREATE VIEW rejected_events
(
    append_time DateTime64(3, 'UTC') COMMENT 'When the broker took the record',
    origin LowCardinality(String) COMMENT 'Log that holds the entry',
    `index` UInt64 COMMENT 'Its position there',
    `offset` UInt64 COMMENT 'Kafka offset in the input partition',
    code String COMMENT 'Short stable word for what is wrong',
    decode_error String COMMENT 'What is wrong, in full',
    key Nullable(String) COMMENT 'Kafka key as it came',
    value_bytes UInt64 COMMENT 'Size of the value',
    value Nullable(String) COMMENT 'The value as it came'
)
AS SELECT
    append_time, origin, `index`, `offset`, splitByChar(':', decode_error)[1] AS code, decode_error, key,
    toUInt64(ifNull(length(value), 0)) AS value_bytes, value
FROM entries
WHERE decode_error != ''
COMMENT 'Records that are no events: sealed and kept like all others';

CREATE VIEW checkpoints
(
    origin LowCardinality(String) COMMENT 'Name of the log',
    size UInt64 COMMENT 'Entries that the checkpoint covers',
    root String COMMENT 'Merkle root over them, base64',
    sealed_at DateTime64(6, 'UTC') COMMENT 'When it was signed, by the sealer''s clock',
    note String COMMENT 'The signed note (C2SP tlog-checkpoint)'
)
AS SELECT origin, `index` + 1 AS size, splitByChar('\n', note)[3] AS root, sealed_at, note
FROM entries
WHERE note != ''
COMMENT 'Every signed checkpoint';

CREATE VIEW grant_timeline
(
    grant_id String COMMENT 'The grant; filter on it',
    append_time DateTime64(3, 'UTC') COMMENT 'When the broker took the record',
    occurred_at DateTime64(6, 'UTC') COMMENT 'When it happened by the clock of the source',
    event_type LowCardinality(String) COMMENT 'What happened',
    outcome LowCardinality(String) COMMENT 'success, failure, denied, pending, unknown',
    actor_id String COMMENT 'Who did it',
    subject_id String COMMENT 'Who holds the access',
    resource_id String COMMENT 'What is accessed',
    entitlement String COMMENT 'The role or permission',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the access must have ended',
    removal_evidence LowCardinality(String) COMMENT 'How sure it is that the access is gone',
    what String COMMENT 'Command, statement or reason',
    request_id String COMMENT 'The request',
    session_id String COMMENT 'The session',
    origin LowCardinality(String) COMMENT 'Log that holds the entry',
    `index` UInt64 COMMENT 'Its position there'
)
AS SELECT
    grant_id, append_time, occurred_at, event_type, outcome, actor_id, subject_id, resource_id, entitlement, expires_at,
    removal_evidence, multiIf(command != '', trim(concat(command, ' ', arrayStringConcat(args, ' '))), query != '', query, reason) AS what,
    request_id, session_id, origin, `index`
FROM entries
WHERE decode_error = '' AND grant_id != ''
UNION ALL
SELECT
    link.linked_grant AS grant_id, append_time, occurred_at, event_type, outcome, actor_id, subject_id, resource_id,
    entitlement, expires_at, removal_evidence,
    multiIf(command != '', trim(concat(command, ' ', arrayStringConcat(args, ' '))), query != '', query, reason) AS what,
    request_id, session_id, origin, `index`
FROM
(
    SELECT *, arrayJoin(arrayFilter(id -> id != ('', ''), [('request', request_id), ('session', session_id)])) AS linked
    FROM entries
    WHERE decode_error = '' AND grant_id = '' AND (request_id != '' OR session_id != '')
) AS event
INNER JOIN
(
    SELECT DISTINCT grant_id AS linked_grant, arrayJoin([('request', request_id), ('session', session_id)]) AS linked
    FROM entries
    WHERE decode_error = '' AND grant_id != ''
) AS link USING linked
WHERE linked.2 != ''
COMMENT 'All events of a grant: its own, those of its request, those of its sessions';

CREATE TABLE grants
(
    grant_id String COMMENT 'The grant',
    last AggregateFunction(argMax, Tuple(event_type String, at DateTime64(6, 'UTC'), tenant String, subject_id String, resource_kind String, resource_id String, resource_environment String, entitlement String, request_id String, removal_evidence String, source_system String), Tuple(DateTime64(6, 'UTC'), UInt64)) COMMENT 'Latest grant event',
    deadline AggregateFunction(argMax, Tuple(expires_at Nullable(DateTime64(6, 'UTC')), expiry_source String, activated_at DateTime64(6, 'UTC'), reason String, ticket String), Tuple(DateTime64(6, 'UTC'), UInt64)) COMMENT 'Latest activation or extension',
    granted UInt8 COMMENT '1 where the row comes from an activation or extension'
)
ENGINE = AggregatingMergeTree
ORDER BY (grant_id, granted)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'State of every grant, derived from entries and rebuildable from them';

CREATE MATERIALIZED VIEW grants_from_entries TO grants
AS SELECT
    grant_id,
    argMaxState(CAST((event_type, occurred_at, tenant, subject_id, resource_kind, resource_id, resource_environment, entitlement, request_id, removal_evidence, source_system), 'Tuple(event_type String, at DateTime64(6, \'UTC\'), tenant String, subject_id String, resource_kind String, resource_id String, resource_environment String, entitlement String, request_id String, removal_evidence String, source_system String)'), (sealed_at, `index`)) AS last,
    argMaxState(CAST((expires_at, expiry_source, occurred_at, reason, ticket), 'Tuple(expires_at Nullable(DateTime64(6, \'UTC\')), expiry_source String, activated_at DateTime64(6, \'UTC\'), reason String, ticket String)'), (sealed_at, `index`)) AS deadline,
    toUInt8(event_type IN ('grant.activated', 'grant.extended')) AS granted
FROM entries
WHERE decode_error = '' AND grant_id != '' AND event_type IN ('grant.activated', 'grant.extended', 'grant.revoked', 'grant.expired')
GROUP BY grant_id, granted;

CREATE VIEW active_grants
(
    grant_id String COMMENT 'The grant',
    subject_id String COMMENT 'Who holds the access',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'What is accessed',
    resource_environment String COMMENT 'production, staging …, where known',
    entitlement String COMMENT 'The role or permission',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the access must end; null where the tool does not say',
    expiry_source String COMMENT 'native, derived, policy, unknown',
    past_deadline Bool COMMENT 'The deadline has passed and no removal is on record',
    activated_at DateTime64(6, 'UTC') COMMENT 'When it was activated or last extended',
    reason String COMMENT 'Why',
    ticket String COMMENT 'Ticket or incident',
    request_id String COMMENT 'The request',
    source_system String COMMENT 'The tool',
    tenant String COMMENT 'Tenant'
)
AS SELECT
    grant_id, now_.subject_id AS subject_id, now_.resource_kind AS resource_kind, now_.resource_id AS resource_id,
    now_.resource_environment AS resource_environment, now_.entitlement AS entitlement, given.expires_at AS expires_at,
    given.expiry_source AS expiry_source, ifNull(given.expires_at < now64(6), false) AS past_deadline,
    given.activated_at AS activated_at, given.reason AS reason, given.ticket AS ticket, now_.request_id AS request_id,
    now_.source_system AS source_system, now_.tenant AS tenant
FROM
(
    SELECT grant_id, argMaxMerge(last) AS now_, argMaxMergeIf(deadline, granted = 1) AS given
    FROM grants
    GROUP BY grant_id
)
WHERE now_.event_type IN ('grant.activated', 'grant.extended')
COMMENT 'Grants with no removal on record, past their deadline or not';
