"""Kubernetes: role bindings as grants, one per subject, and changes of roles as ``policy.changed``.

Source: the API reference of ``rbac.authorization.k8s.io/v1``. ``roleRef`` cannot be changed; a list of subjects is
replaced as a whole by every kind of update.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....schemas.event import Action, Event, Subject
from ...json_fields import Fields
from ..contract import Mapped, Skipped
from ..values import UNKNOWN, ordinal_of, synthesized
from .request import SERVICE_ACCOUNT, Request, in_namespace, user_subject
from .seen import Binding, Given, Seen

RBAC = "rbac.authorization.k8s.io"
BINDINGS = ("rolebindings", "clusterrolebindings")
_ROLES = ("roles", "clusterroles")
_CHANGES = ("create", "update", "patch", "delete", "deletecollection")
_USERS_OF_EKS = ("kube-system", "aws-auth")
"""The ConfigMap that maps IAM roles to Kubernetes users and groups."""
_GROUP = "group:"


def map_binding(request: Request, seen: Seen) -> Mapped | Skipped | None:
    """Return the events of a change of a binding; None for any other request."""
    target = request.target
    if target.group != RBAC or target.resource not in BINDINGS or target.subresource:
        return None
    if request.verb == "deletecollection":
        return _all_deleted(request, seen)
    if request.verb not in _CHANGES:
        return None
    name = target.name or _name_of(request.answer) or _name_of(request.asked) or UNKNOWN
    binding = Binding(target.resource, target.namespace, name)
    if request.verb == "delete":
        return _deleted(request, binding, seen)
    given = _given(request, binding)
    if request.refused:
        return _refused(request, binding, given)
    if given is None:
        return _content_not_logged(request, binding)
    known = seen.of(request.instance, binding)
    removed: tuple[Subject, ...] | None
    if request.verb == "create":
        added, removed = given.subjects, ()
    elif known is None or known.entitlement != given.entitlement:  # or it was made again, with another role
        added, removed = given.subjects, None
    else:
        added = tuple(one for one in given.subjects if one not in known.subjects)
        removed = tuple(one for one in known.subjects if one not in given.subjects)
    seen.put(request.instance, binding, given)
    if removed is None and not _changes_subjects(request):
        return Skipped("nothing_changed", f"{request.verb} {target.kind} {target.place}: not its subjects")
    if not added and not removed and removed is not None:
        return Skipped("nothing_changed", f"{request.verb} {target.kind} {target.place}: the same subjects")
    ended = [_replaced(request, binding, given)] if removed is None else [
        _removed(request, binding, one, given.entitlement) for one in removed
    ]  # fmt: skip
    return (*ended, *(_activated(request, binding, one, given.entitlement) for one in added))


def map_policy(request: Request) -> Mapped | None:
    """Return the event of a change of a role, or of the users of EKS; None for any other request."""
    target = request.target
    role = target.group == RBAC and target.resource in _ROLES
    users = target.resource == "configmaps" and not target.group and (target.namespace, target.name) == _USERS_OF_EKS
    if request.verb not in _CHANGES or target.subresource or not (role or users):
        return None
    name = target.name or _name_of(request.answer) or _name_of(request.asked) or ("*" if role else target.name)
    of_namespace = in_namespace(f"Role {name}", target.namespace) if target.resource == "roles" else name
    return (_policy(request, of_namespace if role else "aws-auth"),)


def _policy(request: Request, entitlement: str) -> Event:
    changed = Action(command=request.verb, args=(f"{request.target.kind} {request.target.place}".strip(),))
    return request.event("policy.changed", subject=Subject(UNKNOWN), entitlement=entitlement, action=changed)


def _content_not_logged(request: Request, binding: Binding) -> Mapped:
    """Map a change of which the audit policy does not log the object."""
    if request.verb != "create":
        return (_policy(request, f"subjects of {request.target.place}"),)
    return (_activated(request, binding, Subject(UNKNOWN), in_namespace(UNKNOWN, binding.namespace)),)


def _ids(binding: Binding, subject: Subject, role: str) -> dict[str, Any]:
    grant = binding.grant(subject, role)
    return {
        "subject": subject,
        "grant_id": grant,
        "grant_id_kind": "synthesized",
        "request_id": binding.request_id,
        "entitlement": role,
        "ordinal": ordinal_of(grant),
    }


def _activated(request: Request, binding: Binding, subject: Subject, entitlement: str) -> Event:
    return request.event("grant.activated", **_ids(binding, subject, entitlement), expiry_source="unknown")


def _removed(request: Request, binding: Binding, subject: Subject, entitlement: str) -> Event:
    return request.event("grant.revoked", **_ids(binding, subject, entitlement), removal_evidence="confirmed")


def _replaced(request: Request, binding: Binding, given: Given) -> Event:
    """Map the end of everything that a binding gave until now, where this run has not seen what that was.

    It is earlier than the activations of those who keep their access, so that they have it after both.
    """
    own = {"entitlement": given.entitlement, "removal_evidence": "confirmed", "occurred_at": request.began}
    return request.event("grant.revoked", subject=Subject(UNKNOWN), request_id=binding.request_id, **own)


def _deleted(request: Request, binding: Binding, seen: Seen) -> Mapped:
    """Map the deletion of a binding: it ends all its grants on record, also those that this run has not seen."""
    found = _given(request, binding)
    entitlement = found.entitlement if found else in_namespace(UNKNOWN, binding.namespace)
    own = {"subject": Subject(UNKNOWN), "request_id": binding.request_id, "entitlement": entitlement}
    if not request.refused:
        seen.forget(request.instance, binding)
    return (request.event("grant.revoked", **own, removal_evidence=_evidence(request)),)


def _all_deleted(request: Request, seen: Seen) -> Mapped:
    """Map the deletion of the bindings that a selector matches: of those in the response, else of any.

    If nothing selects some of them, they are all that this run has seen.
    """
    target = request.target
    found = {} if request.refused else dict(_listed(request))
    events = [] if found else [_any_deleted(request)]
    if not found and not request.refused and not _selects(request):
        seen_there = seen.all_in(request.instance, target.resource, target.namespace)
        found = {binding: given.entitlement for binding, given in seen_there}
    for binding, role in found.items():
        own = {"subject": Subject(UNKNOWN), "request_id": binding.request_id, "entitlement": role}
        ordinal = ordinal_of(binding.request_id)
        events.append(request.event("grant.revoked", **own, removal_evidence=_evidence(request), ordinal=ordinal))
        seen.forget(request.instance, binding)
    return tuple(events)


def _listed(request: Request) -> Iterator[tuple[Binding, str]]:
    """Yield the deleted bindings that the response contains, with their roles."""
    for item in request.answer.objects("items"):
        metadata = item.object("metadata")
        namespace = metadata.text("namespace") or request.target.namespace
        binding = Binding(request.target.resource, namespace, metadata.text("name") or UNKNOWN)
        yield binding, _role(item.object("roleRef"), namespace)


def _selects(request: Request) -> bool:
    return bool(request.parameters("labelSelector") or request.parameters("fieldSelector"))


def _any_deleted(request: Request) -> Event:
    target = request.target
    every = synthesized("role_bindings", target.resource, target.namespace)
    own = {"subject": Subject(UNKNOWN), "grant_id": every, "grant_id_kind": "synthesized"}
    entitlement = in_namespace("*", target.namespace)
    return request.event("grant.revoked", **own, entitlement=entitlement, removal_evidence=_evidence(request))


def _evidence(request: Request) -> str:
    """Return what proves a deletion: finalizers, or an accepted request (202), delay it."""
    if request.refused:
        return "none"
    waits = request.answer.object("metadata").has("deletionTimestamp")
    return "api_accepted" if waits or request.code != 200 else "confirmed"


def _refused(request: Request, binding: Binding, given: Given | None) -> Mapped:
    """Map a refused change: grants of its own, so that those of the binding are not affected."""
    entitlement = given.entitlement if given else in_namespace(UNKNOWN, binding.namespace)
    subjects = (given.subjects if given else ()) or (Subject(UNKNOWN),)
    grants = {one: synthesized("role_binding_refused", request.native_id, one.id) for one in subjects}
    return tuple(
        request.event("grant.failed", subject=one, entitlement=entitlement, grant_id=grant,
                      grant_id_kind="synthesized", ordinal=ordinal_of(grant))
        for one, grant in grants.items()
    )  # fmt: skip


def _changes_subjects(request: Request) -> bool:
    """Return whether an update may change the subjects: a merge patch without them does not."""
    return request.verb != "patch" or not request.asked.values or "subjects" in request.asked.values


def _given(request: Request, binding: Binding) -> Given | None:
    """Return what a binding gives, from the response, else from the request; None if neither contains all of it."""
    found = request.answer if request.answer.has("roleRef") else request.asked
    if not found.has("roleRef"):
        return None
    role = _role(found.object("roleRef"), binding.namespace)
    subjects = (_subject(one, binding.namespace) for one in found.objects("subjects"))
    return Given(role, tuple({one.id: one for one in subjects}.values()))


def _role(reference: Fields, namespace: str) -> str:
    """Return the entitlement to a role. A ``Role`` exists in one namespace only."""
    name = reference.text("name") or UNKNOWN
    return in_namespace(f"Role {name}" if reference.text("kind") == "Role" else name, namespace)


def _subject(one: Fields, namespace: str) -> Subject:
    """Return a subject of a binding, named as requests name their user; the name of a group begins with ``group:``."""
    name, kind = one.text("name") or UNKNOWN, one.text("kind")
    if kind == "ServiceAccount":
        return Subject(f"{SERVICE_ACCOUNT}{one.text('namespace') or namespace}:{name}", "service")
    return Subject(_GROUP + name) if kind == "Group" else user_subject(name)


def _name_of(found: Fields) -> str | None:
    """Return the name in an object's metadata: ``objectRef`` of some creations has none."""
    return found.object("metadata").text("name")
