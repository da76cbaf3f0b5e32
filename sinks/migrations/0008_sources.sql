-- The sources at a glance. A source is a tool (source_system) and an installation of it (source_instance). The pipeline's
-- own sources are left out.
CREATE VIEW added_sources
(
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Its installation, by the name in the watch policy if it has several; a pattern with * and ? where the policy has one',
    tenant String COMMENT 'The only tenant for which it may report; empty: every tenant',
    registered Bool COMMENT 'Registered with sources add: only its signed events count',
    added_at DateTime64(6, 'UTC') COMMENT 'When it was first registered, or named in the watch policy',
    pattern String COMMENT 'source_instance for LIKE: patterns have % and _'
)
AS WITH (SELECT (arrayPushBack(groupArray(concat(system, '\0', name)), '\0'), arrayPushBack(groupArray(instance), '')) FROM instance_names) AS names
SELECT
    source_system, transform(concat(source_system, '\0', stated_instance), names.1, names.2, stated_instance) AS source_instance,
    max(only_tenant) AS tenant, CAST(max(is_registered), 'Bool') AS registered, min(since) AS added_at,
    replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(source_instance, '\\', '\\\\'), '_', '\\_'), '%', '\\%'), '*', '%'), '?', '_') AS pattern
FROM
(
    -- Since its last removal, if there is one.
    SELECT
        source_system, stated_instance, stated[-1].4 AS only_tenant, true AS is_registered,
        stated[arrayLastIndex(one -> one.3, stated) + 1].2 AS since
    FROM
    (
        SELECT
            splitByChar('/', subject_id)[2] AS source_system,
            substring(subject_id, length(source_system) + 9) AS stated_instance, -- after source/SYSTEM/
            arraySort(groupArray((
                (toUInt32OrZero(splitByChar('/', origin)[-1]), `index`),
                if(bitTest(flags, 0), toDateTime64(append_time, 6, 'UTC'), sealed_at),
                ifNull(registered_source_removed, false), toString(registered_source_tenant)
            ))) AS stated
        FROM entries
        WHERE event_type = 'source.registered' AND decode_error = '' AND signature = 'valid'
            AND entries.source_system = 'grantledger-operator' AND NOT startsWith(subject_id, 'source/grantledger-')
            AND origin IN (SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] = 'access.findings')
        GROUP BY source_system, stated_instance
    )
    WHERE NOT stated[-1].3
    UNION ALL
    -- A source whose silence the policy limits is expected to report. Patterns of tools name none.
    SELECT source_system, stated_instance, '' AS only_tenant, false AS is_registered, min(since) AS since
    FROM
    (
        SELECT
            (toUInt32OrZero(splitByChar('/', origin)[-1]), `index`) AS place,
            if(bitTest(flags, 0), toDateTime64(append_time, 6, 'UTC'), sealed_at) AS since,
            arrayJoin(JSONExtractArrayRaw(raw, 'source')) AS limits,
            JSONExtractString(limits, 'system') AS source_system,
            if(JSONHas(limits, 'instance'), JSONExtractString(limits, 'instance'), '*') AS stated_instance,
            max(place) OVER () AS in_force
        FROM entries
        WHERE event_type = 'config.changed' AND decode_error = '' AND signature NOT IN ('missing', 'invalid')
            AND resource_id = 'watch-policy' AND entries.source_system = 'grantledger-watch'
            AND origin IN (SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] = 'access.findings')
    )
    WHERE source_system != '' AND NOT match(source_system, '[*?]') AND NOT startsWith(source_system, 'grantledger-')
        AND (JSONExtract(limits, 'silent_after_seconds', 'Nullable(Float64)') IS NOT NULL
            OR JSONExtract(limits, 'heard_within_seconds', 'Nullable(Float64)') > 0)
    GROUP BY source_system, stated_instance
    HAVING max(place) = any(in_force)
)
GROUP BY source_system, source_instance
COMMENT 'Sources that are registered, or whose silence the watch policy limits';

CREATE VIEW never_heard_sources
(
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Its installation, or a pattern, as in added_sources',
    tenant String COMMENT 'The only tenant for which it may report; empty: every tenant',
    registered Bool COMMENT 'Registered with sources add: only its signed events count',
    added_at DateTime64(6, 'UTC') COMMENT 'When it was first registered, or named in the watch policy',
    something_came Bool COMMENT 'Something came in its name: historical, rejected or unsigned events, or reports about records that are no events',
    pattern String COMMENT 'source_instance for LIKE: patterns have % and _'
)
AS WITH
    (SELECT (arrayPushBack(groupArray(concat(system, '\0', name)), '\0'), arrayPushBack(groupArray(instance), '')) FROM instance_names) AS names,
    (SELECT groupArray((source_system, source_instance)) FROM added_sources) AS added,
    (SELECT if(policy = '', 3600, JSONExtractFloat(policy, 'history_after_seconds')) FROM watch_policy) AS history_after,
    (
        SELECT groupUniqArray((
            toString(source_system), transform(concat(source_system, '\0', source_instance), names.1, names.2, toString(source_instance)),
            decode_error = '' AND signature NOT IN ('missing', 'invalid') AND event_type != 'source.report'
                AND dateDiff('microsecond', occurred_at, if(signature = 'valid', least(ifNull(received_at, recorded_at), recorded_at), recorded_at)) / 1e6 < history_after
        ))
        FROM (SELECT *, if(bitTest(flags, 0), toDateTime64(append_time, 6, 'UTC'), sealed_at) AS recorded_at FROM entries)
        WHERE source_system IN (SELECT source_system FROM added_sources) AND event_type != 'query.executed'
    ) AS came
