-- Findings, and grants with their findings. The store has no policy: it does not know the grace, nor which evidence counts
-- as a removal. So overdue access is the access with an open finding, and only the pipeline can write findings.
CREATE VIEW finding_rules
(
    rule String COMMENT 'Name of the rule',
    severity String COMMENT 'Default severity: info, warning, critical',
    persists Bool COMMENT 'Nothing resolves its findings automatically: a person closes them',
    summary String COMMENT 'One line for people',
    runbook String COMMENT 'Page with the meaning, what to look at and what to do'
)
AS SELECT each.1 AS rule, each.2 AS severity, each.3 AS persists, each.4 AS summary, each.5 AS runbook
FROM
(
    SELECT arrayJoin([
        ('overdue', 'critical', false, 'Access is past its deadline and no removal is on record', 'docs/runbooks/overdue.md'),
        ('session_outlived_grant', 'critical', false, 'A session continues after its grant ended', 'docs/runbooks/session_outlived_grant.md'),
        ('used_without_grant', 'critical', false, 'A session is not covered by a grant', 'docs/runbooks/used_without_grant.md'),
        ('no_deadline', 'warning', false, 'Access was granted without a deadline', 'docs/runbooks/no_deadline.md'),
        ('no_approval', 'critical', false, 'Access was granted without the approvals that the policy requires', 'docs/runbooks/no_approval.md'),
        ('self_approved', 'critical', true, 'The holder approved their own access', 'docs/runbooks/self_approved.md'),
        ('extended_beyond_policy', 'warning', false, 'Access was extended beyond the longest time that the policy allows', 'docs/runbooks/extended_beyond_policy.md'),
        ('removal_unconfirmed', 'warning', false, 'A removal was requested and is not confirmed', 'docs/runbooks/removal_unconfirmed.md'),
        ('clock_skew', 'warning', false, 'A clock is ahead by more than the policy allows', 'docs/runbooks/clock_skew.md'),
        ('source_silent', 'warning', false, 'A source that used to report is silent', 'docs/runbooks/source_silent.md'),
        ('sequence_gap', 'critical', false, 'Events of a source are missing', 'docs/runbooks/sequence_gap.md'),
        ('event_conflict', 'critical', true, 'A source sent two different events with one id', 'docs/runbooks/event_conflict.md'),
        ('foreign_claim', 'warning', false, 'A source reported about access that another source issued', 'docs/runbooks/foreign_claim.md'),
        ('unsigned_source', 'warning', false, 'Events name a registered source that did not sign them', 'docs/runbooks/unsigned_source.md'),
        ('watch_fault', 'critical', true, 'The watch could not process a record', 'docs/runbooks/watch_fault.md'),
        ('sweep_difference', 'critical', false, 'The watch and the store disagree about which access is overdue', 'docs/runbooks/sweep_difference.md'),
        ('sender_timed', 'warning', true, 'Records carry timestamps that their senders set', 'docs/runbooks/sender_timed.md'),
        ('sealed_topic_lost', 'critical', true, 'Sealing stopped: the sealed partition is empty, although it contained batches before', 'docs/runbooks/sealed_topic_lost.md'),
        ('head_mismatch', 'critical', true, 'Sealing stopped: the end of the sealed partition does not verify', 'docs/runbooks/head_mismatch.md'),
        ('topic_replaced', 'critical', true, 'Sealing stopped: the input topic was deleted and created again', 'docs/runbooks/topic_replaced.md'),
        ('offset_mismatch', 'critical', true, 'Sealing stopped: the committed offset is not where the sealed log ends', 'docs/runbooks/offset_mismatch.md'),
        ('input_expired', 'critical', true, 'Sealing stopped: Kafka deleted records before they were sealed', 'docs/runbooks/input_expired.md'),
        ('input_truncated', 'critical', true, 'Sealing stopped: the input topic lost records that were already sealed', 'docs/runbooks/input_truncated.md'),
        ('partition_count', 'critical', true, 'Sealing stopped: an input topic and its sealed topic have different partition counts', 'docs/runbooks/partition_count.md'),
        ('anchor_mismatch', 'critical', true, 'Sealing stopped: the last anchor cannot be read', 'docs/runbooks/anchor_mismatch.md'),
        ('anchoring_stopped', 'critical', true, 'Anchoring of a log stopped: its end does not verify or contradicts its last anchor', 'docs/runbooks/anchoring_stopped.md'),
        ('anchors_lost', 'critical', true, 'Anchoring stopped: the anchors topic lost anchors that other copies have', 'docs/runbooks/anchors_lost.md'),
        ('anchor_target_stopped', 'critical', true, 'Anchors are no longer published to a target: it holds another history', 'docs/runbooks/anchor_target_stopped.md'),
        ('sealed_record_invalid', 'critical', true, 'A sealed topic contains a record that the log key did not sign', 'docs/runbooks/sealed_record_invalid.md'),
        ('sealed_log_discontinuous', 'critical', true, 'Reading stopped: a signed batch does not continue the log', 'docs/runbooks/sealed_log_discontinuous.md'),
        ('enforcer_breaker', 'critical', false, 'The enforcer''s breaker is open: no access is being revoked', 'docs/runbooks/enforcer_breaker.md'),
        ('enforcer_command_invalid', 'critical', true, 'The enforcer rejected an invalid command', 'docs/runbooks/enforcer_command_invalid.md'),
        ('enforcer_commands_lost', 'critical', true, 'Revoke commands expired before the enforcer read them', 'docs/runbooks/enforcer_commands_lost.md')
    ]) AS each
)
COMMENT 'The rules that findings come from';

