"""The SQL with which :mod:`.states` adds new entries to the states, and computes the rows that they concern.

``{generation}``, ``{version}``: of the rows to add. ``{origin}``, ``{first}``, ``{end}``: entries of one log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..schemas.event import LIFECYCLE_TOPIC

LOOKUPS: Final[Mapping[str, str]] = {
    "enable_join_runtime_filters_index_analysis": "1",
    "join_runtime_filter_min_probe_rows": "0",
}
"""Settings of each query that joins: what one side has decides which parts of the other side are read.

A view cannot set them, because they concern the plan of the whole query.
"""

_LIFECYCLE = f"origin IN (SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] = '{LIFECYCLE_TOPIC}')"  # noqa: S608 - our own text
_EVENTS = (
    "epoch, `index`, origin, event_type, event_id, occurred_at, recorded_at, arrived_at, outcome, signature, tenant, "
    "subject_id, subject_kind, actor_id, resource_kind, resource_id, resource_environment, entitlement, grant_id, "
    "grant_key, grant_source_system, grant_source_instance, request_id, request_key, request_source_system, "
    "request_source_instance, source_system, source_instance, approvals, starts_at, expires_at, expiry_source, "
    "ends_by_itself, removal_evidence, reason, ticket, customer"
)
ACCESS_EVENTS = f"""
SELECT if(grant_id != '' AND startsWith(event_type, 'grant.'), grant_key, request_key) AS access_key, {_EVENTS}
FROM events
WHERE believed AND {_LIFECYCLE} AND (grant_id != '' OR request_id != '') AND match(event_type, '^(request|grant)\\.')
"""  # noqa: S608 - our own text
"""The columns of ``access_events`` after the first two."""
_LINKS = (
    "kind, id, access_key, origin, `index`, grant_id, grant_key, request_id, request_key, session_id, session_key, "
    "gives, of_session, command, environment"
)
KEY_EVENTS = """
SELECT
    one.1 AS kind, one.2 AS id, one.3 AS access_key, origin, `index`,
    if(kind = 'grant', '', named[1].2) AS grant_id, if(kind = 'grant', '', named[1].3) AS grant_key,
    if(kind = 'request', '', named[2].2) AS request_id, if(kind = 'request', '', named[2].3) AS request_key,
    if(kind = 'session', '', named[3].2) AS session_id, if(kind = 'session', '', named[3].3) AS session_key,
    toBool(event_type IN ('grant.activated', 'grant.extended')) AS gives,
    toBool(startsWith(event_type, 'session.')) AS of_session,
    if(event_type IN ('session.command', 'session.query'), reinterpretAsUInt128(sipHash128(event_id)), 0) AS command,
    resource_environment AS environment
FROM
(
    SELECT
        origin, `index`, event_type, event_id, resource_environment,
        [('grant', grant_id, grant_key), ('request', request_id, request_key), ('session', session_id, session_key)]
            AS named,
        arrayJoin(arrayFilter(each -> each.2 != '', named)) AS one
    FROM events
    WHERE believed AND (grant_id != '' OR request_id != '' OR session_id != '')
)
"""
"""The columns of ``key_events`` after the first two."""
FINDINGS = """
WITH (SELECT (arrayPushBack(groupArray(identity), '\\0'), arrayPushBack(groupArray(person), '')) FROM people) AS known
SELECT
    *,
    transform(
        caseFoldUTF8(normalizeUTF8NFC(
            replaceRegexpAll(toValidUTF8(subject_id), '^[\\\\s\\\\p{Z}]+|[\\\\s\\\\p{Z}]+$', '')
        )),
        known.1, known.2, subject_id
    ) AS person
FROM computed_findings
"""
"""The columns of ``stored_findings`` after the first two."""
_RANGE = "origin = {origin:String} AND `index` >= {first:UInt64} AND `index` < {end:UInt64}"
ADD_ACCESS_EVENTS = f"""
INSERT INTO access_events (generation, version, access_key, {_EVENTS})
SELECT {{generation:UInt64}}, {{version:UInt64}}, * FROM ({ACCESS_EVENTS}) WHERE {_RANGE}
"""  # noqa: S608 - our own text
ADD_KEY_EVENTS = f"""
INSERT INTO key_events (generation, version, {_LINKS})
SELECT {{generation:UInt64}}, {{version:UInt64}}, * FROM ({KEY_EVENTS}) WHERE {_RANGE}
"""  # noqa: S608 - our own text
ADD_FINDINGS = f"""
INSERT INTO stored_findings SELECT {{generation:UInt64}}, {{version:UInt64}}, * FROM ({FINDINGS})
WHERE (rule, key, tenant) IN (
    SELECT finding_rule, finding_key, tenant FROM entries WHERE {_RANGE} AND finding_rule != ''
)
"""  # noqa: S608 - our own text

_HERE = "generation = {generation:UInt64}"
_NEW = f"{_HERE} AND version = {{version:UInt64}}"
NEWS = f"""
SELECT
    (SELECT count() FROM access_events WHERE {_NEW} AND startsWith(event_type, 'request.')) AS requests,
    (SELECT count() FROM access_events WHERE {_NEW})
        + (SELECT count() FROM stored_findings WHERE {_NEW} AND rule = 'overdue') AS grants,
    (SELECT count() FROM key_events WHERE {_NEW} AND (kind = 'session' OR command != 0 OR gives)) AS activity
