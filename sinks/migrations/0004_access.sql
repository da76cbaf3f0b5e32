-- What people ask of the ledger: what should be gone, who had what, how fast it was taken away, what was found.
--
-- Grants are judged by the log of access.lifecycle alone, in its order (epoch, index): other logs have no order with it.
-- A record that was read twice has the same event_id; its first entry counts. Time is the broker's where it set the
-- time (flags bit 0), else the sealer's. Whose access it is, and to what, is said by the first activation.
--
-- Some tools keep no order: an activation or extension that stands after a confirmed removal, and came before it by the
-- clock of the source of both, gives nothing. A clock without a fraction of the second, or with three digits of it, leaves
-- open what came first within one; and what the broker has taken has happened, whatever a fast clock says.
CREATE VIEW grant_states
(
    grant_id String COMMENT 'The grant; filter on it',
    tenant String COMMENT 'Tenant',
    subject_id String COMMENT 'Who holds the access',
    subject_kind String COMMENT 'human, service, agent, system, unknown',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'What is accessed',
    resource_environment String COMMENT 'production, staging …, where known',
    entitlement String COMMENT 'The role or permission',
    request_id String COMMENT 'The request, where an activation or extension names it',
    reason String COMMENT 'Why, as the latest activation or extension that says so has it',
    ticket String COMMENT 'Ticket or incident, likewise',
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Which installation of the tool',
    activated_at DateTime64(6, 'UTC') COMMENT 'First activation, by the clock of the source',
    given_at DateTime64(6, 'UTC') COMMENT 'Latest activation or extension in the order of the log, by the clock of the source',
    given_recorded_at DateTime64(6, 'UTC') COMMENT 'When the broker took that activation or extension',
    stretch_recorded_at DateTime64(6, 'UTC') COMMENT 'When the broker took what gave the access first since it was last removed',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the access begins, where that is later than its activation',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End that the latest activation or extension gave; null where the tool does not say',
    expiry_source String COMMENT 'native, derived, policy, unknown',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'expires_at, earlier by as much as the source clock was ahead of the broker; null where there is no end',
    removal_evidence String COMMENT 'Best evidence of a removal after the latest activation or extension: none, deadline, api_accepted, confirmed',
    removed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First confirmed removal after the latest activation or extension, by the clock of the source; null while open',
    removal_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the broker took that removal',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to removal_recorded_at, 0 if in time; null while open or without a deadline',
    origin String COMMENT 'Log that holds the first activation',
    `index` UInt64 COMMENT 'Its position there'
)
AS SELECT
    grant_id, given[1].tenant AS tenant, given[1].subject_id AS subject_id, given[1].subject_kind AS subject_kind,
    given[1].resource_kind AS resource_kind, given[1].resource_id AS resource_id,
    given[1].resource_environment AS resource_environment, given[1].entitlement AS entitlement,
    arrayFirst(id -> id != '', arrayReverse(given.request_id)) AS request_id,
    arrayFirst(text -> text != '', arrayReverse(given.reason)) AS reason,
    arrayFirst(text -> text != '', arrayReverse(given.ticket)) AS ticket, given[1].source_system AS source_system,
    given[1].source_instance AS source_instance,
    fromUnixTimestamp64Micro(given[1].occurred, 'UTC') AS activated_at,
    fromUnixTimestamp64Micro(latest.occurred, 'UTC') AS given_at,
    fromUnixTimestamp64Micro(latest.taken, 'UTC') AS given_recorded_at,
    fromUnixTimestamp64Micro(stretch.taken, 'UTC') AS stretch_recorded_at,
    latest.starts_at AS starts_at, latest.expires_at AS expires_at, latest.expiry_source AS expiry_source,
    fromUnixTimestamp64Micro(due, 'UTC') AS deadline,
    ['none', 'deadline', 'api_accepted', 'confirmed'][1 + arrayMax(arrayPushBack(after.evidence, 0))] AS removal_evidence,
    if(gone, fromUnixTimestamp64Micro(removal.occurred, 'UTC'), NULL) AS removed_at,
    if(gone, fromUnixTimestamp64Micro(removal.taken, 'UTC'), NULL) AS removal_recorded_at,
    if(gone AND due IS NOT NULL, round(greatest(0, removal.taken - assumeNotNull(due)) / 1e6, 3), NULL) AS late_seconds,
    given[1].origin AS origin, given[1].place.2 AS `index`
