-- Requests and grants by access key (0002_events.sql), as computed from the entries. These views take seconds for a
-- large ledger, so the store keeps their rows in tables (0005_states.sql), which every other view reads.
--
-- Only the issuer activates a grant. Enforcers, and the reporters that the watch policy names, may remove it too; they must
-- repeat subject, resource and entitlement.
--
-- A removal or extension that names only a request is about all its grants: those whose first event with a request, by
-- their own source, names it. One of another source, and an extension, counts for the grants that the request has by then.
-- An extension starts no grant, and does not bring back one with a confirmed removal.
--
-- Only the log of access.lifecycle decides, in its order (epoch, index): other logs are not ordered with it. If a record was
-- read twice, both entries have the same event_id, and the first one counts; of two ends the earlier one, of two kinds of
-- evidence the weaker one, unless a person accepted one of them. The first activation names the holder and the resource.
--
-- An activation, extension or removal that failed or was denied changes nothing; only a removal with success is confirmed.
--
-- Some tools do not write in order. An activation or extension that stands after a confirmed removal, but is older by the
-- clock of their common source, grants nothing. A clock without fractions of a second, or with milliseconds only, cannot
-- order two events within that unit. A record that the broker has is in the past, even if a fast clock disagrees.
--
-- An activation or extension that arrives too late sets no deadline, but the access that it gave is known: an older removal
-- that its registered source signed does not end it, and a later extension of the whole request extends it.
--
-- A grant is not historical if an enforcer, or a reporter that may remove it, has read its access back (grant.observed).
--
-- A removal or extension that a registered source signed is a replay if it is older, by the clock of the source, than access
-- that the source gave before it in the log. It changes nothing: anyone who can write to the topic can send it again.
CREATE TABLE state_refreshes
(
    generation UInt64 COMMENT 'Number of the computation of all states; the highest complete one is shown',
    complete Bool COMMENT 'Whether it has reached the end of the entries',
    version UInt64 COMMENT 'Number of entries that it has processed',
    sizes Map(String, UInt64) COMMENT 'That number by log',
    basis String COMMENT 'What the states depend on besides these entries; if it changes, a new generation begins',
    refreshed_at DateTime64(6, 'UTC') COMMENT 'When, by the clock of the store'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (generation, complete)
COMMENT 'How far the tables of states are: access_events, key_events, stored_requests, stored_findings, stored_grants, live_grants, stored_activity';

CREATE TABLE access_events
(
    generation UInt64 COMMENT 'As in state_refreshes',
    version UInt64 COMMENT 'As in state_refreshes: of the refresh that added the row',
    access_key String COMMENT 'Access key of the grant, of an event without a grant that of the request',
    epoch UInt32 COMMENT 'Epoch of the log; order is by epoch and index',
    `index` UInt64 COMMENT 'Position in that log',
    origin LowCardinality(String) COMMENT 'Log of the entry',
    event_type LowCardinality(String) COMMENT 'request.* or grant.*',
    event_id String COMMENT 'uuid5 of the source record',
    occurred_at DateTime64(6, 'UTC') COMMENT 'Time of the event, by the clock of the source',
    recorded_at DateTime64(6, 'UTC') COMMENT 'Time that judges, as in events',
    arrived_at DateTime64(6, 'UTC') COMMENT 'When the pipeline received it, as in events',
    outcome LowCardinality(String) COMMENT 'success, failure, denied, pending, unknown',
    signature LowCardinality(String) COMMENT 'valid or unregistered',
    tenant LowCardinality(String) COMMENT 'Tenant',
    subject_id String COMMENT 'Holder of the access',
    subject_kind LowCardinality(String) COMMENT 'human, service, agent, system, unknown',
    actor_id String COMMENT 'Principal that caused the event',
    resource_kind LowCardinality(String) COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment LowCardinality(String) COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    grant_id String COMMENT 'Grant of the event',
    grant_key String COMMENT 'Its access key',
    grant_source_system LowCardinality(String) COMMENT 'Source that issued grant_id: the tool',
    grant_source_instance LowCardinality(String) COMMENT 'Its installation; empty: any',
    request_id String COMMENT 'Request of the event',
    request_key String COMMENT 'Its access key',
    request_source_system LowCardinality(String) COMMENT 'Source that issued request_id: the tool',
    request_source_instance LowCardinality(String) COMMENT 'Its installation; empty: any',
    source_system LowCardinality(String) COMMENT 'The tool',
    source_instance LowCardinality(String) COMMENT 'Installation of the tool, as in events',
    approvals Array(Tuple(reviewer String, group String, decision String, at Nullable(DateTime64(6, 'UTC')), reason String, forced Bool)) COMMENT 'All decisions known at this event',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of the access',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End of the access',
    expiry_source LowCardinality(String) COMMENT 'native, derived, policy, unknown',
    ends_by_itself Nullable(Bool) COMMENT 'Whether the credential stops working at expires_at, whatever anybody does',
    removal_evidence LowCardinality(String) COMMENT 'none, deadline, api_accepted, confirmed',
    reason String COMMENT 'Reason',
    ticket String COMMENT 'Ticket or incident',
    customer String COMMENT 'Customer on whose data support staff worked'
)
ENGINE = ReplacingMergeTree
PARTITION BY generation
ORDER BY (generation, access_key, epoch, `index`, origin)
SETTINGS index_granularity = 512
COMMENT 'Believed events of requests and grants in access.lifecycle, by access key: computed_requests and computed_access read them';

CREATE TABLE key_events
(
    generation UInt64 COMMENT 'As in state_refreshes',
    version UInt64 COMMENT 'As in state_refreshes: of the refresh that added the row',
    kind Enum8('grant' = 1, 'request' = 2, 'session' = 3) COMMENT 'What id identifies',
    id String COMMENT 'The grant, request or session that the event names',
    access_key String COMMENT 'Its access key',
    origin LowCardinality(String) COMMENT 'Log of the entry',
    `index` UInt64 COMMENT 'Position in that log',
    grant_id String COMMENT 'The grant that it names, too; empty in its own row',
    grant_key String COMMENT 'Access key of that grant',
    request_id String COMMENT 'The request that it names, too; empty in its own row',
    request_key String COMMENT 'Access key of that request',
    session_id String COMMENT 'The session that it names, too; empty in its own row',
    session_key String COMMENT 'Access key of that session',
    gives Bool COMMENT 'Whether it is grant.activated or grant.extended',
    of_session Bool COMMENT 'Whether it is session.*',
    command UInt128 COMMENT 'A hash of event_id if it is session.command or session.query, otherwise 0',
    environment LowCardinality(String) COMMENT 'Environment of the resource'
)
ENGINE = ReplacingMergeTree
PARTITION BY generation
ORDER BY (generation, kind, id, access_key, origin, `index`)
SETTINGS index_granularity = 1024
COMMENT 'Believed events by the grants, requests and sessions that they name: one row per name';

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
            text -> replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(text, '\\', '\\\\'), '_', '\\_'), '%', '\\%'), '*', '%'), '?', '_'),
            [JSONExtractString(one, 'system'), JSONExtractString(one, 'instance'), JSONExtractString(one, 'source'), JSONExtractString(one, 'source_instance')]
        ) AS patterns,
        JSONExtract(one, 'may', 'Array(String)') AS may,
        arrayJoin(JSONExtractArrayRaw(policy, 'reporter')) AS one
    FROM watch_policy
)
COMMENT 'The reporters of the watch policy in force';

