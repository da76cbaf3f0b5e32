-- Findings. The store has no policy: it does not know the grace, nor which evidence counts as a removal. So overdue access
-- is the access with an open finding, and only the pipeline can write findings.
CREATE VIEW finding_rules
(
    rule String COMMENT 'Name of the rule',
    severity String COMMENT 'Default severity: info, warning, critical',
    about String COMMENT 'What the key of its findings is the id of: grant (or its request), session; empty: nothing of these',
    persists Bool COMMENT 'Nothing resolves its findings automatically: a person closes them',
    summary String COMMENT 'One line for people',
    runbook String COMMENT 'Page with the meaning, what to look at and what to do'
)
AS SELECT each.1 AS rule, each.2 AS severity, each.3 AS about, each.4 AS persists, each.5 AS summary, each.6 AS runbook
FROM
(
    SELECT arrayJoin([
        ('overdue', 'critical', 'grant', false, 'Access is past its deadline and no removal is on record', 'docs/runbooks/overdue.md'),
        ('session_outlived_grant', 'critical', 'session', false, 'A session continues after its grant ended', 'docs/runbooks/session_outlived_grant.md'),
        ('used_without_grant', 'critical', 'session', false, 'A session is not covered by a grant', 'docs/runbooks/used_without_grant.md'),
        ('no_deadline', 'warning', 'grant', false, 'Access was granted without a deadline', 'docs/runbooks/no_deadline.md'),
        ('no_approval', 'critical', 'grant', false, 'Access was granted without the approvals that the policy requires', 'docs/runbooks/no_approval.md'),
        ('self_approved', 'critical', 'grant', true, 'The holder approved their own access', 'docs/runbooks/self_approved.md'),
        ('extended_beyond_policy', 'warning', 'grant', false, 'Access was extended beyond the longest time that the policy allows', 'docs/runbooks/extended_beyond_policy.md'),
        ('removal_unconfirmed', 'warning', 'grant', false, 'A removal was requested and is not confirmed', 'docs/runbooks/removal_unconfirmed.md'),
        ('late_records', 'warning', '', false, 'Records of access arrived long after the access had to end, and some of it has no removal on record', 'docs/runbooks/late_records.md'),
        ('clock_skew', 'warning', '', false, 'A clock is ahead by more than the policy allows', 'docs/runbooks/clock_skew.md'),
        ('source_silent', 'warning', '', false, 'A source that used to report is silent', 'docs/runbooks/source_silent.md'),
        ('source_never_heard', 'warning', '', false, 'A source that was added has never reported', 'docs/runbooks/source_never_heard.md'),
        ('sequence_gap', 'critical', '', false, 'Events of a source are missing', 'docs/runbooks/sequence_gap.md'),
        ('event_conflict', 'critical', '', true, 'A source sent two different events with one id', 'docs/runbooks/event_conflict.md'),
        ('foreign_claim', 'warning', '', false, 'A source reported about access that another source issued', 'docs/runbooks/foreign_claim.md'),
        ('unsigned_source', 'warning', '', false, 'Events name a registered source that did not sign them', 'docs/runbooks/unsigned_source.md'),
        ('watch_fault', 'critical', '', true, 'The watch could not process a record', 'docs/runbooks/watch_fault.md'),
        ('sweep_difference', 'critical', '', false, 'The watch and the store disagree about which access is overdue', 'docs/runbooks/sweep_difference.md'),
        ('sender_timed', 'warning', '', true, 'Records carry timestamps that their senders set', 'docs/runbooks/sender_timed.md'),
        ('sealed_topic_lost', 'critical', '', true, 'Sealing stopped: the sealed partition is empty, although it contained batches before', 'docs/runbooks/sealed_topic_lost.md'),
        ('head_mismatch', 'critical', '', true, 'Sealing stopped: the end of the sealed partition does not verify', 'docs/runbooks/head_mismatch.md'),
        ('topic_replaced', 'critical', '', true, 'Sealing stopped: the input topic was deleted and created again', 'docs/runbooks/topic_replaced.md'),
        ('offset_mismatch', 'critical', '', true, 'Sealing stopped: the committed offset is not where the sealed log ends', 'docs/runbooks/offset_mismatch.md'),
        ('input_expired', 'critical', '', true, 'Sealing stopped: Kafka deleted records before they were sealed', 'docs/runbooks/input_expired.md'),
        ('input_truncated', 'critical', '', true, 'Sealing stopped: the input topic lost records that were already sealed', 'docs/runbooks/input_truncated.md'),
        ('partition_count', 'critical', '', true, 'Sealing stopped: an input topic and its sealed topic have different partition counts', 'docs/runbooks/partition_count.md'),
        ('anchor_mismatch', 'critical', '', true, 'Sealing stopped: the last anchor cannot be read', 'docs/runbooks/anchor_mismatch.md'),
        ('anchoring_stopped', 'critical', '', true, 'Anchoring of a log stopped: its end does not verify or contradicts its last anchor', 'docs/runbooks/anchoring_stopped.md'),
        ('anchors_lost', 'critical', '', true, 'Anchoring stopped: the anchors topic lost anchors that other copies have', 'docs/runbooks/anchors_lost.md'),
        ('anchor_target_stopped', 'critical', '', true, 'Anchors are no longer published to a target: it holds another history', 'docs/runbooks/anchor_target_stopped.md'),
        ('sealed_record_invalid', 'critical', '', true, 'A sealed topic contains a record that the log key did not sign', 'docs/runbooks/sealed_record_invalid.md'),
        ('sealed_log_discontinuous', 'critical', '', true, 'Reading stopped: a signed batch does not continue the log', 'docs/runbooks/sealed_log_discontinuous.md'),
        ('enforcer_breaker', 'critical', '', false, 'A breaker of the enforcer is open: one source''s grants are not being revoked', 'docs/runbooks/enforcer_breaker.md'),
        ('enforcer_command_invalid', 'critical', '', true, 'The enforcer rejected an invalid command', 'docs/runbooks/enforcer_command_invalid.md'),
        ('enforcer_commands_lost', 'critical', '', true, 'Revoke commands expired before the enforcer read them', 'docs/runbooks/enforcer_commands_lost.md')
    ]) AS each
)
COMMENT 'The rules that findings come from';