FROM
(
    SELECT
        grant_id, given,
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
        if(latest.expires_at IS NULL, NULL,
            greatest(0, toUnixTimestamp64Micro(assumeNotNull(latest.expires_at)) - greatest(0, latest.occurred - latest.taken))) AS due
    FROM
    (
        SELECT
            grant_id,
            arraySort(event -> event.place, groupArrayIf(CAST(
                (place, event_id, occurred, taken, origin, tenant, subject_id, subject_kind, resource_kind, resource_id, resource_environment, entitlement, request_id, reason, ticket, source_system, source_instance, starts_at, expires_at, expiry_source),
                'Tuple(place Tuple(UInt32, UInt64), id String, occurred Int64, taken Int64, origin String, tenant String, subject_id String, subject_kind String, resource_kind String, resource_id String, resource_environment String, entitlement String, request_id String, reason String, ticket String, source_system String, source_instance String, starts_at Nullable(DateTime64(6, \'UTC\')), expires_at Nullable(DateTime64(6, \'UTC\')), expiry_source String)'
            ), event_type IN ('grant.activated', 'grant.extended'))) AS all_given,
            arraySort(event -> event.place, groupArrayIf(CAST(
                (place, event_id, occurred, taken, transform(removal_evidence, ['deadline', 'api_accepted', 'confirmed'], [1, 2, 3], 0), source_system, source_instance),
                'Tuple(place Tuple(UInt32, UInt64), id String, occurred Int64, taken Int64, evidence UInt8, source_system String, source_instance String)'
            ), event_type IN ('grant.revoked', 'grant.expired'))) AS all_removals,
            arrayFilter((event, nth) -> nth = 1, all_given, arrayEnumerateUniq(all_given.id)) AS given,
            arrayFilter((event, nth) -> nth = 1, all_removals, arrayEnumerateUniq(all_removals.id)) AS removals
        FROM
        (
            SELECT
                *, (toUInt32OrZero(splitByChar('/', origin)[-1]), `index`) AS place,
                toUnixTimestamp64Micro(occurred_at) AS occurred,
                if(bitTest(flags, 0), toUnixTimestamp64Milli(append_time) * 1000, toUnixTimestamp64Micro(sealed_at)) AS taken
            FROM entries
            WHERE decode_error = '' AND grant_id != '' AND splitByChar('/', origin)[-3] = 'access.lifecycle'
                AND event_type IN ('grant.activated', 'grant.extended', 'grant.revoked', 'grant.expired')
        )
        GROUP BY grant_id
    )
    WHERE notEmpty(given)
)
COMMENT 'One row a grant: what was given, until when, and whether it is known to be gone';

CREATE VIEW access_review
(
    grant_id String COMMENT 'The grant',
    subject_id String COMMENT 'Who had the access',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'What was accessed',
    resource_environment String COMMENT 'production, staging …, where known',
    entitlement String COMMENT 'The role or permission',
    request_id String COMMENT 'The request',
    requested_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was asked for, by the clock of the source; null where no request is on record',
    requested_by String COMMENT 'Who asked for it',
    reason String COMMENT 'Why',
    ticket String COMMENT 'Ticket or incident',
    approvals String COMMENT 'Reviewer, decision and time of every decision, with semicolons between',
    activated_at DateTime64(6, 'UTC') COMMENT 'First activation, by the clock of the source',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'When it had to be gone; null where the tool does not say',
    removed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First confirmed removal after the latest activation or extension, by the clock of the source; null while open',
    removal_evidence String COMMENT 'Best evidence of a removal: none, deadline, api_accepted, confirmed',
    removal_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the broker took that removal',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to removal_recorded_at, 0 if in time; null while open or without a deadline',
    sessions UInt64 COMMENT 'Sessions under the grant',
    commands UInt64 COMMENT 'Commands and statements in them',
    source_system String COMMENT 'The tool',
    tenant String COMMENT 'Tenant',
    origin String COMMENT 'Log that holds the first activation',
    `index` UInt64 COMMENT 'Its position there'
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
        WHERE decode_error = '' AND request_id != '' AND startsWith(event_type, 'request.')
        GROUP BY request_id
    ),
    carried AS
    (
        SELECT grant_id, groupUniqArrayArray(arrayMap(each -> (each.at, each.reviewer, each.decision, each.forced), approvals)) AS decisions
        FROM entries
        WHERE decode_error = '' AND grant_id != '' AND event_type IN ('grant.activated', 'grant.extended') AND notEmpty(approvals)
        GROUP BY grant_id
    ),
    held AS
    (
        SELECT grant_id, session_id
        FROM entries
        WHERE decode_error = '' AND grant_id != '' AND session_id != '' AND startsWith(event_type, 'session.')
        UNION DISTINCT
        SELECT asked.grant_id AS grant_id, loose.session_id AS session_id
        FROM
        (
            SELECT DISTINCT request_id, session_id
            FROM entries
            WHERE decode_error = '' AND grant_id = '' AND request_id != '' AND session_id != '' AND startsWith(event_type, 'session.')
        ) AS loose
        INNER JOIN
        (
            SELECT DISTINCT grant_id, request_id
            FROM entries
            WHERE decode_error = '' AND request_id != '' AND event_type IN ('grant.activated', 'grant.extended')
        ) AS asked ON loose.request_id = asked.request_id
    ),
    did AS
    (
        SELECT grant_id, uniqExact(id) AS commands
        FROM
        (
            SELECT grant_id, sipHash128(event_id) AS id
            FROM entries
            WHERE decode_error = '' AND grant_id != '' AND event_type IN ('session.command', 'session.query')
            UNION ALL
            SELECT held.grant_id AS grant_id, loose.id AS id
            FROM
            (
                SELECT DISTINCT session_id, sipHash128(event_id) AS id
                FROM entries
                WHERE decode_error = '' AND grant_id = '' AND event_type IN ('session.command', 'session.query')
            ) AS loose
            INNER JOIN held ON held.session_id = loose.session_id
        )
        GROUP BY grant_id
    ),
    had AS (SELECT grant_id, uniqExact(session_id) AS sessions FROM held GROUP BY grant_id)
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
COMMENT 'Who had what: one row a grant, with its request, its approvals, its end, and what was done under it';

