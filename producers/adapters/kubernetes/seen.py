"""Kubernetes: the subjects of the bindings of one run. A later update names only those who remain."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from ....schemas.event import Subject
from ..values import synthesized

MOST = 100_000
"""Bindings that are remembered. The oldest are forgotten."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding, by the names that every record about it contains."""

    resource: str
    namespace: str
    name: str

    @property
    def request_id(self) -> str:
        """The id of the request that stands for the binding: its deletion ends all grants of this request."""
        return synthesized("role_binding", self.resource, self.namespace, self.name)

    def grant(self, subject: Subject, role: str) -> str:
        """Return the id of the grant of one subject. A binding that is made again may give another role."""
        return synthesized("role_binding_subject", self.resource, self.namespace, self.name, role, subject.id)


@dataclass(frozen=True, slots=True)
class Given:
    """What a binding gives: the role, and to whom."""

    entitlement: str
    subjects: tuple[Subject, ...]


class Seen:
    """The bindings of one run, by cluster and binding."""

    def __init__(self) -> None:
        self._bindings: OrderedDict[tuple[str, Binding], Given] = OrderedDict()

    def of(self, cluster: str, binding: Binding) -> Given | None:
        """Return what a binding gave when it was last seen; None if this run has not seen it."""
        return self._bindings.get((cluster, binding))

    def put(self, cluster: str, binding: Binding, given: Given) -> None:
        """Remember a binding."""
        self._bindings[cluster, binding] = given
        self._bindings.move_to_end((cluster, binding))
        if len(self._bindings) > MOST:
            self._bindings.popitem(last=False)

    def forget(self, cluster: str, binding: Binding) -> None:
        """Forget a binding that was deleted."""
        self._bindings.pop((cluster, binding), None)

    def all_in(self, cluster: str, resource: str, namespace: str) -> tuple[tuple[Binding, Given], ...]:
        """Return the bindings of one kind in a namespace; in the cluster without one."""
        return tuple(
            (binding, given)
            for (place, binding), given in self._bindings.items()
            if (place, binding.resource) == (cluster, resource) and namespace in ("", binding.namespace)
        )