CREATE VIEW finding_events
(
    append_time DateTime64(3, 'UTC') COMMENT 'Append time of the broker',
    occurred_at DateTime64(6, 'UTC') COMMENT 'When the finding changed, by the clock of the process that recorded it',
    event_type LowCardinality(String) COMMENT 'finding.opened, finding.resolved, finding.acknowledged or finding.closed',
    rule LowCardinality(String) COMMENT 'Rule of the finding',
    key String COMMENT 'Object of the finding: a grant, session, source, log …',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'Deadline that the finding is about; the start of the hour or day if it counts what a source did; null if there is neither',
    tenant LowCardinality(String) COMMENT 'Tenant',
    issuer Tuple(system String, instance String) COMMENT 'Source that issued the id in key; empty if key is no id of a grant, request or session',
    severity LowCardinality(String) COMMENT 'info, warning, critical',
    evidence String COMMENT 'JSON object, for people',
    actor_id String COMMENT 'Who changed it',
    reason String COMMENT 'Reason that a person gave',
    grant_source Tuple(system String, instance String) COMMENT 'Source that issued the grant',
    request_source Tuple(system String, instance String) COMMENT 'Source that issued the request',
    session_source Tuple(system String, instance String) COMMENT 'Source that issued the session',
    grant_id String COMMENT 'The grant, if the finding is about one',
    request_id String COMMENT 'The request, if known',
    session_id String COMMENT 'The session, if known',
    subject_id String COMMENT 'Holder of the access, or the object of the finding',
    resource_kind LowCardinality(String) COMMENT 'database, host, role …',
    resource_id String COMMENT 'Accessed resource',
    resource_environment LowCardinality(String) COMMENT 'production, staging …, if known',
    entitlement String COMMENT 'Role or permission',
    event_id String COMMENT 'uuid5 of the source record',
    epoch UInt32 COMMENT 'Epoch of the log',
    origin LowCardinality(String) COMMENT 'Log of the entry',
    `index` UInt64 COMMENT 'Position in that log'
)
AS WITH (SELECT (arrayPushBack(groupArray(concat(system, '\0', name)), '\0'), arrayPushBack(groupArray(instance), '')) FROM instance_names) AS names
SELECT
    append_time, occurred_at, event_type, finding_rule AS rule, finding_key AS key, finding_deadline AS deadline, tenant,
    CAST(multiIf(
        rule IN (SELECT rule FROM finding_rules WHERE about = 'session'), session_source,
        rule NOT IN (SELECT rule FROM finding_rules WHERE about = 'grant'), ('', ''),
        grant_source.1 != '', grant_source,
        request_source
    ), 'Tuple(system String, instance String)') AS issuer,
    finding_severity AS severity, finding_evidence AS evidence, actor_id, reason,
    CAST((grant_source_system, CAST(transform(concat(grant_source_system, '\0', grant_source_instance), names.1, names.2, toString(grant_source_instance)), 'LowCardinality(String)')), 'Tuple(system String, instance String)') AS grant_source,
    CAST((request_source_system, CAST(transform(concat(request_source_system, '\0', request_source_instance), names.1, names.2, toString(request_source_instance)), 'LowCardinality(String)')), 'Tuple(system String, instance String)') AS request_source,
    CAST((session_source_system, CAST(transform(concat(session_source_system, '\0', session_source_instance), names.1, names.2, toString(session_source_instance)), 'LowCardinality(String)')), 'Tuple(system String, instance String)') AS session_source,
    grant_id, request_id, session_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, event_id,
    toUInt32OrZero(splitByChar('/', origin)[-1]) AS epoch, origin, `index`
