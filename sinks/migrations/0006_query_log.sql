-- The statements of people. The SQL endpoint shows this view to auditors only.
CREATE VIEW query_log
(
    asked_at DateTime64(6, 'UTC') COMMENT 'When the endpoint received the statement, by its own clock',
    asked_by String COMMENT 'User whose credential it came with',
    statement String COMMENT 'Text, up to 16 KiB together with the parameters',
    parameters Array(String) COMMENT 'Values of its {name:Type} substitutions, as name=value',
    truncated Bool COMMENT 'Whether text or parameters were cut',
    rows Nullable(Int64) COMMENT 'Rows of the complete answer; null if there was none, or if it was no SELECT',
    duration_ms Nullable(Int64) COMMENT 'Until the client had the whole answer; null if unknown',
    outcome LowCardinality(String) COMMENT 'success; denied: refused before it ran; failure; unknown: the endpoint was killed meanwhile',
    error String COMMENT 'Why it was denied or failed',
    client_ip String COMMENT 'Address of the client',
    spool LowCardinality(String) COMMENT 'Spool that kept the statement until Kafka had it',
    number Nullable(Int64) COMMENT 'Number of the statement on that spool, without gaps from 1: a gap is a lost statement',
    append_time DateTime64(3, 'UTC') COMMENT 'Append time of the broker',
    event_id String COMMENT 'Identity of the statement: a record that was published twice is shown once',
    origin LowCardinality(String) COMMENT 'Log of the entry',
    `index` UInt64 COMMENT 'Position in that log'
)
AS SELECT
    occurred_at AS asked_at, actor_id AS asked_by, query AS statement, args AS parameters, truncated, query_rows AS rows,
    if(outcome = 'unknown', NULL, query_duration_ms) AS duration_ms, outcome, error, client_ip, source_sender AS spool,
    source_seq AS number, append_time, event_id, origin, `index`
FROM entries
WHERE event_type = 'query.executed' AND decode_error = '' AND source_system = 'grantledger-store' AND signature = 'valid'
ORDER BY origin, `index`
LIMIT 1 BY event_id
COMMENT 'Statements that people sent to the SQL endpoint, for auditors';
