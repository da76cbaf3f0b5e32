-- Views of single entries.
--
-- An access key identifies a grant, request or session: tenant/system/instance/id, where the source is the one that issued
-- the id, and `/` and `%` in the first three are written as %2F and %25. The issuer is grant_source (request_source,
-- session_source) where the event names one, otherwise the source of the event. One without an instance stands for all
-- installations of the tool. Everything else takes the keys from the view `events`.
--
-- The watch policy maps the other names of an installation to one name, which the views use. `entries` has the names that
-- the events contain.
CREATE VIEW watch_policy
(
    policy String COMMENT 'The policy as JSON; empty if none is on record'
)
AS SELECT argMax(raw, (toUInt32OrZero(splitByChar('/', origin)[-1]), `index`)) AS policy
FROM entries
WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND event_type = 'config.changed'
    AND resource_id = 'watch-policy' AND source_system = 'grantledger-watch'
    AND origin IN (SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] = 'access.findings')
COMMENT 'The watch policy in force';

CREATE VIEW instance_names
(
    system String COMMENT 'The tool',
    name String COMMENT 'Another name of an installation of it',
    instance String COMMENT 'The name that the views use'
)
AS SELECT JSONExtractString(one, 'system') AS system, name, JSONExtractString(one, 'instance') AS instance
FROM (SELECT arrayJoin(JSONExtractArrayRaw(policy, 'installation')) AS one FROM watch_policy)
ARRAY JOIN JSONExtract(one, 'other_names', 'Array(String)') AS name
COMMENT 'Other names of installations, by the watch policy in force';

CREATE VIEW accepted_versions
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    source_system LowCardinality(String) COMMENT 'The tool',
    source_instance LowCardinality(String) COMMENT 'Installation of the tool',
    event_id String COMMENT 'The event with several versions',
    place Tuple(UInt32, UInt64) COMMENT 'Epoch and index in access.lifecycle of the version that a person accepted'
)
AS WITH (SELECT (arrayPushBack(groupArray(concat(system, '\0', name)), '\0'), arrayPushBack(groupArray(instance), '')) FROM instance_names) AS names
SELECT
    tenant, source_system, CAST(transform(concat(entries.source_system, '\0', entries.source_instance), names.1, names.2, toString(entries.source_instance)), 'LowCardinality(String)') AS source_instance, event_id,
    min((toUInt32OrZero(splitByChar('/', origin)[-1]), `index`)) AS place
FROM entries
WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND origin IN (SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] = 'access.lifecycle')
    AND (concat(source_system, '/', source_instance), splitByChar('/', origin)[-2], `index`) IN (
        SELECT
            transform(source.1, (SELECT groupArray(concat(system, '/', name)) FROM instance_names), (SELECT groupArray(concat(system, '/', instance)) FROM instance_names), source.1),
            source.2,
            toUInt64(assumeNotNull(finding_accept_index))
        FROM entries
        -- Where the lifecycle has several partitions, the key ends with the one that the index is in.
        ARRAY JOIN [
            (finding_key, '0'), (replaceRegexpOne(finding_key, '#history$', ''), '0'),
            (replaceRegexpOne(finding_key, '#shard-[0-9]+$', ''), extract(finding_key, '#shard-([0-9]+)$')),
            (replaceRegexpOne(finding_key, '(#history)?#shard-[0-9]+$', ''), extract(finding_key, '#shard-([0-9]+)$'))
        ] AS source
        WHERE finding_accept_index IS NOT NULL AND decode_error = '' AND signature NOT IN ('missing', 'invalid')
            AND event_type = 'finding.closed' AND finding_rule = 'event_conflict'
            AND origin IN (SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] = 'access.findings')
    )
GROUP BY tenant, source_system, source_instance, event_id
COMMENT 'Events that a source sent in several versions, of which a person accepted one with findings close --accept';

