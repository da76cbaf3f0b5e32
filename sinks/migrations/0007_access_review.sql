-- What happened under each grant, and how fast access is removed.
CREATE VIEW sessions_of_grants
(
    generation UInt64 COMMENT 'As in state_refreshes',
    grant_id String COMMENT 'The grant',
    grant_key String COMMENT 'Its access key',
    session_id String COMMENT 'The session',
    session_key String COMMENT 'Its access key'
)
AS SELECT DISTINCT generation, id AS grant_id, access_key AS grant_key, session_id, session_key
FROM key_events
WHERE kind = 'grant' AND session_key != ''
UNION DISTINCT
SELECT
    asked.generation AS generation, asked.grant_id AS grant_id, asked.grant_key AS grant_key, loose.session_id AS session_id,
    loose.session_key AS session_key
FROM
(
    SELECT DISTINCT generation, id AS request_id, access_key AS request_key, session_id, session_key
    FROM key_events
    WHERE kind = 'request' AND grant_key = '' AND session_key != ''
) AS loose
-- The rows on the right decide which of those on the left are read.
INNER JOIN
(
    SELECT DISTINCT generation, id AS grant_id, access_key AS grant_key, request_id, request_key
    FROM key_events
    WHERE kind = 'grant' AND gives AND request_key != ''
) AS asked USING (generation, request_id, request_key)
COMMENT 'The rows of grant_sessions, by generation';

CREATE VIEW grant_sessions
(
    grant_id String COMMENT 'The grant',
    grant_key String COMMENT 'Its access key: joins with the other views',
    session_id String COMMENT 'The session',
    session_key String COMMENT 'Access key of the session: joins with events'
)
AS SELECT grant_id, grant_key, session_id, session_key
FROM sessions_of_grants
WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete)
COMMENT 'The sessions that an event names together with a grant or with its request; a named session may never have begun';

CREATE VIEW grant_timeline
(
    grant_id String COMMENT 'The grant; filter on it',
    grant_key String COMMENT 'Its access key: of grants with the same id, each has its own',
    append_time DateTime64(3, 'UTC') COMMENT 'Append time of the broker',
    occurred_at DateTime64(6, 'UTC') COMMENT 'Time of the event, by the clock of the source',
    event_type LowCardinality(String) COMMENT 'Type of the event',
    outcome LowCardinality(String) COMMENT 'success, failure, denied, pending, unknown',
    actor_id String COMMENT 'Principal that caused the event',
    actor_on_behalf_of String COMMENT 'Person for whom an agent or an impersonator acted',
    subject_id String COMMENT 'Holder of the access',
    resource_id String COMMENT 'Accessed resource',
    entitlement String COMMENT 'Role or permission',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End of the access',
    removal_evidence LowCardinality(String) COMMENT 'How certain the removal is',
    what String COMMENT 'Command, statement or reason',
    request_id String COMMENT 'The request',
    session_id String COMMENT 'The session',
    origin LowCardinality(String) COMMENT 'Log of the entry',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    place.grant_id AS grant_id, place.grant_key AS grant_key, append_time, occurred_at, event_type, outcome, actor_id,
    actor_on_behalf_of, subject_id, resource_id, entitlement, expires_at, removal_evidence,
    multiIf(command != '', trim(concat(command, ' ', arrayStringConcat(args, ' '))), query != '', query, reason) AS what,
    request_id, session_id, event.origin AS origin, event.`index` AS `index`
-- Without the view events: key_events has only events that it shows and that are believed.
FROM entries AS event
INNER JOIN
(
    SELECT id AS grant_id, access_key AS grant_key, origin, `index`
    FROM key_events
    WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete) AND kind = 'grant'
    -- An event that names the request and a session of it is found by both.
    UNION DISTINCT
    SELECT link.grant_id AS grant_id, link.grant_key AS grant_key, loose.origin AS origin, loose.`index` AS `index`
    FROM
    (
        SELECT toString(kind) AS linked_kind, id AS linked_id, access_key AS linked_key, origin, `index`
        FROM key_events
        WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete) AND kind != 'grant' AND grant_key = ''
    ) AS loose
    INNER JOIN
    (
        SELECT DISTINCT
            id AS grant_id, access_key AS grant_key, 'request' AS linked_kind, request_id AS linked_id,
            request_key AS linked_key
        FROM key_events
        WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete) AND kind = 'grant'
            AND request_key != ''
        UNION ALL
        SELECT grant_id, grant_key, 'session' AS linked_kind, session_id AS linked_id, session_key AS linked_key
        FROM grant_sessions
    ) AS link USING (linked_kind, linked_id, linked_key)
) AS place ON event.origin = place.origin AND event.`index` = place.`index`
COMMENT 'All events of a grant, of its request and of its sessions';