SELECT
    source_system, source_instance, tenant, registered, added_at,
    CAST(arrayExists(one -> one.1 = source_system AND one.2 LIKE pattern, came), 'Bool') AS something_came,
    pattern
FROM added_sources
WHERE NOT arrayExists(one -> one.3 AND one.1 = source_system AND one.2 LIKE pattern, came)
    -- Where an installation was added, too, that one is expected.
    AND NOT arrayExists(one -> one.1 = source_system AND one.2 LIKE pattern AND match(source_instance, '[*?]') AND one.2 != source_instance, added)
COMMENT 'Sources that were added and have never sent an event that counts. Historical ones do not show that they are connected';

CREATE VIEW source_health
(
    tenant String COMMENT 'Tenant; empty: no event says which',
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Its installation, by the name in the watch policy if it has several; a pattern where only the policy names it',
    state String COMMENT 'heard; silent: an open finding says so; never heard: as in never_heard_sources; no events: none that counts',
    registered Bool COMMENT 'Registered with sources add: only its signed events count',
    expected Bool COMMENT 'Registered, or the watch policy limits its silence',
    signed Bool COMMENT 'The signature of its latest event is valid. Those of sources that are not registered are not checked',
    added_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was first registered, or named in the watch policy; null if neither',
    first_event_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Earliest event by the clock of the source',
    last_event_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Latest event by the clock of the source',
    first_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the first event',
    last_recorded_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Append time of the last event',
    silent_since Nullable(DateTime64(6, 'UTC')) COMMENT 'Of a silent source last_recorded_at, of one that was never heard added_at; otherwise null',
    events UInt64 COMMENT 'Entries with an event that counts; one that was read twice counts twice',
    events_per_hour Float64 COMMENT 'Of these, the ones that were appended in the last 24 hours, divided by 24',
    delay_p50_seconds Nullable(Float64) COMMENT 'Median of append time minus time of the event, of the last 24 hours, approximate; null without events',
    delay_p99_seconds Nullable(Float64) COMMENT '99th percentile of it',
    mapped UInt64 COMMENT 'Records that import, follow or the gateway turned into events, by their reports; 0 for senders that write to Kafka',
    skipped UInt64 COMMENT 'Records that they skipped on purpose',
    failed UInt64 COMMENT 'Records that they could not read',
    skipped_by_reason Map(String, UInt64) COMMENT 'skipped by the reasons of the adapter',
    rejected UInt64 COMMENT 'Events in its name that break a rule: rejected_events lists them',
    unsigned UInt64 COMMENT 'Events in its name that are not believed, because they lack a valid signature',
    open_gaps UInt64 COMMENT 'Open findings sequence_gap: hours in which numbers of its senders are missing'
)
AS WITH
    (SELECT (arrayPushBack(groupArray(concat(system, '\0', name)), '\0'), arrayPushBack(groupArray(instance), '')) FROM instance_names) AS names,
    (SELECT groupArray((source_system, pattern, added_at, registered)) FROM added_sources) AS added,
    (SELECT groupArray((source_system, pattern)) FROM never_heard_sources) AS never
SELECT
    source.tenant AS tenant, source.source_system AS source_system, source.source_instance AS source_instance,
    multiIf(
        arrayExists(one -> one.1 = source.source_system AND source.source_instance LIKE one.2, never), 'never heard',
        source.events = 0, 'no events', about.is_silent, 'silent', 'heard'
    ) AS state,
    CAST(arrayExists(one -> one.4, source.matching), 'Bool') AS registered, CAST(notEmpty(source.matching), 'Bool') AS expected,
    CAST(source.signed, 'Bool') AS signed,
    if(expected, arrayMin(one -> one.3, source.matching), NULL) AS added_at,
    source.first_event_at AS first_event_at, source.last_event_at AS last_event_at,
    source.first_recorded_at AS first_recorded_at, source.last_recorded_at AS last_recorded_at,
    multiIf(state = 'silent', last_recorded_at, state = 'never heard', added_at, NULL) AS silent_since,
    source.events AS events, round(source.last_day / 24, 3) AS events_per_hour,
    if(source.last_day = 0, NULL, source.delays[1]) AS delay_p50_seconds,
    if(source.last_day = 0, NULL, source.delays[2]) AS delay_p99_seconds,
    report.mapped AS mapped, report.skipped AS skipped, report.failed AS failed, report.reasons AS skipped_by_reason,
    source.rejected AS rejected, source.unsigned AS unsigned, about.gaps AS open_gaps