CREATE VIEW people
(
    identity String COMMENT 'A name or id of the person, as compared: without outer white space, in one Unicode form and one case',
    person String COMMENT 'The person'
)
AS SELECT
    caseFoldUTF8(normalizeUTF8NFC(replaceRegexpAll(each, '^[\\s\\p{Z}]+|[\\s\\p{Z}]+$', ''))) AS identity,
    JSONExtractString(one, 'name') AS person
FROM (SELECT arrayJoin(JSONExtractArrayRaw(policy, 'person')) AS one FROM watch_policy)
ARRAY JOIN arrayPushFront(JSONExtract(one, 'identities', 'Array(String)'), JSONExtractString(one, 'name')) AS each
COMMENT 'The people of the watch policy in force, by each of their identities';

CREATE VIEW environments
(
    `order` UInt32 COMMENT 'The highest one that matches counts',
    system String COMMENT 'The tool; patterns have % and _',
    instance String COMMENT 'Its installation',
    resource_kind String COMMENT 'Kind of the resource',
    resource_id String COMMENT 'The resource',
    environment String COMMENT 'Its environment'
)
AS SELECT
    `order`, patterns[1] AS system, patterns[2] AS instance, patterns[3] AS resource_kind, patterns[4] AS resource_id,
    environment
FROM
(
    SELECT
        `order`, JSONExtractString(one, 'environment') AS environment,
        arrayMap(
            name -> replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(JSONExtractString(one, name), '\\', '\\\\'), '_', '\\_'), '%', '\\%'), '*', '%'), '?', '_'),
            ['system', 'instance', 'resource_kind', 'resource']
        ) AS patterns
    FROM (SELECT JSONExtractArrayRaw(policy, 'environment') AS every FROM watch_policy)
    ARRAY JOIN every AS one, arrayEnumerate(every) AS `order`
)
COMMENT 'The environments of resources in the watch policy in force';

CREATE VIEW computed_requests
(
    request_id String COMMENT 'The request',
    request_key String COMMENT 'Its access key: joins with the other views',
    state String COMMENT 'created, approved, denied, cancelled or expired: its latest event by the clock of the source',
    requested_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Time of the request, by the clock of the source; null if only a decision is on record',
    requested_by String COMMENT 'Requester',
    subject_id String COMMENT 'Who would get the access',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Requested resource',
    entitlement String COMMENT 'Role or permission',
    reason String COMMENT 'Reason',
    ticket String COMMENT 'Ticket or incident; not taken from the reason',
    customer String COMMENT 'Customer on whose data support staff would work',
    decisions Array(Tuple(at Nullable(DateTime64(6, 'UTC')), reviewer String, decision String, forced Bool)) COMMENT 'All decisions on record',
    source_system String COMMENT 'Source that issued the request: the tool',
    source_instance String COMMENT 'Its installation; empty: any',
    tenant String COMMENT 'Tenant'
)
AS SELECT
    any(id) AS request_id, request_key,
    substring(argMaxIf(type, (occurred, place), own OR type IN ('request.approved', 'request.denied')), 9) AS state,
    minIf(toNullable(occurred), own AND type = 'request.created') AS requested_at,
    argMinIf(if(actor = '', subject, actor), place, own AND type = 'request.created') AS requested_by,
    argMinIf(subject, place, own AND subject NOT IN ('', 'unknown')) AS subject_id,
    argMinIf(kind, place, own AND resource != '') AS resource_kind,
    argMinIf(resource, place, own AND resource != '') AS resource_id,
    argMinIf(role, place, own AND role != '') AS entitlement,
    argMinIf(why, place, own AND type = 'request.created' AND why != '') AS reason,
    argMinIf(incident, place, own AND incident != '') AS ticket,
    argMinIf(for_customer, place, own AND for_customer != '') AS customer,
    groupUniqArrayArray(made) AS decisions,
    any(issuer_system) AS source_system, any(issuer_instance) AS source_instance, any(of_tenant) AS tenant
