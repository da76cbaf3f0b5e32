-- The states of requests, grants and findings as rows. The store computes the rows of what new entries concern, some
-- seconds after it stored them, by the views computed_requests, computed_findings, computed_grants and computed_activity
-- (0007_access_review.sql). If something changes that all states depend on, such as the watch policy, it computes all of
-- them under the next generation.
--
-- The keys of the tables begin with the ids, so that a condition on them is tested before other columns are read
-- (optimize_move_to_prewhere_if_final).
--
-- What depends on the current time, such as access that has ended with its credential, is an ALIAS column: each query
-- computes it.
CREATE TABLE stored_requests
(
    generation UInt64 COMMENT 'As in state_refreshes',
    version UInt64 COMMENT 'As in state_refreshes: of the refresh that computed the row',
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
ENGINE = ReplacingMergeTree(version)
PARTITION BY generation
ORDER BY (generation, request_key, tenant)
SETTINGS index_granularity = 512
COMMENT 'Rows of computed_requests';

CREATE TABLE stored_grants
(
    generation UInt64 COMMENT 'As in state_refreshes',
    version UInt64 COMMENT 'As in state_refreshes: of the refresh that computed the row; in live_grants twice that, and one more if it was over later',
    over UInt8 DEFAULT is_over COMMENT 'is_over when the row was computed',
    grant_id String COMMENT 'The grant; filter on it',
    grant_key String COMMENT 'Its access key: joins with the other views',
    tenant String COMMENT 'Tenant',
    subject_id String COMMENT 'Holder of the access',
    subject_kind String COMMENT 'human, service, agent, system, unknown',
    person String COMMENT 'The holder by the name in the watch policy, otherwise subject_id',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, from the tool, otherwise from the watch policy',
    entitlement String COMMENT 'Role or permission',
    request_id String COMMENT 'The request, if an activation or extension names it',
    request_key String COMMENT 'Access key of that request: joins with requests and events; empty without a request',
    requested_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Time of the request, by the clock of the source; null if no request is on record',
    requested_by String COMMENT 'Requester',
    reason String COMMENT 'Reason in the latest activation or extension that gives one, otherwise that of the request',
    ticket String COMMENT 'Ticket or incident, likewise; otherwise the one that the ticket_pattern of the watch policy finds in the reason',
    customer String COMMENT 'Customer on whose data support staff worked, likewise',
    approvals String COMMENT 'Reviewer, decision and time of every decision, separated by semicolons',
    approved_by Array(String) COMMENT 'Everyone whose last decision approves, by the names in the watch policy',
    forced Bool COMMENT 'Break-glass: somebody approved it by force',
    source_system String COMMENT 'Source that issued the grant: the tool',
    source_instance String COMMENT 'Its installation; empty: any',
    activated_at DateTime64(6, 'UTC') COMMENT 'First activation, by the clock of the source',
    given_at DateTime64(6, 'UTC') COMMENT 'Latest activation or extension in log order, by the clock of the source',
    given_recorded_at DateTime64(6, 'UTC') COMMENT 'Append time of that activation or extension',
    stretch_recorded_at DateTime64(6, 'UTC') COMMENT 'Append time of the first activation or extension since the last removal',
    deadline_recorded_at DateTime64(6, 'UTC') COMMENT 'Append time of the activation or extension that set the deadline',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of the access, if later than its activation',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End in the latest activation or extension; null if the tool gives none',
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
    finding String COMMENT 'Overdue finding of the grant: open; resolved, or closed by a person, since the activation or extension that set the deadline; none',
    found_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline of the open finding; null if there is none',
    found_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the finding; null if there is none',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log',
    lapsed Bool ALIAS ends_by_itself AND ifNull(deadline < now64(6, 'UTC'), false) COMMENT 'Its credentials have ended automatically',
    removal_evidence String ALIAS if(lapsed AND reported_evidence = 'none', 'deadline', reported_evidence) COMMENT 'Best evidence of a removal after the latest activation or extension: none, deadline, api_accepted, confirmed',
    removed_at Nullable(DateTime64(6, 'UTC')) ALIAS if(lapsed AND ifNull(confirmed_recorded_at > deadline, true), deadline, confirmed_at) COMMENT 'First confirmed removal after the latest activation or extension, by the clock of the source, or the passed deadline if all credentials of the grant end automatically and the watch policy believes that; null while open',
    removal_recorded_at Nullable(DateTime64(6, 'UTC')) ALIAS if(lapsed AND ifNull(confirmed_recorded_at > deadline, true), deadline, confirmed_recorded_at) COMMENT 'Append time of that removal, or that deadline',
    late_seconds Nullable(Float64) ALIAS multiIf(
        lapsed, 0,
        confirmed_at IS NOT NULL AND deadline IS NOT NULL,
            round(greatest(0, dateDiff('microsecond', deadline, if(historical, least(confirmed_at, confirmed_recorded_at), confirmed_recorded_at))) / 1e6, 3),
        NULL
    ) COMMENT 'From the deadline to removal_recorded_at, 0 if in time; null while open or without a deadline. Of a historical grant, to removed_at',
    ended Bool ALIAS lapsed OR report_counts OR confirmed_at IS NOT NULL OR (deadline_counts AND ifNull(ifNull(deadline, policy_deadline) < now64(6, 'UTC'), false)) COMMENT 'The access has ended under the watch policy: its removal is confirmed, or the policy takes the evidence or the passed deadline for a removal',
    alone String ALIAS multiIf(
        finding = 'open', 'overdue', removed_at IS NOT NULL, 'removed', ended OR finding = 'resolved', 'ended', historical, 'unresolved',
        ifNull(deadline, policy_deadline) IS NULL, 'no deadline', ifNull(deadline, policy_deadline) >= now64(6, 'UTC'), 'active', 'past its end'
    ) COMMENT 'The state in grants, if no other grant gives the same access',
    is_over UInt8 ALIAS finding != 'open' AND (ended OR historical) COMMENT 'Whether the access is over, whatever time passes: the states removed, ended and unresolved'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY generation
ORDER BY (generation, grant_id, grant_key, tenant)
SETTINGS index_granularity = 512
COMMENT 'Rows of computed_grants';

CREATE TABLE live_grants AS stored_grants
ENGINE = ReplacingMergeTree(version, over)
PARTITION BY generation
ORDER BY (generation, grant_id, grant_key, tenant)
SETTINGS allow_experimental_replacing_merge_with_cleanup = 1
COMMENT 'The rows of stored_grants whose access is not over: few, however old the ledger is';

CREATE TABLE stored_findings
(
    generation UInt64 COMMENT 'As in state_refreshes',
    version UInt64 COMMENT 'As in state_refreshes: of the refresh that computed the row',
    rule String COMMENT 'Rule that opened the finding',
    key String COMMENT 'Object of the finding: a grant, session, source, log …',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline that the finding is about; the start of the hour or day if it counts what a source did; null if there is neither',
    severity String COMMENT 'info, warning, critical; of the latest opening',
    summary String COMMENT 'The rule in one line',
    open Bool COMMENT 'Opened, and neither resolved nor closed since then',
    opened_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the first opening; null if no opening is on record',
    resolved_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the automatic resolution since the latest opening; null if there is none',
    acknowledged_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the latest acknowledgment since the latest opening; null if there is none',
    acknowledged_by String COMMENT 'Person who acknowledged it',
    closed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the closing by a person since the latest opening; null if nobody closed it',
    closed_by String COMMENT 'Person who closed it',
    closed_reason String COMMENT 'Reason that this person gave',
    times_opened UInt64 COMMENT 'Number of openings',
    evidence String COMMENT 'JSON object of the latest opening or resolution, for people',
    tenant String COMMENT 'Tenant',
    issuer_system String COMMENT 'Source that issued the id in key: the tool; empty if key is no id of a grant, request or session',
    issuer_instance String COMMENT 'Its installation',
    grant_source_system String COMMENT 'Source that issued the grant: the tool',
    grant_source_instance String COMMENT 'Its installation',
    request_source_system String COMMENT 'Source that issued the request: the tool',
    request_source_instance String COMMENT 'Its installation',
    session_source_system String COMMENT 'Source that issued the session: the tool',
    session_source_instance String COMMENT 'Its installation',
    grant_id String COMMENT 'The grant, if the finding is about one',
    grant_key String COMMENT 'Its access key: joins with the other views; empty without a grant',
    request_id String COMMENT 'The request, if known',
    session_id String COMMENT 'The session, if known',
    subject_id String COMMENT 'Holder of the access, or the object of the finding',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    origin String COMMENT 'Log of the latest event of the finding',
    `index` UInt64 COMMENT 'Position of that event',
    person String COMMENT 'subject_id by the name in the watch policy, otherwise subject_id'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY generation
ORDER BY (generation, rule, key, tenant, issuer_system, issuer_instance, deadline)
SETTINGS allow_nullable_key = 1
COMMENT 'Rows of computed_findings, and the person of each';

CREATE VIEW computed_grants
(
    grant_id String COMMENT 'The grant; filter on it',
    grant_key String COMMENT 'Its access key: joins with the other views',
    tenant String COMMENT 'Tenant',
    subject_id String COMMENT 'Holder of the access',
    subject_kind String COMMENT 'human, service, agent, system, unknown',
    person String COMMENT 'The holder by the name in the watch policy, otherwise subject_id',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, from the tool, otherwise from the watch policy',
    entitlement String COMMENT 'Role or permission',
    request_id String COMMENT 'The request, if an activation or extension names it',
    request_key String COMMENT 'Access key of that request: joins with requests and events; empty without a request',
    requested_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Time of the request, by the clock of the source; null if no request is on record',
    requested_by String COMMENT 'Requester',
    reason String COMMENT 'Reason in the latest activation or extension that gives one, otherwise that of the request',
    ticket String COMMENT 'Ticket or incident, likewise; otherwise the one that the ticket_pattern of the watch policy finds in the reason',
    customer String COMMENT 'Customer on whose data support staff worked, likewise',
    approvals String COMMENT 'Reviewer, decision and time of every decision, separated by semicolons',
    approved_by Array(String) COMMENT 'Everyone whose last decision approves, by the names in the watch policy',
    forced Bool COMMENT 'Break-glass: somebody approved it by force',
    source_system String COMMENT 'Source that issued the grant: the tool',
    source_instance String COMMENT 'Its installation; empty: any',
    activated_at DateTime64(6, 'UTC') COMMENT 'First activation, by the clock of the source',
    given_at DateTime64(6, 'UTC') COMMENT 'Latest activation or extension in log order, by the clock of the source',
    given_recorded_at DateTime64(6, 'UTC') COMMENT 'Append time of that activation or extension',
    stretch_recorded_at DateTime64(6, 'UTC') COMMENT 'Append time of the first activation or extension since the last removal',
    deadline_recorded_at DateTime64(6, 'UTC') COMMENT 'Append time of the activation or extension that set the deadline',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of the access, if later than its activation',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End in the latest activation or extension; null if the tool gives none',
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
    finding String COMMENT 'Overdue finding of the grant: open; resolved, or closed by a person, since the activation or extension that set the deadline; none',
    found_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline of the open finding; null if there is none',
    found_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the finding; null if there is none',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS WITH
    (
        SELECT (arrayPushBack(groupArray(identity), '\0'), arrayPushBack(groupArray(person), ''))
        FROM people
    ) AS known_people,
    ifNull((SELECT JSONExtractString(policy, 'ticket_pattern') FROM watch_policy), '') AS ticket_pattern
SELECT
    grant_id, grant_key, tenant, subject_id, subject_kind,
    transform(caseFoldUTF8(normalizeUTF8NFC(replaceRegexpAll(toValidUTF8(subject_id), '^[\\s\\p{Z}]+|[\\s\\p{Z}]+$', ''))), known_people.1, known_people.2, subject_id) AS person,
    resource_kind, resource_id, resource_environment, entitlement, request_id, request_key, requested_at, requested_by,
    why AS reason,
    multiIf(ticket_given != '', ticket_given, ticket_pattern = '', '', extract(why, ticket_pattern)) AS ticket,
    for_customer AS customer,
    arrayStringConcat(arrayDistinct(arrayMap(
        each -> concat(each.2, ' ', each.3, if(each.4, ' (forced)', ''), ifNull(concat(' ', formatDateTime(each.1, '%Y-%m-%d %H:%i:%S'), ' UTC'), '')),
        arraySort(each -> (ifNull(toUnixTimestamp64Micro(each.1), 9223372036854775807), each.2, each.3), arrayFilter(
            each -> NOT (each.3 = 'pending' AND (each.2 = 'unknown' OR arrayExists(other -> other.2 = each.2 AND other.3 != 'pending', every_decision)))
                AND NOT (each.1 IS NULL AND arrayExists(other -> other.2 = each.2 AND other.3 = each.3 AND other.1 IS NOT NULL, every_decision)),
            every_decision
        ))
    )), '; ') AS approvals,
    -- Of each person the last decision counts, and a denial wins if two have the same time.
    arraySort(arrayDistinct(arrayMap(each -> each.2, arrayFilter(
        each -> each.3 = 'approved' AND NOT arrayExists(other -> other.2 = each.2 AND other.3 = 'denied' AND ifNull(other.1 >= each.1, false), decisions_of_people),
        arrayMap(
            each -> (each.1, transform(caseFoldUTF8(normalizeUTF8NFC(replaceRegexpAll(toValidUTF8(each.2), '^[\\s\\p{Z}]+|[\\s\\p{Z}]+$', ''))), known_people.1, known_people.2, each.2), each.3),
            every_decision
        ) AS decisions_of_people
    )))) AS approved_by,
    arrayExists(each -> each.4 AND each.3 = 'approved', every_decision) AS forced,
    source_system, source_instance, activated_at, given_at, given_recorded_at, stretch_recorded_at, deadline_recorded_at,
    starts_at, expires_at, expiry_source, deadline, policy_deadline, ends_by_itself, reported_evidence, confirmed_at,
    confirmed_recorded_at, report_counts, deadline_counts, historical,
    multiIf(open_count > 0, 'open', NOT ifNull(last_ended > deadline_recorded_at, false), 'none', by_person, 'closed', 'resolved') AS finding,
    found_deadline, found_at, origin, `index`
FROM
(
    SELECT
        given.*,
        if(given.reason = '', asked_reason, given.reason) AS why,
        if(given.ticket = '', asked_ticket, given.ticket) AS ticket_given,
        if(given.customer = '', asked_customer, given.customer) AS for_customer,
        arrayDistinct(arrayConcat(asked_decisions, given.decisions)) AS every_decision,
        open_count, last_ended, by_person, found_at, found_deadline
    FROM
    (
        SELECT
            key AS found_key, tenant AS found_tenant, issuer_system, issuer_instance,
            countIf(open) AS open_count, maxIf(ifNull(resolved_at, closed_at), NOT open) AS last_ended,
            argMaxIf(resolved_at IS NULL, ifNull(resolved_at, closed_at), NOT open) AS by_person,
            minIf(opened_at, open) AS found_at, minIf(deadline, open) AS found_deadline
        FROM stored_findings FINAL
        WHERE generation = (SELECT max(generation) FROM state_refreshes) AND rule = 'overdue'
        GROUP BY found_key, found_tenant, issuer_system, issuer_instance
    ) AS found
    -- The rows on the right decide which of those on the left are read.
    RIGHT JOIN
    (
        SELECT given.*, requested_at, requested_by, asked_reason, asked_ticket, asked_customer, asked_decisions
        FROM
        (
            SELECT
                request_key AS asked_key, requested_at, requested_by, reason AS asked_reason, ticket AS asked_ticket,
                customer AS asked_customer, decisions AS asked_decisions
            FROM stored_requests FINAL
            WHERE generation = (SELECT max(generation) FROM state_refreshes)
        ) AS asked
        RIGHT JOIN computed_access AS given ON asked.asked_key = given.request_key
    ) AS given
    ON found.found_key = given.grant_id AND found.found_tenant = given.tenant
        AND found.issuer_system = given.source_system AND found.issuer_instance = given.source_instance
)
SETTINGS join_use_nulls = 0
COMMENT 'One row per grant, computed: what grants shows, except for what depends on the current time';

CREATE VIEW requests
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
    approvals String COMMENT 'The same as text: reviewer, decision and time, separated by semicolons',
    source_system String COMMENT 'Source that issued the request: the tool',
    source_instance String COMMENT 'Its installation; empty: any',
    tenant String COMMENT 'Tenant'
)
AS SELECT
    request_id, request_key, state, requested_at, requested_by, subject_id, resource_kind, resource_id, entitlement,
    reason, ticket, customer, decisions,
    arrayStringConcat(arrayDistinct(arrayMap(
        each -> concat(each.2, ' ', each.3, if(each.4, ' (forced)', ''), ifNull(concat(' ', formatDateTime(each.1, '%Y-%m-%d %H:%i:%S'), ' UTC'), '')),
        arraySort(each -> (ifNull(toUnixTimestamp64Micro(each.1), 9223372036854775807), each.2, each.3), arrayFilter(
            each -> NOT (each.3 = 'pending' AND (each.2 = 'unknown' OR arrayExists(other -> other.2 = each.2 AND other.3 != 'pending', decisions)))
                AND NOT (each.1 IS NULL AND arrayExists(other -> other.2 = each.2 AND other.3 = each.3 AND other.1 IS NOT NULL, decisions)),
            decisions
        ))
    )), '; ') AS approvals,
    source_system, source_instance, tenant
FROM stored_requests FINAL
WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete)
SETTINGS optimize_move_to_prewhere_if_final = 1
COMMENT 'One row per request: who asked for what and why, and every decision';

CREATE VIEW findings
(
    rule String COMMENT 'Rule that opened the finding',
    key String COMMENT 'Object of the finding: a grant, session, source, log …',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline that the finding is about; the start of the hour or day if it counts what a source did; null if there is neither',
    severity String COMMENT 'info, warning, critical; of the latest opening',
    summary String COMMENT 'The rule in one line',
    open Bool COMMENT 'Opened, and neither resolved nor closed since then',
    opened_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the first opening; null if no opening is on record',
    resolved_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the automatic resolution since the latest opening; null if there is none',
    acknowledged_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the latest acknowledgment since the latest opening; null if there is none',
    acknowledged_by String COMMENT 'Person who acknowledged it',
    closed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the closing by a person since the latest opening; null if nobody closed it',
    closed_by String COMMENT 'Person who closed it',
    closed_reason String COMMENT 'Reason that this person gave',
    times_opened UInt64 COMMENT 'Number of openings',
    evidence String COMMENT 'JSON object of the latest opening or resolution, for people',
    tenant String COMMENT 'Tenant',
    issuer_system String COMMENT 'Source that issued the id in key: the tool; empty if key is no id of a grant, request or session',
    issuer_instance String COMMENT 'Its installation',
    grant_source_system String COMMENT 'Source that issued the grant: the tool',
    grant_source_instance String COMMENT 'Its installation',
    request_source_system String COMMENT 'Source that issued the request: the tool',
    request_source_instance String COMMENT 'Its installation',
    session_source_system String COMMENT 'Source that issued the session: the tool',
    session_source_instance String COMMENT 'Its installation',
    grant_id String COMMENT 'The grant, if the finding is about one',
    grant_key String COMMENT 'Its access key: joins with the other views; empty without a grant',
    request_id String COMMENT 'The request, if known',
    session_id String COMMENT 'The session, if known',
    subject_id String COMMENT 'Holder of the access, or the object of the finding',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    origin String COMMENT 'Log of the latest event of the finding',
    `index` UInt64 COMMENT 'Position of that event'
)
AS SELECT
    rule, key, deadline, severity, summary, open, opened_at, resolved_at, acknowledged_at, acknowledged_by,
    closed_at, closed_by, closed_reason, times_opened, evidence, tenant, issuer_system, issuer_instance,
    grant_source_system, grant_source_instance, request_source_system, request_source_instance,
    session_source_system, session_source_instance, grant_id, grant_key, request_id, session_id, subject_id,
    resource_kind, resource_id, resource_environment, entitlement, origin, `index`
FROM stored_findings FINAL
WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete)
SETTINGS optimize_move_to_prewhere_if_final = 1
COMMENT 'One row per finding: rule, key, deadline, tenant, and the issuer of the id in key';

CREATE VIEW grant_states
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
    reason String COMMENT 'Reason in the latest activation or extension that gives one, otherwise that of the request',
    ticket String COMMENT 'Ticket or incident, likewise; otherwise the one that the ticket_pattern of the watch policy finds in the reason',
    customer String COMMENT 'Customer on whose data support staff worked, likewise',
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
    removal_evidence String COMMENT 'Best evidence of a removal after the latest activation or extension: none, deadline, api_accepted, confirmed',
    removed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First confirmed removal after the latest activation or extension, by the clock of the source, or the passed deadline if all credentials of the grant end automatically and the watch policy believes that; null while open',
    removal_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that removal, or that deadline',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to removal_recorded_at, 0 if in time; null while open or without a deadline. Of a historical grant, to removed_at',
    ended Bool COMMENT 'The access has ended under the watch policy: its removal is confirmed, or the policy takes the evidence or the passed deadline for a removal',
    historical Bool COMMENT 'Nothing of it was received until history_after_seconds of the watch policy after its deadline, and no read-back has shown that its access exists',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    grant_id, grant_key, tenant, subject_id, subject_kind, resource_kind, resource_id, resource_environment,
    entitlement, request_id, request_key, reason, ticket, customer, source_system, source_instance, activated_at,
    given_at, given_recorded_at, stretch_recorded_at, deadline_recorded_at, starts_at, expires_at, expiry_source,
    deadline, policy_deadline, removal_evidence, removed_at, removal_recorded_at, late_seconds, ended, historical,
    origin, `index`
FROM stored_grants FINAL
WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete)
SETTINGS optimize_move_to_prewhere_if_final = 1
COMMENT 'One row per grant: its access, its deadline, and its removal';