FROM
(
    SELECT
        tenant, source_system, source_instance,
        countIf(counts) AS events,
        if(events = 0, NULL, minIf(occurred_at, counts)) AS first_event_at,
        if(events = 0, NULL, maxIf(occurred_at, counts)) AS last_event_at,
        if(events = 0, NULL, minIf(recorded_at, counts)) AS first_recorded_at,
        if(events = 0, NULL, maxIf(recorded_at, counts)) AS last_recorded_at,
        argMaxIf(signature = 'valid', recorded_at, counts) AS signed,
        countIf(counts AND recorded_at > now64(6) - INTERVAL 24 HOUR) AS last_day,
        quantilesTDigestIf(0.5, 0.99)(
            dateDiff('microsecond', occurred_at, recorded_at) / 1e6, counts AND recorded_at > now64(6) - INTERVAL 24 HOUR
        ) AS delays,
        countIf(decode_error != '') AS rejected,
        countIf(decode_error = '' AND signature IN ('missing', 'invalid')) AS unsigned,
        arrayFilter(one -> one.1 = source_system AND source_instance LIKE one.2, added) AS matching
    FROM
    (
        SELECT
            toString(tenant) AS tenant, toString(entries.source_system) AS source_system,
            transform(concat(entries.source_system, '\0', entries.source_instance), names.1, names.2, toString(entries.source_instance)) AS source_instance,
            occurred_at, signature, decode_error,
            if(bitTest(flags, 0), toDateTime64(append_time, 6, 'UTC'), sealed_at) AS recorded_at,
            decode_error = '' AND signature NOT IN ('missing', 'invalid') AND event_type != 'source.report' AS counts
        FROM entries
        WHERE entries.source_system != '' AND NOT startsWith(entries.source_system, 'grantledger-') AND event_type != 'query.executed'
    )
    GROUP BY tenant, source_system, source_instance
    UNION ALL
    SELECT
        tenant, source_system, source_instance, 0, NULL, NULL, NULL, NULL, false, 0, [], 0, 0,
        [(source_system, pattern, added_at, registered)]
    FROM never_heard_sources
    WHERE NOT something_came
) AS source
LEFT JOIN
(
    SELECT
        tenant, source_system, source_instance,
        sumIf(records, result = 'mapped') AS mapped, sumIf(records, result = 'skipped') AS skipped,
        sumIf(records, result = 'failed') AS failed,
        sumMapIf(map(reason, records), result = 'skipped') AS reasons
    FROM
    (
        -- The same report may be sent again after a failure.
        SELECT
            toString(tenant) AS tenant, toString(entries.source_system) AS source_system,
            transform(concat(entries.source_system, '\0', entries.source_instance), names.1, names.2, toString(entries.source_instance)) AS source_instance,
            event_id, any(report_result) AS result, any(report_reason) AS reason,
            toUInt64(any(ifNull(report_records, 0))) AS records
        FROM entries
        WHERE event_type = 'source.report' AND decode_error = '' AND signature NOT IN ('missing', 'invalid')
        GROUP BY tenant, source_system, source_instance, event_id
    )
    GROUP BY tenant, source_system, source_instance
) AS report USING (tenant, source_system, source_instance)
LEFT JOIN
(
    SELECT key, max(rule = 'source_silent') AS is_silent, countIf(rule = 'sequence_gap') AS gaps
    FROM findings
    WHERE open AND rule IN ('source_silent', 'sequence_gap')
    GROUP BY key
) AS about ON about.key = concat(source.source_system, '/', source.source_instance)
SETTINGS join_use_nulls = 0
COMMENT 'Sources at a glance: one row per tenant and source, those that were added and never heard included';

CREATE VIEW unmapped_records
(
    append_time DateTime64(3, 'UTC') COMMENT 'Append time of the broker',
    tenant String COMMENT 'Tenant',
    source_system String COMMENT 'The tool',
    source_instance String COMMENT 'Its installation',
    result String COMMENT 'failed, or skipped because its type is unknown',
    reason String COMMENT 'What the adapter says',
    adapter String COMMENT 'The adapter',
    adapter_version String COMMENT 'Its version: a later one may know such records',
    record String COMMENT 'The record of the tool',
    event_id String COMMENT 'Identity of the report: the same record read twice is shown once',
    signature LowCardinality(String) COMMENT 'valid; unregistered: the source need not sign',
    origin LowCardinality(String) COMMENT 'Log of the entry',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    append_time, tenant, source_system, source_instance, report_result AS result, report_reason AS reason,
    mapping_adapter AS adapter, mapping_version AS adapter_version, raw AS record, event_id, signature, origin, `index`
FROM entries
WHERE event_type = 'source.report' AND raw != '' AND decode_error = '' AND signature NOT IN ('missing', 'invalid')
ORDER BY origin, `index`
LIMIT 1 BY tenant, source_system, source_instance, event_id
COMMENT 'Records of tools that import, follow or the gateway could not map, although they are well-formed: they are kept';
