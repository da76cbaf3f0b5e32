"""The output formats that people and database drivers request. The engine writes all of them."""

from __future__ import annotations

from typing import Final

from .errors import ErrorCode, QueryRefusedError

DEFAULT: Final = "TabSeparated"
NATIVE: Final = "Native"

_BINARY = "application/octet-stream"
_TEXT = "text/plain; charset=UTF-8"
_TAB_SEPARATED = "text/tab-separated-values; charset=UTF-8"
# Media types as a ClickHouse server sends them. clickhouse-connect and Grafana request Native, JDBC drivers
# RowBinaryWithNamesAndTypes and TSKV.
CONTENT_TYPES: Final = {
    **dict.fromkeys(("TabSeparated", "TabSeparatedWithNames", "TabSeparatedWithNamesAndTypes"), _TAB_SEPARATED),
    **dict.fromkeys(("TabSeparatedRaw", "TSKV"), _TAB_SEPARATED),
    **dict.fromkeys(("CSV", "CSVWithNames"), "text/csv; charset=UTF-8"),
    **dict.fromkeys(("JSON", "JSONCompact"), "application/json; charset=UTF-8"),
    **dict.fromkeys(("JSONEachRow", "JSONCompactEachRow"), "application/x-ndjson; charset=UTF-8"),
    **dict.fromkeys(("Arrow", "ArrowStream", "Parquet", NATIVE, "RowBinaryWithNamesAndTypes"), _BINARY),
    **dict.fromkeys(("Pretty", "PrettyCompact", "Vertical", "Null"), _TEXT),
}
_CANONICAL: Final = {name.lower(): name for name in CONTENT_TYPES}


def resolve(name: str) -> str:
    """Return the canonical name of an output format, for any case and for the short form TSV.

    Raises:
        QueryRefusedError: the format is not served (code 73).
    """
    lower = name.lower()
    full = lower.replace("tsv", "tabseparated", 1) if lower.startswith("tsv") else lower
    try:
        return _CANONICAL[full]
    except KeyError:
        served = ", ".join(CONTENT_TYPES)
        raise QueryRefusedError(
            ErrorCode.UNKNOWN_FORMAT, f"Format {name[:100]} is not supported by this endpoint. Use one of: {served}."
        ) from None