CREATE VIEW unknown_grants
(
    grant_id String COMMENT 'The grant; filter on it',
    grant_key String COMMENT 'Its access key: joins with the other views',
    state String COMMENT 'overdue: the watch has an open finding. Otherwise from the log: removed: confirmed; ended: not confirmed, but ended under the watch policy; unresolved: historical, and not ended; no deadline; active; covered: past its end while another grant of the same access is open; past its end: not ended under the policy, and no open finding',
    finding String COMMENT 'Overdue finding of the grant: open; resolved, or closed by a person, since the activation or extension that set the deadline; none',
    found_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline of the open finding; null if there is none',
    found_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the finding; null if there is none',
    running Bool COMMENT 'This grant or another one of the same tenant, subject, resource and entitlement is open and running',
    tenant String COMMENT 'Tenant',
    subject_id String COMMENT 'Holder of the access',
    subject_kind String COMMENT 'human, service, agent, system, unknown',
    person String COMMENT 'The holder by the name in the watch policy, otherwise subject_id',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, from the tool, otherwise from the watch policy',
    entitlement String COMMENT 'Role or permission',
    request_id String COMMENT 'The request, if an activation or extension names it',
    request_key String COMMENT 'Access key of that request: joins with requests and events; empty without a request',
    requested_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Time of the request, by the clock of the source; null if no request is on record',
    requested_by String COMMENT 'Requester',
    reason String COMMENT 'Reason in the latest activation or extension that gives one, otherwise that of the request',
    ticket String COMMENT 'Ticket or incident, likewise; otherwise the one that the ticket_pattern of the watch policy finds in the reason',
    customer String COMMENT 'Customer on whose data support staff worked, likewise',
    approvals String COMMENT 'Reviewer, decision and time of every decision, separated by semicolons',
    approved_by Array(String) COMMENT 'Everyone whose last decision approves, by the names in the watch policy',
    forced Bool COMMENT 'Break-glass: somebody approved it by force',
    source_system String COMMENT 'Source that issued the grant: the tool',
    source_instance String COMMENT 'Its installation; empty: any',
    activated_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First activation, by the clock of the source; null if only a finding names the grant',
    given_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Latest activation or extension in log order, by the clock of the source',
    given_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that activation or extension',
    stretch_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the first activation or extension since the last removal',
    deadline_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the activation or extension that set the deadline',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of the access, if later than its activation',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End in the latest activation or extension; null if the tool gives none',
    expiry_source String COMMENT 'native, derived, policy, unknown',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'expires_at minus the lead of the source clock over the broker; null if there is no end',
    policy_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Where the tool gives no end: the end by max_seconds of the watch policy; null without one',
    removal_evidence String COMMENT 'Best evidence of a removal after the latest activation or extension: none, deadline, api_accepted, confirmed',
    removed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First confirmed removal after the latest activation or extension, by the clock of the source; null while open',
    removal_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that removal',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to removal_recorded_at, 0 if in time; null while open or without a deadline. Of a historical grant, to removed_at',
    ended Bool COMMENT 'The access has ended under the watch policy: its removal is confirmed, or the policy takes the evidence or the passed deadline for a removal',
    historical Bool COMMENT 'Nothing of it was received until history_after_seconds of the watch policy after its deadline, and no read-back has shown that its access exists',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    key AS grant_id, grant_key, 'overdue' AS state, 'open' AS finding, found_deadline, found_at, false AS running, tenant,
    subject_id, '' AS subject_kind, person, resource_kind, resource_id, resource_environment, entitlement,
    '' AS request_id, '' AS request_key, NULL AS requested_at, '' AS requested_by, '' AS reason, '' AS ticket, '' AS customer,
    '' AS approvals, [] AS approved_by, false AS forced, issuer_system AS source_system,
    issuer_instance AS source_instance, NULL AS activated_at, NULL AS given_at, NULL AS given_recorded_at,
    NULL AS stretch_recorded_at, NULL AS deadline_recorded_at, NULL AS starts_at, NULL AS expires_at, '' AS expiry_source,
    NULL AS deadline, NULL AS policy_deadline, 'none' AS removal_evidence, NULL AS removed_at, NULL AS removal_recorded_at,
    NULL AS late_seconds, false AS ended, false AS historical, '' AS origin, 0 AS `index`
FROM
(
    SELECT
        key, tenant, issuer_system, issuer_instance, any(one.grant_key) AS grant_key,
        min(opened_at) AS found_at, min(one.deadline) AS found_deadline, any(one.subject_id) AS subject_id,
        any(one.person) AS person,
        any(one.resource_kind) AS resource_kind, any(one.resource_id) AS resource_id,
        any(one.resource_environment) AS resource_environment, any(one.entitlement) AS entitlement
    FROM stored_findings AS one FINAL
    WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete) AND rule = 'overdue' AND open
    GROUP BY key, tenant, issuer_system, issuer_instance
)
WHERE (key, tenant, issuer_system, issuer_instance) NOT IN (
    SELECT grant_id, tenant, source_system, source_instance
    FROM stored_grants
    WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete)
        AND grant_id IN (
            SELECT key FROM stored_findings FINAL
            WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete) AND rule = 'overdue' AND open
        )
)
COMMENT 'Grants that only an open finding of the watch names: the store does not have their activation';

