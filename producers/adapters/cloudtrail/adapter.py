"""AWS CloudTrail: one JSON object per record, in any envelope.

Sources: "CloudTrail record contents" and "userIdentity element" in the CloudTrail user guide, and the pages about
logging in the guides of IAM, STS, IAM Identity Center and Session Manager.
"""

from __future__ import annotations

from typing import ClassVar

from ...json_fields import Fields
from ..contract import Adapter, Mapped, Skipped
from .call import Call
from .credentials import map_credentials
from .ephemeral import map_ephemeral
from .identity_center import map_center
from .policies import map_policy
from .sessions import map_command, map_sessions


class CloudTrailAdapter(Adapter):
    """Maps CloudTrail records.

    Three properties of AWS determine the mapping. Temporary credentials are a grant: the record of their issue contains
    the end, and every later call names them. AWS records nothing when they expire. Identity Center only reports that
    the creation or deletion of an assignment has begun; no record reports its completion.
    """

    SYSTEM: ClassVar[str] = "cloudtrail"
    VERSION: ClassVar[str] = "5"
    COVERS: ClassVar[tuple[str, ...]] = (
        "temporary credentials of STS (AssumeRole and its relatives), as grants that end by themselves",
        "assignments of IAM Identity Center, as grants",
        "changes of IAM's roles and policies, permission sets and memberships of groups, as policy.changed",
        "console, portal and Session Manager sessions, and every call with temporary credentials, as commands",
    )
    DOES_NOT_SAY: ClassVar[tuple[str, ...]] = (
        "that an assignment of Identity Center is gone: it answers IN_PROGRESS, so let an enforcer read it back",
        "what is typed in a Session Manager shell: send its session log",
        "calls of data events (S3 objects, Lambda), unless the trail records them",
    )
    MARKS: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"eventName", "eventSource"}),)
    SKIP_REASONS: ClassVar[dict[str, str]] = {
        "authentication": "sign-ins, second factors and passwords: identity, not access",
        "aws_service": "an AWS service acting on its own behalf",
        "insight": "a CloudTrail Insights finding about call rates",
        "no_subject": "a call without a caller",
        "role_search": "the access portal listing available accounts and roles",
        "service_linked_role": "a role that only one AWS service can assume, and the calls made with it",
        "standing_access": "a call with long-term keys of a user, the root user or another account",
    }

    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one record, or the reason to skip it."""
        call = Call(record, self.instance)
        if call.event_type == "AwsCloudTrailInsight":
            return Skipped("insight", call.name)
        if call.service_linked:
            return Skipped("service_linked_role", call.name)
        readings = (map_credentials, map_center, map_ephemeral, map_sessions, map_command)
        found = next((found for reading in readings if (found := reading(call))), None) or _skipped(call)
        changed = map_policy(call)
        return (*changed, *(() if isinstance(found, Skipped) else found)) if changed else found


def _skipped(call: Call) -> Skipped:
    who = call.identity
    if who.service:
        return Skipped("aws_service", f"{call.name} by {who.subject.id}")
    if who.standing:
        return Skipped("standing_access", f"{call.name} by {who.subject.id}")
    return Skipped("no_subject", call.name)