CREATE VIEW events
(
    append_time DateTime64(3, 'UTC') COMMENT 'Append time of the broker',
    occurred_at DateTime64(6, 'UTC') COMMENT 'Time of the event, by the clock of the source',
    event_type LowCardinality(String) COMMENT 'request.*, grant.*, session.*, or the pipeline''s own',
    outcome LowCardinality(String) COMMENT 'success, failure, denied, pending, unknown',
    subject_id String COMMENT 'Holder of the access',
    subject_kind LowCardinality(String) COMMENT 'human, service, agent, system, unknown',
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
    ends_by_itself Nullable(Bool) COMMENT 'Whether the credential stops working at expires_at, whatever anybody does',
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
    redacted Bool COMMENT 'Part of the action was removed, by the tool or by redaction',
    finding_rule LowCardinality(String) COMMENT 'Rule of the finding, on events of the pipeline',
    source_system LowCardinality(String) COMMENT 'The tool',
    source_instance LowCardinality(String) COMMENT 'Installation of the tool, by the name in the watch policy if it has several',
    native_type LowCardinality(String) COMMENT 'The tool''s own name for the event',
    native_id String COMMENT 'The tool''s own id of its record',
    tenant LowCardinality(String) COMMENT 'Tenant',
    grant_key String COMMENT 'Access key of the grant: joins with the other views; empty without a grant',
    request_key String COMMENT 'Access key of the request; empty without a request',
    session_key String COMMENT 'Access key of the session; empty without a session',
    grant_source_system LowCardinality(String) COMMENT 'Source that issued grant_id: the tool',
    grant_source_instance LowCardinality(String) COMMENT 'Its installation; empty: any',
    request_source_system LowCardinality(String) COMMENT 'Source that issued request_id: the tool',
    request_source_instance LowCardinality(String) COMMENT 'Its installation; empty: any',
    session_source_system LowCardinality(String) COMMENT 'Source that issued session_id: the tool',
    session_source_instance LowCardinality(String) COMMENT 'Its installation; empty: any',
    signature LowCardinality(String) COMMENT 'valid; missing or invalid: not believed; unregistered: the source need not sign',
    believed Bool COMMENT 'Counts for grants: signed where it must be, and not another version of an event than the accepted one',
    recorded_at DateTime64(6, 'UTC') COMMENT 'Time that judges: append time if the broker set it, otherwise the time of sealing',
    arrived_at DateTime64(6, 'UTC') COMMENT 'When the pipeline received it: recorded_at, or earlier by a gateway whose event is signed',
    epoch UInt32 COMMENT 'Epoch of the log; order is by epoch and index',
    event_id String COMMENT 'uuid5 of the source record',
    raw String COMMENT 'The tool''s own record, after redaction',
    origin LowCardinality(String) COMMENT 'Log of the entry',
    `index` UInt64 COMMENT 'Position in that log',
    sealed_at DateTime64(6, 'UTC') COMMENT 'When the sealer signed the batch'
)
AS SELECT
    append_time, occurred_at, event_type, outcome, subject_id, subject_kind, actor_id, actor_kind, actor_on_behalf_of,
    resource_kind, resource_id, resource_environment, entitlement, grant_id, request_id, session_id, approvals, starts_at,
    expires_at, expiry_source, ends_by_itself, removal_evidence, reason, ticket, customer, error, client_ip, command, args, query,
    exit_code, redacted, finding_rule, source_system, source_instance, native_type, native_id, tenant, grant_key, request_key,
    session_key, grant_system AS grant_source_system, grant_instance AS grant_source_instance,
    request_system AS request_source_system, request_instance AS request_source_instance,
    session_system AS session_source_system, session_instance AS session_source_instance, signature,
    signature NOT IN ('missing', 'invalid') AND NOT arrayExists(
        one -> one.4 = event_id AND one.1 = tenant AND one.2 = source_system AND one.3 = source_instance AND one.5 != (epoch, `index`),
        (SELECT groupArray((tenant, source_system, source_instance, event_id, place)) FROM accepted_versions)
    ) AS believed,
    recorded_at, if(signature = 'valid', least(ifNull(received_at, recorded_at), recorded_at), recorded_at) AS arrived_at,
    epoch, event_id, raw, origin, `index`, sealed_at
FROM
(
    SELECT
        *,
        if(grant_source_system = '', source_system, grant_source_system) AS grant_system,
        if(grant_source_system = '', source_instance, grant_source_instance) AS grant_instance,
        if(request_source_system = '', source_system, request_source_system) AS request_system,
        if(request_source_system = '', source_instance, request_source_instance) AS request_instance,
        if(session_source_system = '', source_system, session_source_system) AS session_system,
        if(session_source_system = '', source_instance, session_source_instance) AS session_instance,
        replaceAll(replaceAll(tenant, '%', '%25'), '/', '%2F') AS first_part,
        if(grant_id = '', '', concat(first_part, '/', replaceAll(replaceAll(grant_system, '%', '%25'), '/', '%2F'), '/',
            replaceAll(replaceAll(grant_instance, '%', '%25'), '/', '%2F'), '/', grant_id)) AS grant_key,
        if(request_id = '', '', concat(first_part, '/', replaceAll(replaceAll(request_system, '%', '%25'), '/', '%2F'), '/',
            replaceAll(replaceAll(request_instance, '%', '%25'), '/', '%2F'), '/', request_id)) AS request_key,
        if(session_id = '', '', concat(first_part, '/', replaceAll(replaceAll(session_system, '%', '%25'), '/', '%2F'), '/',
            replaceAll(replaceAll(session_instance, '%', '%25'), '/', '%2F'), '/', session_id)) AS session_key,
        if(bitTest(flags, 0), toDateTime64(append_time, 6, 'UTC'), sealed_at) AS recorded_at,
        toUInt32OrZero(splitByChar('/', origin)[-1]) AS epoch
    FROM
    (
        WITH (SELECT (arrayPushBack(groupArray(concat(system, '\0', name)), '\0'), arrayPushBack(groupArray(instance), '')) FROM instance_names) AS names
        SELECT * REPLACE (
            CAST(transform(concat(source_system, '\0', source_instance), names.1, names.2, toString(source_instance)), 'LowCardinality(String)') AS source_instance,
            CAST(transform(concat(grant_source_system, '\0', grant_source_instance), names.1, names.2, toString(grant_source_instance)), 'LowCardinality(String)') AS grant_source_instance,
            CAST(transform(concat(request_source_system, '\0', request_source_instance), names.1, names.2, toString(request_source_instance)), 'LowCardinality(String)') AS request_source_instance,
            CAST(transform(concat(session_source_system, '\0', session_source_instance), names.1, names.2, toString(session_source_instance)), 'LowCardinality(String)') AS session_source_instance
        )
        FROM entries
        WHERE decode_error = '' AND event_type NOT IN ('query.executed', 'source.report')
    )
)
COMMENT 'Every decoded event except executed queries and reports about unread records, with its access keys and its place in the ledger';

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