CREATE VIEW findings
(
    rule String COMMENT 'Rule that opened the finding',
    key String COMMENT 'Object of the finding: a grant, session, source, log …',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline that the finding is about; null if there is none',
    severity String COMMENT 'info, warning, critical; of the latest opening',
    summary String COMMENT 'The rule in one line',
    open Bool COMMENT 'Opened, and neither resolved nor closed since then',
    opened_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First opening; null if no opening is on record',
    resolved_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Automatic resolution since the latest opening; null if there is none',
    acknowledged_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Latest acknowledgment since the latest opening; null if there is none',
    acknowledged_by String COMMENT 'Person who acknowledged it',
    closed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When a person closed it since the latest opening; null if nobody did',
    closed_by String COMMENT 'Person who closed it',
    closed_reason String COMMENT 'Reason that this person gave',
    times_opened UInt64 COMMENT 'Number of openings',
    evidence String COMMENT 'JSON object of the latest opening or resolution, for people',
    tenant String COMMENT 'Tenant',
    grant_source_system String COMMENT 'Source that issued the grant: the tool',
    grant_source_instance String COMMENT 'Its installation',
    grant_id String COMMENT 'The grant, if the finding is about one',
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
    story.rule AS rule, key, deadline, about.severity AS severity,
    if(finding_rules.summary = '', story.rule, finding_rules.summary) AS summary,
    CAST(notEmpty(opened) AND NOT hasAny(since.kind, ['finding.resolved', 'finding.closed']), 'Bool') AS open,
    if(empty(opened), NULL, opened[1].occurred_at) AS opened_at,
    if(has(since.kind, 'finding.resolved'), resolution.occurred_at, NULL) AS resolved_at,
    if(has(since.kind, 'finding.acknowledged'), acknowledgment.occurred_at, NULL) AS acknowledged_at,
    acknowledgment.actor_id AS acknowledged_by,
    if(has(since.kind, 'finding.closed'), closing.occurred_at, NULL) AS closed_at,
    closing.actor_id AS closed_by, closing.reason AS closed_reason, length(opened) AS times_opened,
    arrayLast(event -> event.kind IN ('finding.opened', 'finding.resolved'), events).evidence AS evidence,
    tenant, grant_source_system, grant_source_instance,
    arrayLast(event -> event.grant_id != '', events).grant_id AS grant_id,
    arrayLast(event -> event.request_id != '', events).request_id AS request_id,
    arrayLast(event -> event.session_id != '', events).session_id AS session_id,
    about.subject_id AS subject_id, about.resource_kind AS resource_kind, about.resource_id AS resource_id,
    about.resource_environment AS resource_environment, about.entitlement AS entitlement,
    events[-1].origin AS origin, events[-1].place.2 AS `index`
FROM
(
    SELECT
        finding_rule AS rule, finding_key AS key, finding_deadline AS deadline,
        tenant, grant_source_system, grant_source_instance,
        arraySort(event -> event.place, groupArray(CAST(
            ((toUInt32OrZero(splitByChar('/', origin)[-1]), `index`), event_id, event_type, occurred_at, finding_severity, finding_evidence, actor_id, reason, grant_id, request_id, session_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, origin),
            'Tuple(place Tuple(UInt32, UInt64), id String, kind String, occurred_at DateTime64(6, \'UTC\'), severity String, evidence String, actor_id String, reason String, grant_id String, request_id String, session_id String, subject_id String, resource_kind String, resource_id String, resource_environment String, entitlement String, origin String)'
        ))) AS every,
        -- An event that was read twice counts once, at its first entry.
        arrayFilter((event, nth) -> nth = 1, every, arrayEnumerateUniq(every.id)) AS events,
        arrayFilter(event -> event.kind = 'finding.opened', events) AS opened,
        if(empty(opened), events[-1], opened[-1]) AS about,
        arrayFilter(event -> empty(opened) OR event.place > about.place, events) AS since,
        arrayLast(event -> event.kind = 'finding.resolved', since) AS resolution,
        arrayLast(event -> event.kind = 'finding.acknowledged', since) AS acknowledgment,
        arrayLast(event -> event.kind = 'finding.closed', since) AS closing
    FROM entries
    WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND event_type IN ('finding.opened', 'finding.resolved', 'finding.acknowledged', 'finding.closed')
        AND splitByChar('/', origin)[-3] = 'access.findings'
    -- By the columns, not their aliases: entries has a column `key` of its own.
    GROUP BY finding_rule, finding_key, finding_deadline, tenant, grant_source_system, grant_source_instance
) AS story
LEFT JOIN finding_rules ON finding_rules.rule = story.rule
SETTINGS join_use_nulls = 0
COMMENT 'One row per finding: rule, key, deadline, tenant and source of the grant. Only the log of findings counts: access systems cannot write to it';

CREATE VIEW judged_grants
(
    grant_id String COMMENT 'The grant; filter on it',
    state String COMMENT 'overdue: the watch has an open finding. Otherwise from the log: removed; no deadline; active; covered: past its end while another grant of the same access is open; past its end: no confirmed removal and no open finding',
    finding String COMMENT 'Overdue finding of the grant: open; resolved (or closed) since the latest activation or extension; none',
    found_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline of the open finding; null if there is none',
    found_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the finding opened, after the grace; null if there is none',
    running Bool COMMENT 'This grant or another one of the same tenant, subject, resource and entitlement is open and running',
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
    activated_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First activation, by the clock of the source; null if only a finding names the grant',
    given_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Latest activation or extension in log order, by the clock of the source',
    given_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of that activation or extension',
    stretch_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the first activation or extension since the last removal',
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
    if(known, state_of.grant_id, overdue.key) AS grant_id,
    multiIf(
        finding = 'open', 'overdue', removed_at IS NOT NULL, 'removed', deadline IS NULL, 'no deadline',
        deadline >= now64(6, 'UTC'), 'active', running, 'covered', 'past its end'
    ) AS state,
    multiIf(overdue.open_count > 0, 'open', ifNull(overdue.last_ended > state_of.given_recorded_at, false), 'resolved', 'none') AS finding,
    overdue.found_deadline AS found_deadline, overdue.found_at AS found_at, state_of.running AS running,
    if(known, state_of.tenant, overdue.tenant) AS tenant, if(known, state_of.subject_id, overdue.subject_id) AS subject_id,
    subject_kind, if(known, state_of.resource_kind, overdue.resource_kind) AS resource_kind,
    if(known, state_of.resource_id, overdue.resource_id) AS resource_id,
    if(known, state_of.resource_environment, overdue.resource_environment) AS resource_environment,
    if(known, state_of.entitlement, overdue.entitlement) AS entitlement, request_id, reason, ticket,
    if(known, state_of.source_system, overdue.grant_source_system) AS source_system,
    if(known, state_of.source_instance, overdue.grant_source_instance) AS source_instance,
    if(known, state_of.activated_at, NULL) AS activated_at, if(known, state_of.given_at, NULL) AS given_at,
    if(known, state_of.given_recorded_at, NULL) AS given_recorded_at,
    if(known, state_of.stretch_recorded_at, NULL) AS stretch_recorded_at, starts_at, expires_at, expiry_source, deadline,
    if(known, state_of.removal_evidence, 'none') AS removal_evidence, removed_at, removal_recorded_at, late_seconds, origin,
    `index`
FROM
(
    SELECT
        *, true AS known,
        -- Not a window function: it would sort every column of every grant.
        (tenant, subject_id, resource_kind, resource_id, entitlement) IN (
            SELECT tenant, subject_id, resource_kind, resource_id, entitlement
            FROM grant_states
            WHERE removed_at IS NULL AND ifNull(deadline >= now64(6, 'UTC'), true) AND ifNull(starts_at <= now64(6, 'UTC'), true)
        ) AS running
    FROM grant_states
) AS state_of
FULL OUTER JOIN
(
    SELECT
        key, countIf(open) AS open_count, maxIf(ifNull(resolved_at, closed_at), NOT open) AS last_ended,
        minIf(opened_at, open) AS found_at, minIf(findings.deadline, open) AS found_deadline,
        tenant, grant_source_system, grant_source_instance, argMax(findings.subject_id, open) AS subject_id,
        argMax(findings.resource_kind, open) AS resource_kind, argMax(findings.resource_id, open) AS resource_id,
        argMax(findings.resource_environment, open) AS resource_environment,
        argMax(findings.entitlement, open) AS entitlement
    FROM findings
    WHERE rule = 'overdue'
    GROUP BY key, tenant, grant_source_system, grant_source_instance
) AS overdue ON overdue.key = state_of.grant_id AND overdue.tenant = state_of.tenant
    AND overdue.grant_source_system = state_of.source_system AND overdue.grant_source_instance = state_of.source_instance
WHERE known OR overdue.open_count > 0
SETTINGS join_use_nulls = 0
COMMENT 'One row per grant, as in grant_states, with the finding of the watch';

CREATE VIEW overdue_grants
(
    grant_id String COMMENT 'The grant',
    subject_id String COMMENT 'Holder of the access',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment String COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline, from the tool or from the policy',
    found_at DateTime64(6, 'UTC') COMMENT 'When the finding opened, after the grace',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to now',
    removal_evidence String COMMENT 'Best evidence of a removal so far: none, deadline, api_accepted; confirmed if the watch has not judged it yet',
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Installation of the tool',
    tenant String COMMENT 'Tenant',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, found_deadline AS deadline,
    assumeNotNull(judged_grants.found_at) AS found_at,
    round(dateDiff('microsecond', found_deadline, now64(6, 'UTC')) / 1e6, 3) AS late_seconds, removal_evidence,
    source_system, source_instance, tenant, origin, `index`
FROM judged_grants
WHERE finding = 'open'
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
    finding String COMMENT 'Finding of the watch: open; resolved: ended under the policy; none: within the grace, ended under the policy, or not judged yet',
    removal_evidence String COMMENT 'Best evidence of a removal so far: none, deadline, api_accepted',
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Installation of the tool',
    tenant String COMMENT 'Tenant',
    origin String COMMENT 'Log of the first activation',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, assumeNotNull(due) AS deadline,
    round(dateDiff('microsecond', due, now64(6, 'UTC')) / 1e6, 3) AS past_seconds, finding, removal_evidence,
    source_system, source_instance, tenant, origin, `index`
FROM (SELECT *, deadline AS due FROM judged_grants WHERE removed_at IS NULL AND deadline < now64(6, 'UTC') AND NOT running)
COMMENT 'Access past its deadline without a confirmed removal and not covered by another open grant, regardless of policy';
