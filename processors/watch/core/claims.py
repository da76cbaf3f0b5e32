"""Who may report about a grant or request: its own source, and the reporters that the policy names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ....schemas.access_key import SourceName, is_issuer, scope_prefix
from ....schemas.event import GIVING, OBSERVED, REMOVING
from ...watch_policy import EffectivePolicy
from .facts import Fact
from .grants import Grant
from .links import Links

FOREIGN = "foreign_claim"
UNSIGNED = "unsigned_source"
_REPORTS = {**dict.fromkeys((*REMOVING, OBSERVED), "remove"), "grant.extended": "extend"}
"""What the policy must allow other sources, by event type."""
MOST_SCOPES = 1000
"""Issuing sources of a tenant in which the grant of a removal is looked up that names no source."""


class Claims:
    """The sources that have given grants, and what others may report about them."""

    def __init__(self, policy: EffectivePolicy) -> None:
        self._policy = policy
        self._scopes: dict[str, set[str]] = {}
        """By tenant: the beginnings of the keys of activated grants."""

    def add_issuer(self, tenant: str, issuer: SourceName) -> None:
        """Add a source that has activated a grant."""
        scopes = self._scopes.setdefault(tenant, set())
        if len(scopes) < MOST_SCOPES:
            scopes.add(scope_prefix(tenant, *issuer))

    def allows(self, fact: Fact, issuer: SourceName) -> bool:
        """Whether the policy lets another source than the issuer report a removal or extension."""
        return _REPORTS.get(fact.event_type) in self._policy.reports(fact.source, issuer)

    def allows_approval(self, fact: Fact, issuer: SourceName) -> bool:
        """Whether the policy lets another source than the issuer report an approval."""
        return "approve" in self._policy.reports(fact.source, issuer)

    def concerns(self, fact: Fact, grant: Grant) -> bool:
        """Whether a fact that names only a request counts for one of its grants.

        A removal may precede the activation that it ends, if both are of one source.
        """
        issuer = grant.address.issuer
        if is_issuer(fact.source, issuer):
            return bool(grant.activations) or fact.event_type in REMOVING
        return bool(grant.activations) and fact.access == grant.access and self.allows(fact, issuer)

    def is_issued_elsewhere(self, fact: Fact, grants: Mapping[str, Grant], grants_of_request: Links[str]) -> bool:
        """Whether a removal or extension of what its source never gave has an id that another source issued."""
        if fact.event_type not in REMOVING and fact.event_type not in GIVING:
            return False
        if not fact.grant_id:
            return any(key in grants or key in grants_of_request for key in self._keys(fact, fact.request_id))
        found = (grants.get(key) for key in self._keys(fact, fact.grant_id))
        return any(one is not None and one.activations and one.key != fact.grant_key for one in found)

    def _keys(self, fact: Fact, id: str) -> Iterator[str]:
        return (scope + id for scope in self._scopes.get(fact.tenant, ()))
