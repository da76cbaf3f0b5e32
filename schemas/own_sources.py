"""The pipeline's own sources: ``source.system`` of its events. ``init`` registers them all."""

from __future__ import annotations

PREFIX = "grantledger-"
"""The beginning of these names. No other source may have such a name."""
OPERATOR = f"{PREFIX}operator"
"""What people do by command. It registers all sources, itself included."""
SEALER = f"{PREFIX}seal"
"""What the sealers report. It registers the writer schemas."""
READER = f"{PREFIX}reader"
"""What the readers of sealed logs find in them."""
ANCHOR = f"{PREFIX}anchor"
STORE = f"{PREFIX}store"
WATCH = f"{PREFIX}watch"
SWEEP = f"{PREFIX}sweep"
ALERT = f"{PREFIX}alert"
ENFORCER = f"{PREFIX}enforcer"
"""What enforcers report. They read access back, so they may report the removal of any grant."""
OWN_SOURCES = (OPERATOR, SEALER, READER, ANCHOR, STORE, WATCH, SWEEP, ALERT, ENFORCER)
"""All of them; the operator first, because it signs all registrations."""
