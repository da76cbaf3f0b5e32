"""AWS CloudTrail: its log files as they lie in S3, or one record a line.

After "CloudTrail record contents" and "userIdentity element" in the CloudTrail user guide, and the pages on logging in
the guides of IAM, STS, IAM Identity Center and Session Manager.
"""

from __future__ import annotations

from typing import ClassVar

from ..contract import Adapter, Mapped, Skipped
from ..reading import Fields
from .call import Call
from .credentials import map_credentials
from .identity_center import map_center
from .sessions import map_command, map_sessions


class CloudTrailAdapter(Adapter):
    """Maps CloudTrail records.

    Three facts of AWS shape it. Temporary credentials are a grant: the record that issues them says until when, and
    every later call names them. Nothing is written when they end. And what Identity Center answers to a new or deleted
    assignment is that it has begun: no record says that it was done.
    """

    SYSTEM: ClassVar[str] = "cloudtrail"
    WRAPPER: ClassVar[str | None] = "Records"
    SKIP_REASONS: ClassVar[dict[str, str]] = {
        "authentication": "signing in, second factors and passwords: who somebody is, not what they may do",
        "aws_service": "what an AWS service does for itself, in nobody's name",
        "blank_line": "an empty line",
        "insight": "CloudTrail's own finding about how many calls there were",
        "no_subject": "a call whose record names nobody",
        "role_search": "the access portal showing which accounts and roles somebody may take",
        "service_linked_role": "a role that only one AWS service can take, and what that service does with it",
        "standing_access": "a call with lasting keys, of a user, the root user or another account: standing access",
    }

    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one record; see the contract."""
        if record.has("Records") and not record.has("eventName"):
            record.fail("Records", "is a whole log file; give it as a file of its own, not as a line among others")
        if record.has("detail") and not record.has("eventName"):
            # EventBridge puts its envelope around the same record.
            record = record.object("detail")
        call = Call(record, self.instance)
        if call.event_type == "AwsCloudTrailInsight":
            return Skipped("insight", call.name)
        if call.service_linked:
            return Skipped("service_linked_role", call.name)
        return map_credentials(call) or map_center(call) or map_sessions(call) or map_command(call) or _skipped(call)


def _skipped(call: Call) -> Skipped:
    who = call.identity
    if who.service:
        return Skipped("aws_service", f"{call.name} by {who.subject.id}")
    if who.standing:
        return Skipped("standing_access", f"{call.name} by {who.subject.id}")
    return Skipped("no_subject", call.name)
