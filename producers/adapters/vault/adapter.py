"""HashiCorp Vault: its audit log, one JSON object a line, two lines a request.

After "Audit log entry schema" in Vault's documentation.
"""

from __future__ import annotations

from typing import ClassVar

from ..contract import Adapter, Mapped, Skipped
from ..reading import Fields
from .entry import Entry
from .grants import map_grant
from .paths import Deed


class VaultAdapter(Adapter):
    """Maps Vault audit entries.

    The answer carries the outcome, so the ``response`` entry makes the event and the ``request`` entry is skipped: one
    thing happens once. A token is a grant, named by its accessor: what is done with it names it as grant and session.
    Vault writes accessors as HMAC, the same wherever one device writes them. Audit entries hold no lease duration, and
    what Vault revokes by itself at the end of a TTL is not in this log at all.
    """

    SYSTEM: ClassVar[str] = "vault"
    SKIP_REASONS: ClassVar[dict[str, str]] = {
        "blank_line": "an empty line",
        "request_half": "the entry before the answer; the response entry of the same request id is mapped",
        "ui_lookup": "the command line and the web page asking which mounts there are, answered",
    }

    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one entry; see the contract."""
        kind = record.required_text("type")
        request = record.object("request")
        path = request.required_text("path")
        if kind == "request":
            return Skipped("request_half", f"{request.text('operation') or ''} {path}".strip())
        if kind != "response":
            record.fail("type", f"{kind[:40]!r} is neither request nor response")
        entry = Entry(record, self.instance)
        if entry.deed is Deed.UI_LOOKUP and not entry.refused and not entry.failed:
            return Skipped("ui_lookup", path)
        if entry.refused:
            return (entry.session_event("session.denied", "denied"),)
        if not entry.failed:
            granted = map_grant(entry)
            if granted is not None:
                return granted
        return (entry.session_event("session.command", "failure" if entry.failed else "success"),)
