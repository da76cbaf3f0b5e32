"""CloudTrail: one parsed record: the call, the caller, the resource and the result."""

from __future__ import annotations

from typing import Any

from ....schemas.event import Event, EventSource, IssuingSource, Resource
from ...json_fields import Fields
from ..values import UNKNOWN, ip_address_in, synthesized
from .identity import Identity, is_service_linked, read_identity

_REFUSALS = ("accessdenied", "unauthorized", "notauthorized", "forbidden", "authfailure", "invalidclienttokenid")
ANY_ACCOUNT = IssuingSource("cloudtrail", "")
"""The source that issued an access key: it is valid, and appears in the trails, of other accounts too."""
_EXPIRED = ("expiredtoken", "expiredcredentials", "requestexpired")


class Call:
    """A record. The constructor raises RecordError if a required member is missing or wrong."""

    def __init__(self, record: Fields, instance: str | None) -> None:
        self.record = record
        self.operation = record.required_text("eventName")
        self.service = record.required_text("eventSource")
        self.event_type = record.text("eventType") or "AwsApiCall"
        self.occurred_at = record.required_time("eventTime")
        self.native_id = record.required_text("eventID")
        who = record.object("userIdentity")
        self.identity: Identity = read_identity(who)
        self.account = record.text("recipientAccountId") or who.text("accountId")
        self.instance = instance or self.account or "aws"
        self.asked = record.object("requestParameters")
        self.answer = record.object("responseElements")
        self.more = record.object("additionalEventData")
        self.details = record.object("serviceEventDetails")
        self.error_code = record.text("errorCode")

    @property
    def name(self) -> str:
        """The name of the call, for example ``ec2:RunInstances``."""
        return f"{self.service.removesuffix('.amazonaws.com')}:{self.operation}"

    def is_one(self, service: str, *operations: str) -> bool:
        """Return whether this is one of the operations of a service, given without ``.amazonaws.com``."""
        return self.service == f"{service}.amazonaws.com" and self.operation in operations

    @property
    def service_linked(self) -> bool:
        """Whether a service-linked role made this call or is assumed by it."""
        return self.identity.service_linked or (
            self.service == "sts.amazonaws.com" and is_service_linked(self.asked.text("roleArn"))
        )

    @property
    def error(self) -> str | None:
        """AWS's error message."""
        return self.record.text("errorMessage") or self.error_code

    @property
    def outcome(self) -> str:
        """``success``, ``denied`` or ``failure``."""
        if self.error_code is None:
            return "success"
        code = self.error_code.lower()
        return "denied" if any(part in code for part in (*_REFUSALS, *_EXPIRED)) else "failure"

    @property
    def session_id(self) -> str:
        """The session of the caller's credentials, or a synthesized one if the record has none."""
        return self.identity.session_id or synthesized("session", self.native_id)

    def resource_of(self, account: str | None = None) -> Resource:
        """Return the resource of the call if it names exactly one, else the account.

        A call on an S3 object names the object and its bucket.
        """
        named = [item for item in self.record.objects("resources") if item.text("ARN")]
        objects = [item for item in named if item.text("type") == "AWS::S3::Object"]
        if account is None and self.service == "s3.amazonaws.com" and len(objects) != 1:
            return self._in_s3(named)
        named = objects or named
        if account is None and len(named) == 1:
            return Resource(named[0].text("type") or "aws_resource", named[0].required_text("ARN"))
        return Resource("aws_account", account or self.account or UNKNOWN)

    def _in_s3(self, named: list[Fields]) -> Resource:
        """Return the object or bucket that the parameters of an S3 call name; they spell it in several ways."""
        bucket, key = self.asked.text("bucketName"), self.asked.text("key")
        arns = [item.required_text("ARN") for item in named if item.text("type") == "AWS::S3::Bucket"]
        arn = arns[0] if len(arns) == 1 else f"arn:aws:s3:::{bucket}"
        if bucket is None and len(arns) != 1:
            return Resource("aws_account", self.account or UNKNOWN)
        return Resource("AWS::S3::Object", f"{arn}/{key}") if key else Resource("AWS::S3::Bucket", arn)

    def event(self, event_type: str, **own: Any) -> Event:
        """Return an event of this record: the fields that all of them share, and its own ones."""
        shared = {
            "occurred_at": self.occurred_at,
            "source": EventSource("cloudtrail", self.instance, self.native_id, f"{self.service}/{self.operation}"),
            "subject": self.identity.subject,
            "actor": self.identity.actor,
            "outcome": self.outcome,
            "client_ip": ip_address_in(self.record.text("sourceIPAddress")),  # or the name of an AWS service
            "error": self.error,
        }
        return Event(event_type=event_type, **{**shared, **own})

    def credential_ids(self, session: str | None = None) -> dict[str, Any]:
        """Return the ids of the caller's credentials and the session."""
        who = self.identity
        ids = {"grant_id": who.grant_id, "grant_id_kind": who.grant_id_kind, "session_id": session or self.session_id}
        return {**ids, "grant_source": ANY_ACCOUNT} if who.grant_id else ids