CREATE VIEW computed_activity
(
    grant_id String COMMENT 'The grant',
    grant_key String COMMENT 'Its access key: joins with the other views',
    sessions UInt64 COMMENT 'Sessions under the grant',
    commands UInt64 COMMENT 'Commands and statements in them',
    used_environment String COMMENT 'Environment of a resource of these sessions'
)
AS SELECT
    grant_id, grant_key, uniqExactIf(session_key, of_session) AS sessions, uniqExactIf(command, command != 0) AS commands,
    maxIf(environment, of_session) AS used_environment
FROM
(
    SELECT id AS grant_id, access_key AS grant_key, '' AS session_key, false AS of_session, command, '' AS environment
    FROM key_events
    WHERE generation = (SELECT max(generation) FROM state_refreshes) AND kind = 'grant' AND command != 0
    UNION ALL
    SELECT
        had.grant_id AS grant_id, had.grant_key AS grant_key, did.access_key AS session_key, of_session, command,
        toString(environment) AS environment
    FROM
    (
        SELECT id, access_key, of_session, if(grant_key = '', command, 0) AS command, environment
        FROM key_events
        WHERE generation = (SELECT max(generation) FROM state_refreshes) AND kind = 'session' AND of_session
    ) AS did
    INNER JOIN
    (
        SELECT grant_id, grant_key, session_id, session_key
        FROM sessions_of_grants
        WHERE generation = (SELECT max(generation) FROM state_refreshes)
    ) AS had ON did.id = had.session_id AND did.access_key = had.session_key
)
GROUP BY grant_id, grant_key
COMMENT 'What happened in the sessions of each grant, computed: grants without a session or command have no row';