"""  # noqa: S608 - our own text
"""How many new rows concern requests, grants, and the activity under grants."""
_REQUESTS = f"SELECT request_key FROM access_events WHERE {_NEW} AND startsWith(event_type, 'request.')"  # noqa: S608 - our own text
_GRANTS = f"""
SELECT grant_key FROM access_events WHERE {_NEW} AND grant_key != ''
UNION DISTINCT
SELECT grant_key FROM key_events
WHERE {_HERE} AND kind = 'request' AND grant_key != '' AND (id, access_key) IN (
    SELECT request_id, request_key FROM access_events
    WHERE {_NEW} AND (startsWith(event_type, 'request.') OR grant_key = '')
)
UNION DISTINCT
SELECT access_key FROM key_events
WHERE {_HERE} AND kind = 'grant' AND id IN (SELECT key FROM stored_findings WHERE {_NEW} AND rule = 'overdue')
"""  # noqa: S608 - our own text
_SESSIONS = f"""
SELECT grant_id, grant_key, request_id, request_key FROM key_events
WHERE {_HERE} AND kind = 'session' AND (id, access_key) IN (
    SELECT id, access_key FROM key_events WHERE {_NEW} AND kind = 'session'
)
"""  # noqa: S608 - our own text
_ACTIVE = f"""
SELECT id, access_key FROM key_events WHERE {_NEW} AND kind = 'grant'
UNION DISTINCT
SELECT grant_id, grant_key FROM ({_SESSIONS}) WHERE grant_key != ''
UNION DISTINCT
SELECT grant_id, grant_key FROM key_events
WHERE {_HERE} AND kind = 'request' AND gives AND grant_key != '' AND (id, access_key) IN (
    SELECT request_id, request_key FROM ({_SESSIONS}) WHERE grant_key = '' AND request_key != ''
)
"""  # noqa: S608 - our own text


def add_requests(which: str = f"request_key IN ({_REQUESTS})") -> str:
    """Return the statement that computes requests: by default those that new entries concern."""
    return (
        "\nINSERT INTO stored_requests SELECT {generation:UInt64}, {version:UInt64}, * FROM computed_requests "  # noqa: S608 - our own text
        f"WHERE {which}"
    )


def add_grants(which: str = f"grant_key IN ({_GRANTS})") -> str:
    """Return the statement that computes grants: by default those that new entries concern."""
    return (
        "\nINSERT INTO stored_grants (* EXCEPT (over)) "  # noqa: S608 - our own text
        f"SELECT {{generation:UInt64}}, {{version:UInt64}}, * FROM computed_grants WHERE {which}"
    )


ADD_LIVE_GRANTS = f"""
INSERT INTO live_grants SELECT * REPLACE (2 * version AS version) FROM
(
    SELECT * FROM stored_grants
    WHERE {_NEW} AND (NOT over OR grant_id IN (SELECT grant_id FROM live_grants WHERE {_HERE}))
)
"""  # noqa: S608 - our own text
"""Copies the new rows of grants that are not over, and of those that were not over until now."""
RETIRE_GRANTS = f"""
INSERT INTO live_grants (generation, version, over, grant_id, grant_key, tenant)
SELECT generation, version + 1, 1, grant_id, grant_key, tenant FROM live_grants FINAL WHERE {_HERE} AND is_over
"""  # noqa: S608 - our own text
"""Ends the rows of grants that are over since some time has passed."""


LIVE_ROWS = f"SELECT count(), countIf(over) FROM live_grants WHERE {_HERE}"  # noqa: S608 - our own text
"""The number of rows of ``live_grants``, and of those that are ends."""


def add_activity(which: str = f"(grant_id, grant_key) IN ({_ACTIVE})") -> str:
    """Return the statement that computes the activity under grants: by default those that new entries concern."""
    return (
        "\nINSERT INTO stored_activity SELECT {generation:UInt64}, {version:UInt64}, * FROM computed_activity "  # noqa: S608 - our own text
        f"WHERE {which}"
    )


def ends(table: str, key: str, condition: str, rows: int) -> str:
    """Return the query for the last keys of parts of a table of about so many rows each, in order, as hex.

    Args:
        key: the column that the table is sorted by, among the rows with the condition.
    """
    return (
        f"SELECT hex({key}) FROM (SELECT DISTINCT {key} FROM (SELECT {key}, rowNumberInAllBlocks() AS nth FROM "  # noqa: S608 - our own text
        f"(SELECT {key} FROM {table} WHERE {_HERE} AND {condition} ORDER BY {key})) WHERE (nth + 1) % {rows} = 0) "
        f"ORDER BY {key}"
    )
