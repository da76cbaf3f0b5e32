"""The Kafka header that marks the records of an import of history. It is sealed, and only lowers a severity."""

from __future__ import annotations

HISTORY_HEADER = "grantledger-history"
HISTORY_VALUE = b"import"