CREATE VIEW recorded_grants
(
    grant_id String COMMENT 'The grant; filter on it',
    grant_key String COMMENT 'Its access key: joins with the other views',
    state String COMMENT 'overdue: the watch has an open finding. Otherwise from the log: removed: confirmed; ended: not confirmed, but ended under the watch policy; unresolved: historical, and not ended; no deadline; active; covered: past its end while another grant of the same access is open; past its end: not ended under the policy, and no open finding',
    finding String COMMENT 'Overdue finding of the grant: open; resolved, or closed by a person, since the activation or extension that set the deadline; none',
    found_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline of the open finding; null if there is none',
    found_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the finding; null if there is none',
    running Bool COMMENT 'This grant or another one of the same tenant, subject, resource and entitlement is open and running',
    tenant String COMMENT 'Tenant',
    subject_id String COMMENT 'Holder of the access',
    subject_kind String COMMENT 'human, service, agent, system, unknown',
    person String COMMENT 'The holder by the name in the watch policy, otherwise subject_id',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, from the tool, otherwise from the watch policy',
    entitlement String COMMENT 'Role or permission',
    request_id String COMMENT 'The request, if an activation or extension names it',
    request_key String COMMENT 'Access key of that request: joins with requests and events; empty without a request',
    requested_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Time of the request, by the clock of the source; null if no request is on record',
    requested_by String COMMENT 'Requester',
    reason String COMMENT 'Reason in the latest activation or extension that gives one, otherwise that of the request',
    ticket String COMMENT 'Ticket or incident, likewise; otherwise the one that the ticket_pattern of the watch policy finds in the reason',
    customer String COMMENT 'Customer on whose data support staff worked, likewise',
    approvals String COMMENT 'Reviewer, decision and time of every decision, separated by semicolons',
    approved_by Array(String) COMMENT 'Everyone whose last decision approves, by the names in the watch policy',
    forced Bool COMMENT 'Break-glass: somebody approved it by force',
    source_system String COMMENT 'Source that issued the grant: the tool',
    source_instance String COMMENT 'Its installation; empty: any',
    activated_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First activation, by the clock of the source',
    given_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Latest activation or extension in log order, by the clock of the source',
    given_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that activation or extension',
    stretch_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the first activation or extension since the last removal',
    deadline_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the activation or extension that set the deadline',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of the access, if later than its activation',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End in the latest activation or extension; null if the tool gives none',
    expiry_source String COMMENT 'native, derived, policy, unknown',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'expires_at minus the lead of the source clock over the broker; null if there is no end',
    policy_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Where the tool gives no end: the end by max_seconds of the watch policy; null without one',
    removal_evidence String COMMENT 'Best evidence of a removal after the latest activation or extension: none, deadline, api_accepted, confirmed',
    removed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First confirmed removal after the latest activation or extension, by the clock of the source; null while open',
    removal_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that removal',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to removal_recorded_at, 0 if in time; null while open or without a deadline. Of a historical grant, to removed_at',
    ended Bool COMMENT 'The access has ended under the watch policy: its removal is confirmed, or the policy takes the evidence or the passed deadline for a removal',
    historical Bool COMMENT 'Nothing of it was received until history_after_seconds of the watch policy after its deadline, and no read-back has shown that its access exists',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    grant_id, grant_key, if(alone = 'past its end' AND running, 'covered', alone) AS state, finding, found_deadline, found_at,
    (tenant, subject_id, resource_kind, resource_id, entitlement) IN (
        SELECT tenant, subject_id, resource_kind, resource_id, entitlement
        FROM live_grants FINAL
        WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete) AND NOT ended AND NOT historical
            AND ifNull(ifNull(deadline, policy_deadline) >= now64(6, 'UTC'), true)
            AND ifNull(starts_at <= now64(6, 'UTC'), true)
    ) AS running,
    tenant, subject_id, subject_kind, person, resource_kind, resource_id, resource_environment, entitlement,
    request_id, request_key, requested_at, requested_by, reason, ticket, customer, approvals, approved_by, forced,
    source_system, source_instance, activated_at, given_at, given_recorded_at, stretch_recorded_at,
    deadline_recorded_at, starts_at, expires_at, expiry_source, deadline, policy_deadline, removal_evidence,
    removed_at, removal_recorded_at, late_seconds, ended OR finding = 'resolved' AS ended, historical, origin, `index`