CREATE TABLE stored_activity
(
    generation UInt64 COMMENT 'As in state_refreshes',
    version UInt64 COMMENT 'As in state_refreshes: of the refresh that computed the row',
    grant_id String COMMENT 'The grant',
    grant_key String COMMENT 'Its access key: joins with the other views',
    sessions UInt64 COMMENT 'Sessions under the grant',
    commands UInt64 COMMENT 'Commands and statements in them',
    used_environment String COMMENT 'Environment of a resource of these sessions'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY generation
ORDER BY (generation, grant_id, grant_key)
SETTINGS index_granularity = 512
COMMENT 'Rows of computed_activity';

CREATE VIEW access_review
(
    grant_id String COMMENT 'The grant',
    state String COMMENT 'As in grants',
    subject_id String COMMENT 'Holder of the access',
    subject_kind String COMMENT 'human, service, agent, system, unknown',
    person String COMMENT 'The holder by the name in the watch policy, otherwise subject_id',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, from the tool or the watch policy, otherwise from a session under the grant',
    entitlement String COMMENT 'Role or permission',
    request_id String COMMENT 'The request',
    requested_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Time of the request, by the clock of the source; null if no request is on record',
    requested_by String COMMENT 'Requester',
    reason String COMMENT 'Reason, as in grants',
    ticket String COMMENT 'Ticket or incident, as in grants',
    customer String COMMENT 'Customer on whose data support staff worked',
    approvals String COMMENT 'Reviewer, decision and time of every decision, separated by semicolons',
    approved_by Array(String) COMMENT 'Everyone whose last decision approves, by the names in the watch policy',
    forced Bool COMMENT 'Break-glass: somebody approved it by force',
    activated_at DateTime64(6, 'UTC') COMMENT 'First activation, by the clock of the source',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of the access, if later than its activation',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline; null if the tool gives no end',
    policy_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Where the tool gives no end: the end by max_seconds of the watch policy; null without one',
    removed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First confirmed removal after the latest activation or extension, by the clock of the source; null while open',
    ended_at Nullable(DateTime64(6, 'UTC')) COMMENT 'removed_at. If the access ended under the policy without a confirmed removal: its deadline, or that of the policy. Null while it lasts',
    removal_evidence String COMMENT 'Best evidence of a removal: none, deadline, api_accepted, confirmed',
    removal_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that removal',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to removal_recorded_at, 0 if in time; null while open or without a deadline. Of a historical grant, to removed_at',
    sessions UInt64 COMMENT 'Sessions under the grant',
    commands UInt64 COMMENT 'Commands and statements in them',
    source_system String COMMENT 'Source that issued the grant: the tool',
    source_instance String COMMENT 'Its installation; empty: any',
    tenant String COMMENT 'Tenant',
    grant_key String COMMENT 'Access key of the grant: joins with the other views',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    state.grant_id AS grant_id, state, subject_id, subject_kind, person, resource_kind, resource_id,
    if(resource_environment = '', used_environment, resource_environment) AS resource_environment, entitlement,
    request_id, requested_at, requested_by, reason, ticket, customer, approvals, approved_by, forced,
    assumeNotNull(state.activated_at) AS activated_at, starts_at, deadline, policy_deadline, removed_at,
    if(state = 'ended', ifNull(deadline, policy_deadline), removed_at) AS ended_at, removal_evidence, removal_recorded_at,
    late_seconds, activity.sessions AS sessions, activity.commands AS commands, source_system, source_instance, tenant,
    state.grant_key AS grant_key, origin, `index`
FROM
(
    SELECT grant_id, grant_key, sessions, commands, used_environment
    FROM stored_activity FINAL
    WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete)
) AS activity
-- The rows on the right decide which of those on the left are read.
RIGHT JOIN recorded_grants AS state ON activity.grant_id = state.grant_id AND activity.grant_key = state.grant_key
SETTINGS join_use_nulls = 0
COMMENT 'Access review: one row per grant with its request, approvals, end and activity';

CREATE VIEW removal_latency
(
    source_system String COMMENT 'The tool',
    confirmed UInt64 COMMENT 'Grants with a deadline and a confirmed removal: the base of the quantiles',
    late UInt64 COMMENT 'Of these, the ones removed after their deadline',
    p50_seconds Nullable(Float64) COMMENT 'Median of the seconds from the deadline to the append time of the removal, of a historical grant to removed_at; negative: before the deadline',
    p95_seconds Nullable(Float64) COMMENT '95th percentile',
    p99_seconds Nullable(Float64) COMMENT '99th percentile',
    confirmed_without_deadline UInt64 COMMENT 'Grants with a confirmed removal and no deadline',
    accepted_only UInt64 COMMENT 'Grants whose removal the tool accepted and nothing confirmed'
)
AS SELECT
    source_system, countIf(seconds IS NOT NULL) AS confirmed, countIf(seconds > 0) AS late,
    if(confirmed = 0, NULL, round(quantileExactInclusive(0.5)(seconds), 3)) AS p50_seconds,
    if(confirmed = 0, NULL, round(quantileExactInclusive(0.95)(seconds), 3)) AS p95_seconds,
    if(confirmed = 0, NULL, round(quantileExactInclusive(0.99)(seconds), 3)) AS p99_seconds,
    countIf(removed_at IS NOT NULL AND deadline IS NULL) AS confirmed_without_deadline,
    countIf(removal_evidence = 'api_accepted') AS accepted_only
FROM
(
    SELECT *, dateDiff('microsecond', deadline, if(historical, removed_at, removal_recorded_at)) / 1e6 AS seconds
    FROM grant_states
)
GROUP BY source_system
COMMENT 'Time from the deadline to the confirmed removal, by tool';