FROM entries
WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND origin IN (SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] = 'access.findings')
    AND event_type IN ('finding.opened', 'finding.resolved', 'finding.acknowledged', 'finding.closed')
COMMENT 'Every event about a finding. Only the log of findings counts: access systems cannot write to it';

CREATE VIEW computed_findings
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
AS WITH
    arrayLast(event -> event.grant_source.1 != '', events).grant_source AS grant_source,
    arrayLast(event -> event.request_source.1 != '', events).request_source AS request_source,
    arrayLast(event -> event.session_source.1 != '', events).session_source AS session_source
SELECT
    story.rule AS rule, key, deadline, latest.severity AS severity,
    if(finding_rules.summary = '', story.rule, finding_rules.summary) AS summary,
    CAST(notEmpty(opened) AND NOT hasAny(since.kind, ['finding.resolved', 'finding.closed']), 'Bool') AS open,
    if(empty(opened), NULL, opened[1].recorded_at) AS opened_at,
    if(has(since.kind, 'finding.resolved'), resolution.recorded_at, NULL) AS resolved_at,
    if(has(since.kind, 'finding.acknowledged'), acknowledgment.recorded_at, NULL) AS acknowledged_at,
    acknowledgment.actor_id AS acknowledged_by,
    if(has(since.kind, 'finding.closed'), closing.recorded_at, NULL) AS closed_at,
    closing.actor_id AS closed_by, closing.reason AS closed_reason, length(opened) AS times_opened,
    arrayLast(event -> event.kind IN ('finding.opened', 'finding.resolved'), events).evidence AS evidence,
    tenant, issuer.1 AS issuer_system, issuer.2 AS issuer_instance,
    grant_source.1 AS grant_source_system, grant_source.2 AS grant_source_instance,
    request_source.1 AS request_source_system, request_source.2 AS request_source_instance,
    session_source.1 AS session_source_system, session_source.2 AS session_source_instance,
    arrayLast(event -> event.grant_id != '', events).grant_id AS grant_id,
    if(grant_id = '', '', concat(replaceAll(replaceAll(tenant, '%', '%25'), '/', '%2F'), '/',
        replaceAll(replaceAll(grant_source_system, '%', '%25'), '/', '%2F'), '/',
        replaceAll(replaceAll(grant_source_instance, '%', '%25'), '/', '%2F'), '/', grant_id)) AS grant_key,
    arrayLast(event -> event.request_id != '', events).request_id AS request_id,
    arrayLast(event -> event.session_id != '', events).session_id AS session_id,
    latest.subject_id AS subject_id, latest.resource_kind AS resource_kind, latest.resource_id AS resource_id,
    latest.resource_environment AS resource_environment, latest.entitlement AS entitlement,
    events[-1].origin AS origin, events[-1].place.2 AS `index`
FROM
(
    SELECT
        rule, key, deadline, tenant, issuer,
        arraySort(event -> event.place, groupArray(CAST(
            ((epoch, `index`), event_id, event_type, append_time, severity, evidence, actor_id, reason, grant_id, request_id, session_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, origin, grant_source, request_source, session_source),
            'Tuple(place Tuple(UInt32, UInt64), id String, kind String, recorded_at DateTime64(6, \'UTC\'), severity String, evidence String, actor_id String, reason String, grant_id String, request_id String, session_id String, subject_id String, resource_kind String, resource_id String, resource_environment String, entitlement String, origin String, grant_source Tuple(String, String), request_source Tuple(String, String), session_source Tuple(String, String))'
        ))) AS every,
        -- An event that was read twice counts once, at its first entry.
        arrayFilter((event, nth) -> nth = 1, every, arrayEnumerateUniq(every.id)) AS events,
        arrayFilter(event -> event.kind = 'finding.opened', events) AS opened,
        if(empty(opened), events[-1], opened[-1]) AS latest,
        arrayFilter(event -> empty(opened) OR event.place > latest.place, events) AS since,
        arrayLast(event -> event.kind = 'finding.resolved', since) AS resolution,
        arrayLast(event -> event.kind = 'finding.acknowledged', since) AS acknowledgment,
        arrayLast(event -> event.kind = 'finding.closed', since) AS closing
    FROM finding_events
    GROUP BY rule, key, deadline, tenant, issuer
) AS story
LEFT JOIN finding_rules ON finding_rules.rule = story.rule
SETTINGS join_use_nulls = 0
COMMENT 'One row per finding, computed: the rows of findings';
