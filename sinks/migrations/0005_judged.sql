-- Grants and what the watch says of them. The store knows no policy: neither the grace, nor what counts as a removal.
-- So what is overdue is what the findings say, which only the pipeline can write; the rest is what the store can see.
CREATE VIEW judged_grants
(
    grant_id String COMMENT 'The grant; filter on it',
    state String COMMENT 'overdue: the watch has an open finding. Else by what is on record: removed, no deadline, active, covered (past its end, and another open grant of the same access runs), past its end (nobody confirmed that it is gone, and there is no open finding)',
    finding String COMMENT 'Finding overdue of this grant: open; resolved, since the latest activation or extension; none',
    found_deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'The deadline that the open finding is about; null without one',
    found_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the open finding opened, which is after the grace; null without one',
    running Bool COMMENT 'An open grant of the same tenant, subject, resource and entitlement has begun and not ended: this one, or another',
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
    activated_at Nullable(DateTime64(6, 'UTC')) COMMENT 'First activation, by the clock of the source; null where the store has none, and only a finding names the grant',
    given_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Latest activation or extension in the order of the log, by the clock of the source',
    given_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the broker took that activation or extension',
    stretch_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the broker took what gave the access first since it was last removed',
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
    if(known, held.grant_id, word.key) AS grant_id,
    multiIf(
        finding = 'open', 'overdue', removed_at IS NOT NULL, 'removed', deadline IS NULL, 'no deadline',
        deadline >= now64(6, 'UTC'), 'active', running, 'covered', 'past its end'
    ) AS state,
    multiIf(word.open_count > 0, 'open', ifNull(word.last_resolved > held.given_recorded_at, false), 'resolved', 'none') AS finding,
    word.found_deadline AS found_deadline, word.found_at AS found_at, held.running AS running,
    if(known, held.tenant, word.tenant) AS tenant, if(known, held.subject_id, word.subject_id) AS subject_id, subject_kind,
    resource_kind, resource_id, resource_environment, entitlement, request_id, reason, ticket, source_system,
    source_instance, if(known, held.activated_at, NULL) AS activated_at, if(known, held.given_at, NULL) AS given_at,
    if(known, held.given_recorded_at, NULL) AS given_recorded_at,
    if(known, held.stretch_recorded_at, NULL) AS stretch_recorded_at, starts_at, expires_at, expiry_source, deadline,
    if(known, held.removal_evidence, 'none') AS removal_evidence, removed_at, removal_recorded_at, late_seconds, origin,
    `index`
FROM
(
    SELECT
        *, true AS known,
        -- Not a window: it would sort every column of every grant.
        (tenant, subject_id, resource_kind, resource_id, entitlement) IN (
            SELECT tenant, subject_id, resource_kind, resource_id, entitlement
            FROM grant_states
            WHERE removed_at IS NULL AND ifNull(deadline >= now64(6, 'UTC'), true) AND ifNull(starts_at <= now64(6, 'UTC'), true)
        ) AS running
    FROM grant_states
) AS held
FULL OUTER JOIN
(
    -- A finding is named by its deadline; where an earlier one had that name already, its evidence has the deadline.
    SELECT
        key, countIf(open) AS open_count, maxIf(resolved_at, NOT open) AS last_resolved, minIf(opened_at, open) AS found_at,
        minIf(ifNull(fromUnixTimestamp64Micro(JSONExtract(evidence, 'deadline', 'Nullable(Int64)'), 'UTC'), deadline), open) AS found_deadline,
        argMax(findings.tenant, open) AS tenant, argMax(findings.subject_id, open) AS subject_id
    FROM findings
    WHERE rule = 'overdue'
    GROUP BY key
) AS word ON word.key = held.grant_id
WHERE known OR word.open_count > 0
SETTINGS join_use_nulls = 0
COMMENT 'One row a grant, as grant_states has it, with what the watch says of it';

CREATE VIEW overdue_grants
(
    grant_id String COMMENT 'The grant',
    subject_id String COMMENT 'Who still holds the access, as far as is known',
    resource_kind String COMMENT 'database, host, role …; empty, as what follows of the grant, where the store does not have it',
    resource_id String COMMENT 'What is accessed',
    resource_environment String COMMENT 'production, staging …, where known',
    entitlement String COMMENT 'The role or permission',
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'When the access had to be gone: what the tool said, or what the policy allows',
    found_at DateTime64(6, 'UTC') COMMENT 'When the finding opened, which is after the grace',
    late_seconds Nullable(Float64) COMMENT 'From the deadline to now',
    removal_evidence String COMMENT 'Best evidence of a removal so far: none, deadline, api_accepted; confirmed, where the watch has not judged it yet',
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Which installation of the tool',
    tenant String COMMENT 'Tenant',
    origin String COMMENT 'Log that holds the first activation',
    `index` UInt64 COMMENT 'Its position there'
)
AS SELECT
    grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, found_deadline AS deadline,
    assumeNotNull(judged_grants.found_at) AS found_at,
    round(dateDiff('microsecond', found_deadline, now64(6, 'UTC')) / 1e6, 3) AS late_seconds, removal_evidence,
    source_system, source_instance, tenant, origin, `index`
FROM judged_grants
WHERE finding = 'open'
COMMENT 'Access that should be gone under the policy: the watch has an open finding';

CREATE VIEW past_deadline_grants
(
    grant_id String COMMENT 'The grant',
    subject_id String COMMENT 'Who holds the access, as far as is known',
    resource_kind String COMMENT 'database, host, role …',
    resource_id String COMMENT 'What is accessed',
    resource_environment String COMMENT 'production, staging …, where known',
    entitlement String COMMENT 'The role or permission',
    deadline DateTime64(6, 'UTC') COMMENT 'When the tool said that the access ends',
    past_seconds Float64 COMMENT 'From the deadline to now',
    finding String COMMENT 'What the watch says: open; resolved: under the policy it is gone; none: within the grace, gone under the policy, or not judged yet',
    removal_evidence String COMMENT 'Best evidence of a removal so far: none, deadline, api_accepted',
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Which installation of the tool',
    tenant String COMMENT 'Tenant',
    origin String COMMENT 'Log that holds the first activation',
    `index` UInt64 COMMENT 'Its position there'
)
AS SELECT
    grant_id, subject_id, resource_kind, resource_id, resource_environment, entitlement, assumeNotNull(due) AS deadline,
    round(dateDiff('microsecond', due, now64(6, 'UTC')) / 1e6, 3) AS past_seconds, finding, removal_evidence,
    source_system, source_instance, tenant, origin, `index`
FROM (SELECT *, deadline AS due FROM judged_grants WHERE removed_at IS NULL AND deadline < now64(6, 'UTC') AND NOT running)
COMMENT 'Access past its deadline that nobody confirmed to be gone, and that no other open grant covers: whatever the policy says';
