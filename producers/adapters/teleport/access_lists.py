"""Teleport: memberships of access lists. The list stands as the request of its memberships, so that it can end all."""

from __future__ import annotations

from typing import Any

from ....schemas.event import Event, Resource, Subject
from ...json_fields import Fields
from ..contract import Mapped, Skipped
from ..values import UNKNOWN
from .identity import actor_of

_ENDS_ALL = (
    "access_list.member.delete_all_for_access_list",
    "access_list.member.delete_all_members",
    "access_list.delete",
)


def map_members(event: str, record: Fields, base: dict[str, Any]) -> Mapped | Skipped | None:
    """Return the events of a record about members of an access list, or None for another type."""
    if not event.startswith(("access_list.member.", "access_list.delete", "access_list.review")):
        return None
    failed = (record.text("code") or "").endswith("E") or record.flag("success") is False
    name = record.first_text("access_list_name", "name") or UNKNOWN
    common = {
        "actor": actor_of(record),
        "resource": Resource("access_list", name),
        "entitlement": record.text("access_list_title") or name,
        "request_id": f"access_list:{name}",
        "outcome": "failure" if failed else "success",
        **base,
    }
    members = {one.required_text("member_name"): one.text("reason") for one in record.objects("members")}
    if event == "access_list.member.create" and members:
        common |= {} if failed else {"expiry_source": "unknown"}
        return _each("grant.failed" if failed else "grant.activated", name, members, common)
    common["removal_evidence"] = "api_accepted"
    if event == "access_list.review":
        members = dict.fromkeys(record.texts("removed_members") or record.object("review").texts("removed_members"))
    if not failed and event in _ENDS_ALL:
        # Without a grant id: all memberships of the list, whoever reported them.
        every = Event(event_type="grant.revoked", subject=Subject(UNKNOWN), ordinal=len(members), **common)
        return (*_each("grant.revoked", name, members, common), every)
    if failed or not members or event == "access_list.member.update":
        return Skipped("nothing_changed", f"{event} {record.text('code') or ''} changes no membership")
    return _each("grant.revoked", name, members, common)


def _each(event_type: str, name: str, members: dict[str, str | None], common: dict[str, Any]) -> Mapped:
    return tuple(
        Event(
            event_type=event_type,
            subject=Subject(member),
            grant_id=f"access_list:{name}/{member}",
            grant_id_kind="synthesized",
            ordinal=ordinal,
            **{**common, "reason": reason or common["reason"]},
        )
        for ordinal, (member, reason) in enumerate(members.items())
    )
