-- Grants: their state, their story, and how fast they are removed.
--
-- A grant is identified by tenant, the source that issued its id, and the id: the issuer is grant_source where the event
-- names one, otherwise the source of the event. An issuer without an instance stands for all installations of the tool.
-- Only the issuer activates a grant. Enforcers, and the reporters that the watch policy names, may remove it too; they must
-- repeat subject, resource and entitlement.
--
-- Only the log of access.lifecycle decides, in its order (epoch, index): other logs are not ordered with it. If a record was
-- read twice, both entries have the same event_id, and the first one counts; of two ends the earlier one, of two kinds of
-- evidence the weaker one. Time is the broker's append time where the broker set it (flags bit 0), otherwise the time of
-- sealing. The first activation names the holder and the resource.
--
-- Some tools do not write in order. An activation or extension that stands after a confirmed removal, but is older by the
-- clock of their common source, grants nothing. A clock without fractions of a second, or with milliseconds only, cannot
-- order two events within that unit. A record that the broker has is in the past, even if a fast clock disagrees.
CREATE VIEW reporters
(
    system String COMMENT 'System of a source that may report about grants and requests of another one; patterns have % and _',
    instance String COMMENT 'Its installation',
    source String COMMENT 'System of that other source',
    source_instance String COMMENT 'Its installation',
    may Array(String) COMMENT 'What it may report: remove, extend, approve'
)
AS SELECT patterns[1] AS system, patterns[2] AS instance, patterns[3] AS source, patterns[4] AS source_instance, may
FROM
(
    SELECT
        arrayMap(
            text -> replaceAll(replaceAll(replaceAll(replaceAll(text, '_', '\\_'), '%', '\\%'), '*', '%'), '?', '_'),
            [JSONExtractString(one, 'system'), JSONExtractString(one, 'instance'), JSONExtractString(one, 'source'), JSONExtractString(one, 'source_instance')]
        ) AS patterns,
        JSONExtract(one, 'may', 'Array(String)') AS may,
        arrayJoin(JSONExtractArrayRaw(raw, 'reporter')) AS one
    FROM
    (
        SELECT argMax(raw, (toUInt32OrZero(splitByChar('/', origin)[-1]), `index`)) AS raw
        FROM entries
        WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND event_type = 'config.changed' AND resource_id = 'watch-policy'
            AND source_system = 'grantledger-watch' AND splitByChar('/', origin)[-3] = 'access.findings'
    )
)
COMMENT 'The reporters of the watch policy in force';