FROM
(
    SELECT
        access_key AS request_key, request_id AS id, event_type AS type, occurred_at AS occurred, (epoch, `index`) AS place,
        actor_id AS actor, subject_id AS subject, toString(resource_kind) AS kind, resource_id AS resource,
        entitlement AS role, reason AS why, ticket AS incident, customer AS for_customer,
        arrayMap(
            each -> CAST((each.at, each.reviewer, each.decision, each.forced), 'Tuple(at Nullable(DateTime64(6, \'UTC\')), reviewer String, decision String, forced Bool)'),
            if(empty(approvals) AND event_type IN ('request.approved', 'request.denied'),
                [CAST((actor_id, '', substring(event_type, 9), occurred_at, '', false), 'Tuple(reviewer String, group String, decision String, at Nullable(DateTime64(6, \'UTC\')), reason String, forced Bool)')],
                approvals)
        ) AS made,
        toString(request_source_system) AS issuer_system, toString(request_source_instance) AS issuer_instance,
        toString(tenant) AS of_tenant,
        source_system = request_source_system AND request_source_instance IN ('', source_instance) AS own
    FROM access_events
    WHERE generation = (SELECT max(generation) FROM state_refreshes) AND request_id != '' AND startsWith(event_type, 'request.')
        AND (own OR arrayExists(
            one -> has(one.5, 'approve') AND source_system LIKE one.1 AND source_instance LIKE one.2
                AND request_source_system LIKE one.3 AND request_source_instance LIKE one.4,
            (SELECT groupArray((system, instance, source, source_instance, may)) FROM reporters)))
)
GROUP BY request_key
COMMENT 'One row per request, computed: the rows of requests';

CREATE VIEW removal_rules
(
    nth UInt64 COMMENT 'Later rules win',
    patterns Array(String) COMMENT 'Tenant, source, instance, resource kind, resource, environment, entitlement; patterns have % and _',
    counting Array(UInt8) COMMENT 'Evidence that counts as removal: 0 none, 1 deadline, 2 api_accepted, 3 confirmed',
    has_counting Bool COMMENT 'Whether the rule sets that',
    ends_by_itself Nullable(Bool) COMMENT 'Whether a credential that ends automatically is believed to; null if the rule does not set it',
    has_longest Bool COMMENT 'Whether the rule sets the longest access',
    longest Nullable(Float64) COMMENT 'Longest access in seconds; null: none'
)
AS SELECT
    nth,
    arrayMap(
        name -> if(JSONHas(one, name), replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(JSONExtractString(one, name), '\\', '\\\\'), '_', '\\_'), '%', '\\%'), '*', '%'), '?', '_'), '%'),
        ['tenant', 'source', 'instance', 'resource_kind', 'resource', 'environment', 'entitlement']
    ) AS patterns,
    arrayMap(name -> toUInt8(transform(name, ['deadline', 'api_accepted', 'confirmed'], [1, 2, 3], 0)), JSONExtract(one, 'removal', 'Array(String)')) AS counting,
    toBool(JSONHas(one, 'removal')) AS has_counting,
    if(JSONHas(one, 'ends_by_itself'), toBool(JSONExtractBool(one, 'ends_by_itself')), NULL) AS ends_by_itself,
    toBool(JSONHas(one, 'max_seconds')) AS has_longest, JSONExtract(one, 'max_seconds', 'Nullable(Float64)') AS longest
FROM
(
    SELECT arrayConcat([JSONExtractRaw(policy, 'default')], JSONExtractArrayRaw(policy, 'rule')) AS rules FROM watch_policy
)
ARRAY JOIN rules AS one, arrayEnumerate(rules) AS nth
COMMENT 'The rules about removal and the longest access in the watch policy in force';

