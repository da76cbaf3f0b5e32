"""What happened under each grant, computed from all events at once: slow, and without the tables of states."""

from __future__ import annotations

SESSIONS = """
SELECT DISTINCT grant_id, grant_key, session_key FROM events WHERE believed AND grant_id != '' AND session_id != ''
UNION DISTINCT
SELECT asked.grant_id AS grant_id, asked.grant_key AS grant_key, loose.session_key AS session_key
FROM
(
    SELECT DISTINCT request_key, session_key FROM events
    WHERE believed AND grant_id = '' AND request_id != '' AND session_id != ''
) AS loose
INNER JOIN
(
    SELECT DISTINCT grant_id, grant_key, request_key FROM events
    WHERE believed AND request_id != '' AND event_type IN ('grant.activated', 'grant.extended')
) AS asked USING request_key
"""
TIMELINE = f"""
SELECT grant_key, origin, `index` FROM events WHERE believed AND grant_id != ''
UNION ALL
SELECT DISTINCT link.grant_key AS grant_key, origin, `index`
FROM
(
    SELECT origin, `index`, arrayJoin([('request', request_key), ('session', session_key)]) AS linked
    FROM events WHERE believed AND grant_id = ''
) AS event
INNER JOIN
(
    SELECT DISTINCT grant_key, ('request', request_key) AS linked FROM events WHERE believed AND grant_id != ''
    UNION ALL
    SELECT grant_key, ('session', session_key) AS linked FROM ({SESSIONS})
) AS link USING linked
WHERE linked.2 != ''
"""
ACTIVITY = f"""
SELECT grant_key, max(begun) AS sessions, max(done) AS commands, max(environment) AS used_environment
FROM
(
    SELECT grant_key, 0 AS begun, uniqExact(id) AS done, '' AS environment
    FROM
    (
        SELECT grant_key, event_id AS id FROM events
        WHERE believed AND grant_id != '' AND event_type IN ('session.command', 'session.query')
        UNION ALL
        SELECT had.grant_key AS grant_key, event_id AS id
        FROM (
            SELECT session_key, event_id FROM events
            WHERE believed AND grant_id = '' AND event_type IN ('session.command', 'session.query')
        ) AS did INNER JOIN ({SESSIONS}) AS had USING session_key
    )
    GROUP BY grant_key
    UNION ALL
    SELECT grant_key, uniqExact(session_key) AS begun, 0 AS done, max(toString(resource_environment)) AS environment
    FROM (
        SELECT session_key, resource_environment FROM events
        WHERE believed AND startsWith(event_type, 'session.')
    ) AS did
    INNER JOIN ({SESSIONS}) AS had USING session_key
    GROUP BY grant_key
)
GROUP BY grant_key
"""
COMPARED = {
    "grant_sessions": ("SELECT grant_id, grant_key, session_key FROM grant_sessions", SESSIONS),
    "grant_timeline": ("SELECT grant_key, origin, `index` FROM grant_timeline", TIMELINE),
    "access_review": (
        "SELECT grant_key, sessions, commands FROM access_review WHERE sessions + commands > 0",
        f"SELECT grant_key, sessions, commands FROM ({ACTIVITY}) WHERE grant_key IN (SELECT grant_key FROM grants)",
    ),
    "stored_activity": (
        "SELECT grant_key, sessions, commands, used_environment FROM stored_activity FINAL "
        "WHERE generation = (SELECT max(generation) FROM state_refreshes)",
        ACTIVITY,
    ),
}
"""By view: its rows, and the same rows computed here."""