CREATE VIEW grant_states
(
    grant_id String COMMENT 'The grant; filter on it',
    tenant String COMMENT 'Tenant',
    subject_id String COMMENT 'Holder of the access',
    subject_kind String COMMENT 'human, service, agent, system, unknown',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    request_id String COMMENT 'The request, if an activation or extension names it',
    reason String COMMENT 'Reason in the latest activation or extension that gives one',
    ticket String COMMENT 'Ticket or incident in the latest activation or extension that gives one',
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Installation of the tool',
    activated_at DateTime64(6, 'UTC') COMMENT 'First activation, by the clock of the source',
    given_at DateTime64(6, 'UTC') COMMENT 'Latest activation or extension in log order, by the clock of the source',
    given_recorded_at DateTime64(6, 'UTC') COMMENT 'Append time of that activation or extension',
    stretch_recorded_at DateTime64(6, 'UTC') COMMENT 'Append time of the first activation or extension since the last removal',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of the access, if later than its activation',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End in the latest activation or extension; null if the tool gives none',
    expiry_source String COMMENT 'native, derived, policy, unknown',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'expires_at minus the lead of the source clock over the broker; null if there is no end',
    removal_evidence String COMMENT 'Best evidence of a removal after the latest activation or extension: none, deadline, api_accepted, confirmed',
    removed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First confirmed removal after the latest activation or extension, by the clock of the source; null while open',
    removal_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that removal',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to removal_recorded_at, 0 if in time; null while open or without a deadline',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    grant_id, tenant, given[1].subject_id AS subject_id, given[1].subject_kind AS subject_kind,
    given[1].resource_kind AS resource_kind, given[1].resource_id AS resource_id,
    given[1].resource_environment AS resource_environment, given[1].entitlement AS entitlement,
    arrayFirst(id -> id != '', arrayReverse(given.request_id)) AS request_id,
    arrayFirst(text -> text != '', arrayReverse(given.reason)) AS reason,
    arrayFirst(text -> text != '', arrayReverse(given.ticket)) AS ticket, issuer.1 AS source_system,
    issuer.2 AS source_instance,
    fromUnixTimestamp64Micro(given[1].occurred, 'UTC') AS activated_at,
    fromUnixTimestamp64Micro(latest.occurred, 'UTC') AS given_at,
    fromUnixTimestamp64Micro(latest.taken, 'UTC') AS given_recorded_at,
    fromUnixTimestamp64Micro(stretch.taken, 'UTC') AS stretch_recorded_at,
    latest.starts_at AS starts_at, fromUnixTimestamp64Micro(latest_end, 'UTC') AS expires_at, latest.expiry_source AS expiry_source,
    fromUnixTimestamp64Micro(due, 'UTC') AS deadline,
    ['none', 'deadline', 'api_accepted', 'confirmed'][1 + arrayMax(arrayPushBack(after.evidence, 0))] AS removal_evidence,
    if(gone, fromUnixTimestamp64Micro(removal.occurred, 'UTC'), NULL) AS removed_at,
    if(gone, fromUnixTimestamp64Micro(removal.taken, 'UTC'), NULL) AS removal_recorded_at,
    if(gone AND due IS NOT NULL, round(greatest(0, removal.taken - assumeNotNull(due)) / 1e6, 3), NULL) AS late_seconds,
    given[1].origin AS origin, given[1].place.2 AS `index`
FROM
(
    SELECT
        tenant, issuer, grant_id, given,
        arrayMap(event -> arrayFilter(
            each -> each.place < event.place AND each.source_system = event.source_system AND each.source_instance = event.source_instance
                AND event.occurred + multiIf(event.occurred % 1000000 = 0, 1000000, event.occurred % 1000 = 0, 1000, 1) <= least(each.occurred, each.taken),
            removals), given) AS missed,
        arrayFilter((event, own) -> NOT arrayExists(each -> each.evidence = 3, own), given, missed) AS live,
        if(empty(live), given, live) AS turns,
        turns[-1] AS latest,
        arrayConcat(missed[indexOf(given.place, latest.place)], arrayFilter(each -> each.place > latest.place, removals)) AS after,
        arrayFirst(event -> event.evidence = 3, after) AS removal,
        has(after.evidence, 3) AS gone,
        arrayLast(
            (event, before) -> before.2 = 0
                OR arrayExists(each -> each.evidence = 3 AND each.place > before.1 AND each.place < event.place, removals),
            turns,
            arrayZip(arrayPushFront(arrayPopBack(turns.place), (0, 0)), arrayMap(nth -> nth > 1, arrayEnumerate(turns)))
        ) AS stretch,
        -- The earliest end of all contents with this event id.
        arrayMin(event -> if(event.source = latest.source AND event.id = latest.id, ifNull(toUnixTimestamp64Micro(event.expires_at), 9223372036854775807), 9223372036854775807), every_given) AS earliest,
        nullIf(if(earliest = 9223372036854775807, -1, earliest), -1) AS latest_end,  -- clients read the number below a null too
        if(latest_end IS NULL, NULL, greatest(0, assumeNotNull(latest_end) - greatest(0, latest.occurred - latest.taken))) AS due
    FROM
    (
        SELECT
            tenant, issuer, grant_id,
            arraySort(event -> event.place, groupArrayIf(CAST(
                (place, event_id, (source_system, source_instance), own, (subject_id, resource_kind, resource_id, entitlement), occurred, taken, origin, subject_id, subject_kind, resource_kind, resource_id, resource_environment, entitlement, request_id, reason, ticket, source_system, source_instance, starts_at, expires_at, expiry_source),
                'Tuple(place Tuple(UInt32, UInt64), id String, source Tuple(String, String), own Bool, access Tuple(String, String, String, String), occurred Int64, taken Int64, origin String, subject_id String, subject_kind String, resource_kind String, resource_id String, resource_environment String, entitlement String, request_id String, reason String, ticket String, source_system String, source_instance String, starts_at Nullable(DateTime64(6, \'UTC\')), expires_at Nullable(DateTime64(6, \'UTC\')), expiry_source String)'
            ), event_type IN ('grant.activated', 'grant.extended'))) AS all_given,
            arraySort(event -> (event.source, event.id, event.evidence, event.place), groupArrayIf(CAST(
                (place, event_id, (source_system, source_instance), own, (subject_id, resource_kind, resource_id, entitlement), occurred, taken, transform(removal_evidence, ['deadline', 'api_accepted', 'confirmed'], [1, 2, 3], 0), source_system, source_instance),
                'Tuple(place Tuple(UInt32, UInt64), id String, source Tuple(String, String), own Bool, access Tuple(String, String, String, String), occurred Int64, taken Int64, evidence UInt8, source_system String, source_instance String)'
            ), event_type IN ('grant.revoked', 'grant.expired'))) AS all_removals,
            arrayFirst(event -> event.own, all_given) AS first,
            arrayFilter(event -> event.own OR (event.place > first.place AND event.access = first.access), all_given) AS every_given,
            arrayFilter((event, nth) -> nth = 1, every_given, arrayEnumerateUniq(every_given.source, every_given.id)) AS given,
            -- The weakest content of each event, unless another content of it is no removal.
            arraySort(event -> event.place, arrayFilter(
                (event, nth) -> nth = 1 AND (event.own OR (event.place > first.place AND event.access = first.access))
                    AND NOT arrayExists(other -> other.id = event.id AND other.source = event.source, every_given),
                all_removals, arrayEnumerateUniq(all_removals.source, all_removals.id)
            )) AS removals
        FROM
        (
            SELECT
                *, (toUInt32OrZero(splitByChar('/', origin)[-1]), `index`) AS place,
                toUnixTimestamp64Micro(occurred_at) AS occurred,
                if(bitTest(flags, 0), toUnixTimestamp64Milli(append_time) * 1000, toUnixTimestamp64Micro(sealed_at)) AS taken,
                CAST(if(grant_source_system = '', (source_system, source_instance), (grant_source_system, grant_source_instance)), 'Tuple(String, String)') AS issuer,
                source_system = issuer.1 AND issuer.2 IN ('', source_instance) AS own,
                multiIf(event_type IN ('grant.revoked', 'grant.expired'), 'remove', event_type = 'grant.extended', 'extend', '') AS report,
                (report = 'remove' AND source_system = 'grantledger-enforcer') OR arrayExists(
                    one -> has(one.5, report) AND source_system LIKE one.1 AND source_instance LIKE one.2
                        AND issuer.1 LIKE one.3 AND issuer.2 LIKE one.4,
                    (SELECT groupArray((system, instance, source, source_instance, may)) FROM reporters)
                ) AS reported
            FROM entries
            WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND grant_id != '' AND splitByChar('/', origin)[-3] = 'access.lifecycle'
                AND event_type IN ('grant.activated', 'grant.extended', 'grant.revoked', 'grant.expired')
                AND (own OR reported)
        )
        GROUP BY tenant, issuer, grant_id
    )
    WHERE arrayExists(event -> event.own, given)
)
COMMENT 'One row per grant: its access, its deadline, and its removal';

CREATE VIEW active_grants
(
    grant_id String COMMENT 'The grant',
    subject_id String COMMENT 'Holder of the access',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    activated_at DateTime64(6, 'UTC') COMMENT 'First activation, by the clock of the source',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End of the access; null if the tool gives none',
    expiry_source String COMMENT 'native, derived, policy, unknown',
    past_deadline Bool COMMENT 'The deadline has passed',
    reason String COMMENT 'Reason for the access',
    ticket String COMMENT 'Ticket or incident',
    request_id String COMMENT 'The request, if known',
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Installation of the tool',
    tenant String COMMENT 'Tenant'
)
AS SELECT
    grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, activated_at, expires_at,
    expiry_source, ifNull(deadline < now64(6, 'UTC'), false) AS past_deadline, reason, ticket, request_id, source_system,
    source_instance, tenant
FROM grant_states
WHERE removal_evidence = 'none'
COMMENT 'Grants without any reported removal, past their deadline or not';

CREATE VIEW grant_timeline
(
    grant_id String COMMENT 'The grant; filter on it',
    append_time DateTime64(3, 'UTC') COMMENT 'Append time of the broker',
    occurred_at DateTime64(6, 'UTC') COMMENT 'Time of the event, by the clock of the source',
    event_type LowCardinality(String) COMMENT 'Type of the event',
    outcome LowCardinality(String) COMMENT 'success, failure, denied, pending, unknown',
    actor_id String COMMENT 'Principal that caused the event',
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
    grant_id, append_time, occurred_at, event_type, outcome, actor_id, subject_id, resource_id, entitlement, expires_at,
    removal_evidence, multiIf(command != '', trim(concat(command, ' ', arrayStringConcat(args, ' '))), query != '', query, reason) AS what,
    request_id, session_id, origin, `index`
FROM entries
WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND grant_id != ''
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
    WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND grant_id = '' AND (request_id != '' OR session_id != '')
) AS event
INNER JOIN
(
    SELECT DISTINCT grant_id AS linked_grant, arrayJoin([('request', request_id), ('session', session_id)]) AS linked
    FROM entries
    WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND grant_id != ''
) AS link USING linked
WHERE linked.2 != ''
COMMENT 'All events of a grant, of its request and of its sessions';

CREATE VIEW access_review
(
    grant_id String COMMENT 'The grant',
    subject_id String COMMENT 'Holder of the access',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    request_id String COMMENT 'The request',
    requested_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Time of the request, by the clock of the source; null if no request is on record',
    requested_by String COMMENT 'Requester',
    reason String COMMENT 'Reason',
    ticket String COMMENT 'Ticket or incident',
    approvals String COMMENT 'Reviewer, decision and time of every decision, separated by semicolons',
    activated_at DateTime64(6, 'UTC') COMMENT 'First activation, by the clock of the source',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline; null if the tool gives no end',
    removed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First confirmed removal after the latest activation or extension, by the clock of the source; null while open',
    removal_evidence String COMMENT 'Best evidence of a removal: none, deadline, api_accepted, confirmed',
    removal_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that removal',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to removal_recorded_at, 0 if in time; null while open or without a deadline',
    sessions UInt64 COMMENT 'Sessions under the grant',
    commands UInt64 COMMENT 'Commands and statements in them',
    source_system String COMMENT 'The tool',
    tenant String COMMENT 'Tenant',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS WITH
    requests AS
    (
        SELECT
            request_id,
            minIf(toNullable(occurred_at), event_type = 'request.created') AS requested_at,
            argMinIf(if(actor_id = '', subject_id, actor_id), (sealed_at, `index`), event_type = 'request.created') AS requested_by,
            groupUniqArrayArray(arrayMap(
                each -> (each.at, each.reviewer, each.decision, each.forced),
                if(empty(approvals) AND event_type IN ('request.approved', 'request.denied'),
                    [CAST((actor_id, '', substring(event_type, 9), occurred_at, '', false), 'Tuple(reviewer String, group String, decision String, at Nullable(DateTime64(6, \'UTC\')), reason String, forced Bool)')],
                    approvals)
            )) AS decisions
        FROM entries
        WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND request_id != '' AND startsWith(event_type, 'request.')
        GROUP BY request_id
    ),
    carried AS
    (
        SELECT grant_id, groupUniqArrayArray(arrayMap(each -> (each.at, each.reviewer, each.decision, each.forced), approvals)) AS decisions
        FROM entries
        WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND grant_id != '' AND event_type IN ('grant.activated', 'grant.extended') AND notEmpty(approvals)
        GROUP BY grant_id
    ),
    used AS
    (
        SELECT grant_id, session_id
        FROM entries
        WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND grant_id != '' AND session_id != '' AND startsWith(event_type, 'session.')
        UNION DISTINCT
        SELECT asked.grant_id AS grant_id, loose.session_id AS session_id
        FROM
        (
            SELECT DISTINCT request_id, session_id
            FROM entries
            WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND grant_id = '' AND request_id != '' AND session_id != '' AND startsWith(event_type, 'session.')
        ) AS loose
        INNER JOIN
        (
            SELECT DISTINCT grant_id, request_id
            FROM entries
            WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND request_id != '' AND event_type IN ('grant.activated', 'grant.extended')
        ) AS asked ON loose.request_id = asked.request_id
    ),
    did AS
    (
        SELECT grant_id, uniqExact(id) AS commands
        FROM
        (
            SELECT grant_id, sipHash128(event_id) AS id
            FROM entries
            WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND grant_id != '' AND event_type IN ('session.command', 'session.query')
            UNION ALL
            SELECT used.grant_id AS grant_id, loose.id AS id
            FROM
            (
                SELECT DISTINCT session_id, sipHash128(event_id) AS id
                FROM entries
                WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND grant_id = '' AND event_type IN ('session.command', 'session.query')
            ) AS loose
            INNER JOIN used ON used.session_id = loose.session_id
        )
        GROUP BY grant_id
    ),
    had AS (SELECT grant_id, uniqExact(session_id) AS sessions FROM used GROUP BY grant_id)
SELECT
    state.grant_id AS grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement,
    state.request_id AS request_id, requests.requested_at AS requested_at, requests.requested_by AS requested_by, reason,
    ticket,
    arrayStringConcat(arrayMap(
        each -> concat(each.2, ' ', each.3, if(each.4, ' (forced)', ''), ifNull(concat(' ', formatDateTime(each.1, '%Y-%m-%d %H:%i:%S'), ' UTC'), '')),
        arraySort(each -> (ifNull(toUnixTimestamp64Micro(each.1), 9223372036854775807), each.2, each.3), arrayFilter(
            each -> NOT (each.3 = 'pending' AND arrayExists(other -> other.2 = each.2 AND other.3 != 'pending', every))
                AND NOT (each.1 IS NULL AND arrayExists(other -> other.2 = each.2 AND other.3 = each.3 AND other.1 IS NOT NULL, every)),
            arrayDistinct(arrayConcat(requests.decisions, carried.decisions) AS every)
        ))
    ), '; ') AS approvals,
    activated_at, deadline, removed_at, removal_evidence, removal_recorded_at, late_seconds, had.sessions AS sessions,
    did.commands AS commands, source_system, tenant, origin, `index`
FROM grant_states AS state
LEFT JOIN requests ON requests.request_id = state.request_id
LEFT JOIN carried ON carried.grant_id = state.grant_id
LEFT JOIN had ON had.grant_id = state.grant_id
LEFT JOIN did ON did.grant_id = state.grant_id
SETTINGS join_use_nulls = 0
COMMENT 'Access review: one row per grant with its request, approvals, end and activity';

CREATE VIEW removal_latency
(
    source_system String COMMENT 'The tool',
    confirmed UInt64 COMMENT 'Grants with a deadline and a confirmed removal: the base of the quantiles',
    late UInt64 COMMENT 'Of these, the ones removed after their deadline',
    p50_seconds Nullable(Float64) COMMENT 'Median of the seconds from the deadline to the append time of the removal; negative: before the deadline',
    p95_seconds Nullable(Float64) COMMENT '95th percentile',
    p99_seconds Nullable(Float64) COMMENT '99th percentile',
    confirmed_without_deadline UInt64 COMMENT 'Grants with a confirmed removal and no deadline',
    accepted_only UInt64 COMMENT 'Grants whose removal the tool accepted and nothing confirmed'
)
AS SELECT
    source_system, countIf(seconds IS NOT NULL) AS confirmed, countIf(seconds > 0) AS late,
    if(confirmed = 0, NULL, quantileExactInclusive(0.5)(seconds)) AS p50_seconds,
    if(confirmed = 0, NULL, quantileExactInclusive(0.95)(seconds)) AS p95_seconds,
    if(confirmed = 0, NULL, quantileExactInclusive(0.99)(seconds)) AS p99_seconds,
    countIf(removed_at IS NOT NULL AND deadline IS NULL) AS confirmed_without_deadline,
    countIf(removal_evidence = 'api_accepted') AS accepted_only
FROM
(
    SELECT *, dateDiff('microsecond', deadline, removal_recorded_at) / 1e6 AS seconds
    FROM grant_states
)
GROUP BY source_system
COMMENT 'Time from the deadline to the confirmed removal, by tool';