CREATE VIEW computed_access
(
    grant_id String COMMENT 'The grant; filter on it',
    grant_key String COMMENT 'Its access key: joins with the other views',
    tenant String COMMENT 'Tenant',
    subject_id String COMMENT 'Holder of the access',
    subject_kind String COMMENT 'human, service, agent, system, unknown',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, from the tool, otherwise from the watch policy',
    entitlement String COMMENT 'Role or permission',
    request_id String COMMENT 'The request, if an activation or extension names it',
    request_key String COMMENT 'Access key of that request: joins with events; empty without a request',
    reason String COMMENT 'Reason in the latest activation or extension that gives one',
    ticket String COMMENT 'Ticket or incident in the latest activation or extension that gives one',
    customer String COMMENT 'Customer in the latest activation or extension that gives one',
    decisions Array(Tuple(at Nullable(DateTime64(6, 'UTC')), reviewer String, decision String, forced Bool)) COMMENT 'Decisions that activations and extensions repeat',
    source_system String COMMENT 'Source that issued the grant: the tool',
    source_instance String COMMENT 'Its installation; empty: any',
    activated_at DateTime64(6, 'UTC') COMMENT 'First activation, by the clock of the source',
    given_at DateTime64(6, 'UTC') COMMENT 'Latest activation or extension in log order, by the clock of the source',
    given_recorded_at DateTime64(6, 'UTC') COMMENT 'Append time of that activation or extension',
    stretch_recorded_at DateTime64(6, 'UTC') COMMENT 'Append time of the first activation or extension since the last removal',
    deadline_recorded_at DateTime64(6, 'UTC') COMMENT 'Append time of the activation or extension that set the deadline',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of the access, if later than its activation',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End in the latest activation or extension, or the latest end of several credentials that end automatically; null if the tool gives none',
    expiry_source String COMMENT 'native, derived, policy, unknown',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'expires_at minus the lead of the source clock over the broker; null if there is no end',
    policy_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Where the tool gives no end: the end by max_seconds of the watch policy; null without one',
    ends_by_itself Bool COMMENT 'All credentials of the grant end automatically, and the watch policy believes that',
    reported_evidence String COMMENT 'Best evidence of a reported removal after the latest activation or extension: none, deadline, api_accepted, confirmed',
    confirmed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First confirmed removal after the latest activation or extension, by the clock of the source',
    confirmed_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that removal',
    report_counts Bool COMMENT 'The watch policy takes a reported removal after the latest activation or extension for a removal',
    deadline_counts Bool COMMENT 'The watch policy takes a passed deadline for a removal; false if the removal is confirmed',
    historical Bool COMMENT 'Nothing of it was received until history_after_seconds of the watch policy after its deadline, and no read-back has shown that its access exists',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS WITH arrayFirst(event -> event.request_id != '', arrayReverse(given)) AS asked
SELECT
    grant_id, grant_key, tenant, given[1].subject_id AS subject_id, given[1].subject_kind AS subject_kind,
    given[1].resource_kind AS resource_kind, given[1].resource_id AS resource_id,
    environment AS resource_environment, given[1].entitlement AS entitlement,
    asked.request_id AS request_id, asked.request_key AS request_key,
    arrayFirst(text -> text != '', arrayReverse(given.reason)) AS reason,
    arrayFirst(text -> text != '', arrayReverse(given.ticket)) AS ticket,
    arrayFirst(text -> text != '', arrayReverse(given.customer)) AS customer,
    arrayDistinct(arrayFlatten(arrayFilter(event -> event.own, given).decisions)) AS decisions, issuer.1 AS source_system,
    issuer.2 AS source_instance,
    fromUnixTimestamp64Micro(given[1].occurred, 'UTC') AS activated_at,
    fromUnixTimestamp64Micro(latest.occurred, 'UTC') AS given_at,
    fromUnixTimestamp64Micro(latest.taken, 'UTC') AS given_recorded_at,
    fromUnixTimestamp64Micro(begun, 'UTC') AS stretch_recorded_at,
    fromUnixTimestamp64Micro(due_taken, 'UTC') AS deadline_recorded_at,
    effective.starts_at AS starts_at, fromUnixTimestamp64Micro(latest_end, 'UTC') AS expires_at, effective.expiry_source AS expiry_source,
    fromUnixTimestamp64Micro(due, 'UTC') AS deadline,
    if(due IS NULL AND longest > 0, fromUnixTimestamp64Micro(least(begun + longest, 253402300799000000), 'UTC'), NULL) AS policy_deadline,
    toBool(ends_by_itself) AS ends_by_itself,
    ['none', 'deadline', 'api_accepted', 'confirmed'][1 + arrayMax(arrayPushBack(after.evidence, 0))] AS reported_evidence,
    if(gone, fromUnixTimestamp64Micro(removal.occurred, 'UTC'), NULL) AS confirmed_at,
    if(gone, fromUnixTimestamp64Micro(removal.taken, 'UTC'), NULL) AS confirmed_recorded_at,
    toBool(arrayExists(each -> has(sufficient, each.evidence), after)) AS report_counts,
    toBool(has(sufficient, 1) AND NOT gone) AS deadline_counts,
    toBool(historical) AS historical,
    given[1].origin AS origin, given[1].place.2 AS `index`
-- One subquery per step: ClickHouse expands an alias wherever it is used in its SELECT, and the aliases in it again.
FROM
(
    SELECT
        *,
        if(latest_end IS NULL, NULL, greatest(0, assumeNotNull(latest_end) - greatest(0, effective.occurred - effective.taken))) AS due
    FROM
    (
    SELECT
        *,
        arrayFirst(event -> event.evidence = 3, after) AS removal,
        has(after.evidence, 3) AS gone,
        nullIf(if(earliest = 9223372036854775807, -1, earliest), -1) AS latest_end
    FROM
    (
    SELECT
        *,
        arrayConcat(missed[indexOf(given.place, latest.place)], arrayFilter(each -> each.place > latest.place, acting)) AS after,
        -- The earliest end of all contents with this event id.
        arrayMin(event -> if(event.source = effective.source AND event.id = effective.id, ifNull(toUnixTimestamp64Micro(event.expires_at), 9223372036854775807), 9223372036854775807), every_given) AS earliest
    FROM
    (
    SELECT
        *,
        turns[-1] AS latest,
        if(believed AND lasting.1 > 0, turns[lasting.1], turns[-1]) AS effective,
        lasting.1 > 0 AND lasting.3 AS ends_by_itself,
        if(lasting.1 = 0, turns[-1], turns[lasting.1]).taken AS due_taken,
        turns[greatest(lasting.5, 1)].taken AS begun
    FROM
    (
    SELECT
        *,
        -- Which turn the deadline comes from, its end, whether all credentials since the last removal end by themselves,
        -- whether it is an extension, and the first turn since they did. A credential with an earlier end, and a repeated
        -- end, change nothing.
        arrayFold(
            (so_far, turn) -> multiIf(
                so_far.1 = 0 OR turn.5, (turn.1, turn.2, turn.3, turn.4, if(so_far.1 = 0 OR turn.7 OR (so_far.3 AND so_far.2 <= turn.6), turn.1, so_far.5)),
                turn.2 = so_far.2 AND (turn.4 OR NOT so_far.4),
                    (so_far.1, so_far.2, so_far.3 AND turn.3, so_far.4, if(so_far.3 AND so_far.2 <= turn.6, turn.1, so_far.5)),
                turn.3 AND NOT turn.4 AND turn.2 < so_far.2 AND so_far.2 < 9223372036854775807,
                    (so_far.1, so_far.2, so_far.3, so_far.4, if(so_far.3 AND so_far.2 <= turn.6, turn.1, so_far.5)),
                (turn.1, turn.2, turn.3 AND (turn.4 OR so_far.3), turn.4, if(so_far.3 AND so_far.2 <= turn.6, turn.1, so_far.5))
            ),
            steps, CAST((0, 0, false, false, 0), 'Tuple(UInt32, Int64, Bool, Bool, UInt32)')
        ) AS lasting
    FROM
    (
    SELECT
        *,
        -- By turn: its number, its end, whether it ends by itself, whether it extends, whether a removal that counts
        -- precedes, when it was recorded, and whether that removal was known by then.
        arrayMap(
            (event, nth, before) -> CAST((
                nth,
                if(event.ends = 9223372036854775807, event.ends, greatest(1, event.ends - greatest(0, event.occurred - event.taken))),
                event.ends_by_itself, event.extended,
                nth > 1 AND arrayExists(each -> has(sufficient, each.evidence) AND each.place > before AND each.place < event.place, acting),
                event.taken,
                nth > 1 AND arrayExists(each -> has(sufficient, each.evidence) AND each.place > before AND each.place < event.place AND each.taken <= event.taken, acting)
            ), 'Tuple(UInt32, Int64, Bool, Bool, Bool, Int64, Bool)'),
            agreed, arrayEnumerate(agreed), arraySlice(arrayPushFront(agreed.place, CAST((0, 0), 'Tuple(UInt32, UInt64)')), 1, length(agreed))
        ) AS steps
    FROM
    (
    SELECT
        *,
        -- The turns of a grant with several of them or with credentials that end by themselves, as all contents of each
        -- event agree.
        arrayMap(
            event -> CAST((
                event.place, event.occurred, event.taken, event.extended,
                arrayMin(each -> if(each.source = event.source AND each.id = event.id, ifNull(toUnixTimestamp64Micro(each.expires_at), 9223372036854775807), 9223372036854775807), arrayPushBack(contents, event)),
                believed AND event.ends_by_itself AND NOT arrayExists(each -> each.source = event.source AND each.id = event.id AND NOT each.ends_by_itself, contents)
            ), 'Tuple(place Tuple(UInt32, UInt64), occurred Int64, taken Int64, extended Bool, ends Int64, ends_by_itself Bool)'),
            if(believed OR length(turns) > 1, turns, [])
        ) AS agreed
    FROM
    (
    SELECT
        *,
        multiIf(notEmpty(live), live, notEmpty(in_time), in_time, arrayFilter(event -> NOT event.whole_request, given)) AS turns,
        ifNull(arrayLast(rule -> rule.5 IS NOT NULL, matching).5, false) AS believed,
        if(length(every_given) > length(each_given), every_given, []) AS contents
    FROM
    (
    SELECT
        *,
        arrayFilter(event -> NOT event.whole_request OR (
            arrayExists(each -> NOT each.whole_request AND each.place < event.place, known)
            AND NOT arrayExists(
                each -> each.evidence = 3 AND each.place < event.place
                    AND NOT arrayExists(again -> NOT again.whole_request AND again.place > each.place AND again.place < event.place, known),
                acting)
        ), prompt) AS live
    FROM
    (
    SELECT
        *,
        -- The access that these gave exists, even if they arrived too late to change anything else.
        arrayFilter((event, own) -> NOT arrayExists(each -> has(counting, each.evidence), own), given, missed) AS known,
        arrayFilter((event, late) -> NOT late AND NOT event.whole_request, given, too_late) AS in_time,
        arrayFilter((event, own, late) -> NOT late AND NOT arrayExists(each -> has(counting, each.evidence), own), given, missed, too_late) AS prompt
    FROM
    (
    SELECT
        *,
        -- Reports that arrived too late to change anything. First, an extension that arrived after its own end and after the
        -- end that it extends. Second, an old activation or extension of a grant for which another report arrived in time.
        arrayMap((event, ends, old) -> NOT historical AND length(given) > 1 AND (
            (event.extended AND ends > 0 AND ends <= event.received
                AND arrayExists((each, of_old) -> each.place < event.place AND NOT (of_old AND has(given_old, 0)), given, given_old)
                AND NOT arrayExists(
                    (each, end, of_old) -> each.place < event.place AND NOT (of_old AND has(given_old, 0)) AND (end = 0 OR end > event.received),
                    given, given_ends, given_old))
            OR (old AND has(given_old, 0))
        ), given, given_ends, given_old) AS too_late
    FROM
    (
    SELECT
        *,
        arrayMap((event, ends) -> event.received >= greatest(ends, least(event.occurred, event.taken) + if(ends = 0, longest, 0)) + history_after, given, given_ends) AS given_old,
        first_received >= greatest(arrayMax(given_ends), arrayMax(event -> least(event.occurred, event.taken), given) + longest) + history_after
            AND NOT arrayExists(each -> each.place > first.place AND each.access = first.access, observed) AS historical
    FROM
    (
    SELECT
        *,
        if(arrayExists(rule -> rule.4, matching), arrayLast(rule -> rule.4, matching).3, [3]) AS counting,
        if(arrayExists(rule -> rule.4, removing), arrayLast(rule -> rule.4, removing).3, [3]) AS sufficient,
        if(has(given_ends, 0), toInt64(ifNull(arrayLast(rule -> rule.6, matching).7, 0) * 1e6), 0) AS longest,
        toInt64(1e6 * ifNull((SELECT if(JSONHas(policy, 'history_after_seconds'), JSONExtractFloat(policy, 'history_after_seconds'), 3600) FROM watch_policy), 3600)) AS history_after
    FROM
    (
    SELECT
        *,
        -- The rules that say which evidence is sufficient: looked up only for grants that have no confirmed removal, and
        -- only if a rule takes less than that.
        if(empty(matching), arrayFilter(
            rule -> tenant LIKE rule.2[1] AND given[1].source_system LIKE rule.2[2] AND given[1].source_instance LIKE rule.2[3]
                AND given[1].resource_kind LIKE rule.2[4] AND given[1].resource_id LIKE rule.2[5]
                AND environment LIKE rule.2[6] AND given[1].entitlement LIKE rule.2[7],
            if((SELECT max(has_counting AND counting != [3]) FROM removal_rules)
                    AND NOT arrayExists(each -> each.evidence = 3 AND each.place > given[-1].place, acting),
                (SELECT arraySort(groupArray((nth, patterns, counting, has_counting, ends_by_itself, has_longest, longest))) FROM removal_rules), [])
        ), matching) AS removing
    FROM
    (
    SELECT
        *,
        -- Looked up only where it matters: it takes as long as all the rest.
        arrayFilter(
            rule -> tenant LIKE rule.2[1] AND given[1].source_system LIKE rule.2[2] AND given[1].source_instance LIKE rule.2[3]
                AND given[1].resource_kind LIKE rule.2[4] AND given[1].resource_id LIKE rule.2[5]
                AND environment LIKE rule.2[6] AND given[1].entitlement LIKE rule.2[7],
            if(has(given.ends_by_itself, true) OR has(given_ends, 0) OR arrayExists(own -> arrayExists(each -> each.evidence IN (1, 2), own), missed),
                (SELECT arraySort(groupArray((nth, patterns, counting, has_counting, ends_by_itself, has_longest, longest))) FROM removal_rules), [])
        ) AS matching
    FROM
    (
    SELECT
        *,
        -- Of several matching environments the last one counts.
        if(given[1].resource_environment != '', given[1].resource_environment, arrayLast(
            one -> issuer.1 LIKE one.2 AND given[1].source.2 LIKE one.3 AND given[1].resource_kind LIKE one.4 AND given[1].resource_id LIKE one.5,
            (SELECT arraySort(groupArray((`order`, system, instance, resource_kind, resource_id, environment))) FROM environments)
        ).6) AS environment
    FROM
    (
    SELECT
        *,
        arrayMap(event -> arrayFilter(
            each -> each.place < event.place AND each.source_system = event.source_system AND each.source_instance = event.source_instance
                AND event.occurred + multiIf(event.occurred % 1000000 = 0, 1000000, event.occurred % 1000 = 0, 1000, 1) <= least(each.occurred, each.taken),
            removals), given) AS missed,
        -- The deadline of each, 0 without one.
        arrayMap(event -> if(event.expires_at IS NULL, 0, greatest(1, assumeNotNull(toUnixTimestamp64Micro(event.expires_at)) - greatest(0, event.occurred - event.taken))), given) AS given_ends,
        least(own_received, arrayMin(arrayConcat(given.received, acting.received))) AS first_received
    FROM
    (
    SELECT
        *,
        arrayFilter(event -> NOT has(replayed, event.place), each_given) AS given,
        arrayFilter(each -> NOT has(replayed, each.place), removals) AS acting
    FROM
    (
    SELECT
        *,
        arrayMap(report -> report.2, arrayFilter(
            (report, before, given_at) -> report.4 AND before.2 > 0 AND report.5 <= given_at,
            reports, earlier, arrayReduceInRanges('max', earlier, reports.3)
        )) AS replayed
    FROM
    (
    SELECT
        *,
        arrayMap((nth, nth_of_source) -> (toInt64(nth - nth_of_source + 1), toUInt64(nth_of_source - 1)), arrayEnumerate(reports), arrayEnumerateUniq(reports.1)) AS earlier
    FROM
    (
    SELECT
        *,
        -- By source and place: when the source gave the grant, whether the report may be a replay, and the end of its moment.
        arraySort(arrayConcat(
            arrayMap(event -> (event.source, event.place, least(event.occurred, event.taken), event.signed AND event.extended, event.occurred + multiIf(event.occurred % 1000000 = 0, 1000000, event.occurred % 1000 = 0, 1000, 1)), each_given),
            arrayMap(event -> (event.source, event.place, toInt64(-9223372036854775808), event.signed, event.occurred + multiIf(event.occurred % 1000000 = 0, 1000000, event.occurred % 1000 = 0, 1000, 1)), removals)
        )) AS reports
    FROM
    (
    SELECT
        *,
        arrayFilter((event, nth) -> nth = 1, every_given, arrayEnumerateUniq(every_given.source, every_given.id)) AS each_given,
        -- The weakest content of each event, unless another content of it is no removal.
        arraySort(event -> event.place, arrayFilter(
            (event, nth) -> nth = 1 AND (event.own OR (event.place > first.place AND event.access = first.access))
                AND NOT arrayExists(other -> other.id = event.id AND other.source = event.source, every_given),
            all_removals, arrayEnumerateUniq(all_removals.source, all_removals.id)
        )) AS removals
    FROM
    (
    SELECT
        *,
        arrayFilter(
            event -> (event.own AND NOT event.whole_request)
                OR (event.place > first.place AND (event.own OR event.access = first.access)),
            all_given
        ) AS every_given
    FROM
    (
    SELECT
        *,
        arrayFirst(event -> event.own AND NOT event.whole_request, all_given) AS first
    FROM
    (
    SELECT
        tenant, issuer, grant_id, grant_key,
        arraySort(event -> event.place, groupArrayIf(CAST(
            (place, event_id, (source_system, source_instance), own, whole_request, (subject_id, resource_kind, resource_id, entitlement), occurred, taken, signed, event_type = 'grant.extended', origin, subject_id, subject_kind, resource_kind, resource_id, resource_environment, entitlement, request_id, request_key, reason, ticket, customer, arrayMap(each -> (each.at, each.reviewer, each.decision, each.forced), approvals), source_system, source_instance, starts_at, expires_at, expiry_source, ends_by_itself, received),
            'Tuple(place Tuple(UInt32, UInt64), id String, source Tuple(String, String), own Bool, whole_request Bool, access Tuple(String, String, String, String), occurred Int64, taken Int64, signed Bool, extended Bool, origin String, subject_id String, subject_kind String, resource_kind String, resource_id String, resource_environment String, entitlement String, request_id String, request_key String, reason String, ticket String, customer String, decisions Array(Tuple(at Nullable(DateTime64(6, \'UTC\')), reviewer String, decision String, forced Bool)), source_system String, source_instance String, starts_at Nullable(DateTime64(6, \'UTC\')), expires_at Nullable(DateTime64(6, \'UTC\')), expiry_source String, ends_by_itself Bool, received Int64)'
        ), event_type IN ('grant.activated', 'grant.extended') AND NOT failed)) AS all_given,
        arraySort(event -> (event.source, event.id, event.evidence, event.place), groupArrayIf(CAST(
            (place, event_id, (source_system, source_instance), own, (subject_id, resource_kind, resource_id, entitlement), occurred, taken, signed, multiIf(failed, 0, removal_evidence = 'confirmed' AND outcome != 'success', 2, transform(removal_evidence, ['deadline', 'api_accepted', 'confirmed'], [1, 2, 3], 0)), source_system, source_instance, received),
            'Tuple(place Tuple(UInt32, UInt64), id String, source Tuple(String, String), own Bool, access Tuple(String, String, String, String), occurred Int64, taken Int64, signed Bool, evidence UInt8, source_system String, source_instance String, received Int64)'
        ), event_type IN ('grant.revoked', 'grant.expired'))) AS all_removals,
        -- Anything that its own source reported of the grant.
        minIf(received, own AND NOT whole_request) AS own_received,
        -- Where another source read back that the access exists, and which access.
        groupArrayIf(CAST((place, (subject_id, resource_kind, resource_id, entitlement)), 'Tuple(place Tuple(UInt32, UInt64), access Tuple(String, String, String, String))'), event_type = 'grant.observed' AND NOT own AND NOT failed) AS observed
    FROM
    (
        SELECT
            *, (epoch, `index`) AS place, signature = 'valid' AS signed, toUnixTimestamp64Micro(occurred_at) AS occurred,
            toUnixTimestamp64Micro(recorded_at) AS taken, toUnixTimestamp64Micro(arrived_at) AS received,
            outcome IN ('failure', 'denied') AS failed,
            ifNull(said_to_end, false) AND expires_at IS NOT NULL AND expiry_source IN ('native', 'derived') AS ends_by_itself,
            source_system = issuer.1 AND issuer.2 IN ('', source_instance) AS own,
            multiIf(event_type IN ('grant.revoked', 'grant.expired', 'grant.observed'), 'remove', event_type = 'grant.extended', 'extend', '') AS report,
            (report = 'remove' AND source_system = 'grantledger-enforcer') OR arrayExists(
                one -> has(one.5, report) AND source_system LIKE one.1 AND source_instance LIKE one.2
                    AND issuer.1 LIKE one.3 AND issuer.2 LIKE one.4,
                (SELECT groupArray((system, instance, source, source_instance, may)) FROM reporters)
            ) AS reported
        FROM
        (
            SELECT
                tenant, grant_id, access_key AS grant_key,
                CAST((grant_source_system, grant_source_instance), 'Tuple(String, String)') AS issuer,
                CAST(false, 'Bool') AS whole_request, CAST((0, 0), 'Tuple(UInt32, UInt64)') AS known,
                event_type, event_id, occurred_at, recorded_at, arrived_at, epoch, `index`, origin, subject_id, subject_kind, resource_kind, resource_id,
                resource_environment, entitlement, request_id, request_key, reason, ticket, customer, approvals, source_system, source_instance, starts_at,
                expires_at, expiry_source, ends_by_itself AS said_to_end, removal_evidence, signature, outcome
            FROM access_events
            WHERE generation = (SELECT max(generation) FROM state_refreshes) AND grant_id != ''
                AND event_type IN ('grant.activated', 'grant.extended', 'grant.revoked', 'grant.expired', 'grant.failed', 'grant.observed')
            UNION ALL
            SELECT
                tenant, grant_id, grant_key, issuer, CAST(true, 'Bool') AS whole_request, known,
                event_type, event_id, if((epoch, `index`) < known, least(happened_at, reported_at), happened_at) AS occurred_at,
                greatest(reported_at, known_at) AS recorded_at, arrived_at, epoch, `index`, origin, subject_id, subject_kind, resource_kind, resource_id,
                resource_environment, entitlement, request_id, request_key, reason, ticket, customer, approvals, source_system, source_instance, starts_at,
                expires_at, expiry_source, said_to_end, removal_evidence, signature, outcome
            FROM
            (
                SELECT
                    tenant,
                    event_type, event_id, occurred_at AS happened_at, recorded_at AS reported_at, arrived_at, epoch, `index`, origin, subject_id, subject_kind, resource_kind, resource_id,
                resource_environment, entitlement, request_id, access_key AS request_key, reason, ticket, customer, approvals, source_system, source_instance, starts_at,
                expires_at, expiry_source, ends_by_itself AS said_to_end, removal_evidence, signature, outcome
                FROM access_events
                WHERE generation = (SELECT max(generation) FROM state_refreshes) AND grant_id = '' AND request_id != ''
                    AND event_type IN ('grant.extended', 'grant.revoked', 'grant.expired')
            ) AS of_request
            -- The rows on the right decide which of those on the left are read.
            INNER JOIN
            (
                SELECT
                    grant_id, access_key AS grant_key,
                    CAST((grant_source_system, grant_source_instance), 'Tuple(String, String)') AS issuer,
                    argMin(request_key, (epoch, `index`)) AS request_key,
                    CAST(min((epoch, `index`)), 'Tuple(UInt32, UInt64)') AS known,
                    argMin(recorded_at, (epoch, `index`)) AS known_at
                FROM access_events
                WHERE generation = (SELECT max(generation) FROM state_refreshes) AND grant_id != '' AND request_id != ''
                    AND startsWith(event_type, 'grant.') AND source_system = grant_source_system
                    AND grant_source_instance IN ('', source_instance)
                    AND 0 < (SELECT count() FROM (SELECT 1 FROM access_events WHERE generation = (SELECT max(generation) FROM state_refreshes) AND grant_id = '' AND event_type IN ('grant.extended', 'grant.revoked', 'grant.expired') LIMIT 1))
                GROUP BY grant_id, grant_key, issuer
            ) AS link USING request_key
        )
        WHERE (own OR reported) AND (NOT whole_request OR place > known OR (own AND report = 'remove'))
    )
    GROUP BY tenant, issuer, grant_id, grant_key
    )
    )
    )
    )
    )
    )
    )
    )
    -- Here, not further out: what follows takes for granted that there is one.
    WHERE arrayExists(event -> event.own AND NOT event.whole_request, given)
    )
    )
    )
    )
    )
    )
    )
    )
    )
    )
    )
    )
    )
    )
    )
    )
)
-- The analysis of the many conditions above would take longer than all the rest, and find nothing.
SETTINGS optimize_and_compare_chain = 0
COMMENT 'One row per grant, computed from its own events: computed_grants adds what requests and findings say';