CREATE VIEW removal_latency
(
    source_system String COMMENT 'The tool',
    confirmed UInt64 COMMENT 'Grants with a deadline whose removal is confirmed: what the quantiles are over',
    late UInt64 COMMENT 'Those of them that were removed after their deadline',
    p50_seconds Nullable(Float64) COMMENT 'Median of the time from the deadline to the removal as the broker took it; negative is before the deadline',
    p95_seconds Nullable(Float64) COMMENT '95 of 100 were faster',
    p99_seconds Nullable(Float64) COMMENT '99 of 100 were faster',
    confirmed_without_deadline UInt64 COMMENT 'Grants without a deadline whose removal is confirmed',
    accepted_only UInt64 COMMENT 'Grants of which the tool took the order to remove them, and nobody saw them gone'
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
COMMENT 'How long after their deadline grants are removed, by tool';

CREATE VIEW findings
(
    rule String COMMENT 'Which rule found it',
    key String COMMENT 'What the finding is about',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'The deadline that the finding is about, if any',
    severity String COMMENT 'info, warning, critical; as it was opened last',
    open Bool COMMENT 'Opened and not resolved since, in the order of the log',
    opened_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was opened first; null where only its resolution is on record',
    resolved_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was resolved; null while open',
    times_opened UInt64 COMMENT 'How often it was opened',
    evidence String COMMENT 'JSON object of the latest of its events',
    grant_id String COMMENT 'The grant, if it is about one',
    subject_id String COMMENT 'Who or what it is about',
    tenant String COMMENT 'Tenant',
    origin String COMMENT 'Log that holds the latest of its events',
    `index` UInt64 COMMENT 'Its position there'
)
AS SELECT
    rule, key, deadline, if(empty(opened), latest.severity, opened[-1].severity) AS severity,
    latest.opens AS open, if(empty(opened), NULL, opened[1].occurred_at) AS opened_at,
    if(open, NULL, latest.occurred_at) AS resolved_at, length(opened) AS times_opened, latest.evidence AS evidence,
    arrayFirst(id -> id != '', arrayReverse(events.grant_id)) AS grant_id, latest.subject_id AS subject_id,
    latest.tenant AS tenant, latest.origin AS origin, latest.place.2 AS `index`
FROM
(
    SELECT
        finding_rule AS rule, finding_key AS key, finding_deadline AS deadline,
        arraySort(event -> event.place, groupArray(CAST(
            ((toUInt32OrZero(splitByChar('/', origin)[-1]), `index`), event_id, event_type = 'finding.opened', occurred_at, finding_severity, finding_evidence, grant_id, subject_id, tenant, origin),
            'Tuple(place Tuple(UInt32, UInt64), id String, opens Bool, occurred_at DateTime64(6, \'UTC\'), severity String, evidence String, grant_id String, subject_id String, tenant String, origin String)'
        ))) AS every,
        arrayFilter((event, nth) -> nth = 1, every, arrayEnumerateUniq(every.id)) AS events,
        arrayFilter(event -> event.opens, events) AS opened,
        events[-1] AS latest
    FROM entries
    WHERE decode_error = '' AND event_type IN ('finding.opened', 'finding.resolved')
        AND splitByChar('/', origin)[-3] = 'access.findings'
    GROUP BY rule, key, deadline
)
COMMENT 'What the pipeline itself found: one row a finding. Only what stands in the log of findings counts: access systems cannot write there';