FROM stored_grants FINAL
WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete)
SETTINGS optimize_move_to_prewhere_if_final = 1
COMMENT 'The rows of grants whose activation is on record';

CREATE VIEW grants
(
    grant_id String COMMENT 'The grant; filter on it',
    grant_key String COMMENT 'Its access key: joins with the other views',
    state String COMMENT 'overdue: the watch has an open finding. Otherwise from the log: removed: confirmed; ended: not confirmed, but ended under the watch policy; unresolved: historical, and not ended; no deadline; active; covered: past its end while another grant of the same access is open; past its end: not ended under the policy, and no open finding',
    finding String COMMENT 'Overdue finding of the grant: open; resolved, or closed by a person, since the activation or extension that set the deadline; none',
    found_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline of the open finding; null if there is none',
    found_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the finding; null if there is none',
    running Bool COMMENT 'This grant or another one of the same tenant, subject, resource and entitlement is open and running',
    tenant String COMMENT 'Tenant',
    subject_id String COMMENT 'Holder of the access',
    subject_kind String COMMENT 'human, service, agent, system, unknown',
    person String COMMENT 'The holder by the name in the watch policy, otherwise subject_id',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, from the tool, otherwise from the watch policy',
    entitlement String COMMENT 'Role or permission',
    request_id String COMMENT 'The request, if an activation or extension names it',
    request_key String COMMENT 'Access key of that request: joins with requests and events; empty without a request',
    requested_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Time of the request, by the clock of the source; null if no request is on record',
    requested_by String COMMENT 'Requester',
    reason String COMMENT 'Reason in the latest activation or extension that gives one, otherwise that of the request',
    ticket String COMMENT 'Ticket or incident, likewise; otherwise the one that the ticket_pattern of the watch policy finds in the reason',
    customer String COMMENT 'Customer on whose data support staff worked, likewise',
    approvals String COMMENT 'Reviewer, decision and time of every decision, separated by semicolons',
    approved_by Array(String) COMMENT 'Everyone whose last decision approves, by the names in the watch policy',
    forced Bool COMMENT 'Break-glass: somebody approved it by force',
    source_system String COMMENT 'Source that issued the grant: the tool',
    source_instance String COMMENT 'Its installation; empty: any',
    activated_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First activation, by the clock of the source; null if only a finding names the grant',
    given_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Latest activation or extension in log order, by the clock of the source',
    given_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that activation or extension',
    stretch_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the first activation or extension since the last removal',
    deadline_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the activation or extension that set the deadline',
    starts_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of the access, if later than its activation',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End in the latest activation or extension; null if the tool gives none',
    expiry_source String COMMENT 'native, derived, policy, unknown',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'expires_at minus the lead of the source clock over the broker; null if there is no end',
    policy_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Where the tool gives no end: the end by max_seconds of the watch policy; null without one',
    removal_evidence String COMMENT 'Best evidence of a removal after the latest activation or extension: none, deadline, api_accepted, confirmed',
    removed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First confirmed removal after the latest activation or extension, by the clock of the source; null while open',
    removal_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that removal',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to removal_recorded_at, 0 if in time; null while open or without a deadline. Of a historical grant, to removed_at',
    ended Bool COMMENT 'The access has ended under the watch policy: its removal is confirmed, or the policy takes the evidence or the passed deadline for a removal',
    historical Bool COMMENT 'Nothing of it was received until history_after_seconds of the watch policy after its deadline, and no read-back has shown that its access exists',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT * FROM recorded_grants
UNION ALL
SELECT * FROM unknown_grants
COMMENT 'One row per grant: its access, state, deadline and removal, and the finding of the watch';

CREATE VIEW overdue_grants
(
    grant_id String COMMENT 'The grant',
    subject_id String COMMENT 'Holder of the access',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline, from the tool or from the policy',
    found_at DateTime64(6, 'UTC') COMMENT 'Append time of the finding',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to now',
    removal_evidence String COMMENT 'Best evidence of a removal so far: none, deadline, api_accepted; confirmed if the watch has not judged it yet',
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Installation of the tool',
    tenant String COMMENT 'Tenant',
    grant_key String COMMENT 'Access key of the grant: joins with the other views',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, found_deadline AS deadline,
    assumeNotNull(one.found_at) AS found_at,
    round(dateDiff('microsecond', found_deadline, now64(6, 'UTC')) / 1e6, 3) AS late_seconds, removal_evidence,
    source_system, source_instance, tenant, grant_key, origin, `index`
FROM
(
    SELECT
        grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, found_deadline, found_at,
        removal_evidence, source_system, source_instance, tenant, grant_key, origin, `index`
    FROM live_grants FINAL
    WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete) AND finding = 'open'
    UNION ALL
    SELECT
        grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, found_deadline, found_at,
        removal_evidence, source_system, source_instance, tenant, grant_key, origin, `index`
    FROM unknown_grants
) AS one
COMMENT 'Access that should have ended under the policy: the watch has an open finding';

CREATE VIEW past_deadline_grants
(
    grant_id String COMMENT 'The grant',
    subject_id String COMMENT 'Holder of the access',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    deadline DateTime64(6, 'UTC') COMMENT 'Deadline from the tool',
    past_seconds Float64 COMMENT 'From the deadline to now',
    finding String COMMENT 'Finding of the watch: open; resolved: ended under the policy; closed: by a person; none: within the grace, ended under the policy, or not judged yet',
    removal_evidence String COMMENT 'Best evidence of a removal so far: none, deadline, api_accepted',
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Installation of the tool',
    tenant String COMMENT 'Tenant',
    grant_key String COMMENT 'Access key of the grant: joins with the other views',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, assumeNotNull(due) AS deadline,
    round(dateDiff('microsecond', due, now64(6, 'UTC')) / 1e6, 3) AS past_seconds, finding, removal_evidence,
    source_system, source_instance, tenant, grant_key, origin, `index`
FROM (SELECT *, deadline AS due FROM recorded_grants WHERE removed_at IS NULL AND deadline < now64(6, 'UTC') AND NOT running AND NOT historical)
COMMENT 'Access past its deadline without a confirmed removal and not covered by another open grant, regardless of policy';

CREATE VIEW active_grants
(
    grant_id String COMMENT 'The grant',
    subject_id String COMMENT 'Holder of the access',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    state String COMMENT 'active, no deadline, overdue or past its end',
    activated_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First activation, by the clock of the source; null if only a finding names the grant',
    expires_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End of the access; null if the tool gives none',
    expiry_source String COMMENT 'native, derived, policy, unknown',
    past_deadline Bool COMMENT 'The deadline has passed, of the tool or of the watch policy',
    removal_evidence String COMMENT 'Best evidence of a removal so far: none, deadline, api_accepted',
    reason String COMMENT 'Reason for the access',
    ticket String COMMENT 'Ticket or incident',
    request_id String COMMENT 'The request, if known',
    source_system String COMMENT 'Source that issued the grant: the tool',
    source_instance String COMMENT 'Its installation; empty: any',
    tenant String COMMENT 'Tenant',
    grant_key String COMMENT 'Access key of the grant: joins with the other views'
)
AS SELECT
    grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, alone AS state, activated_at, expires_at,
    expiry_source, ifNull(ifNull(deadline, policy_deadline) < now64(6, 'UTC'), found_deadline IS NOT NULL) AS past_deadline, removal_evidence, reason,
    ticket, request_id, source_system, source_instance, tenant, grant_key
FROM live_grants FINAL
WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete)
    AND (alone IN ('active', 'no deadline', 'overdue') OR alone = 'past its end' AND NOT (tenant, subject_id, resource_kind, resource_id, entitlement) IN (
        SELECT tenant, subject_id, resource_kind, resource_id, entitlement
        FROM live_grants FINAL
        WHERE generation = (SELECT max(generation) FROM state_refreshes WHERE complete) AND NOT ended AND NOT historical
            AND ifNull(ifNull(deadline, policy_deadline) >= now64(6, 'UTC'), true)
            AND ifNull(starts_at <= now64(6, 'UTC'), true)
    ))
UNION ALL
SELECT
    grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, state, activated_at, expires_at,
    expiry_source, found_deadline IS NOT NULL AS past_deadline, removal_evidence, reason, ticket, request_id, source_system,
    source_instance, tenant, grant_key
FROM unknown_grants
COMMENT 'Who has access: grants that run, are overdue, or whose end is not confirmed, as `grantledger grants` lists them';
