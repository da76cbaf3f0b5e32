"""Lifecycles as CloudTrail records them: roles assumed through STS, and Identity Center assignments."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from ...base.times import micros_of
from ...producers.adapters.values import synthesized
from ...schemas.event import Resource
from ..company import AWS_REGION
from ..lifecycle import Step, StepKind
from .program import GrantName
from .writer import RecordWriter, rfc3339, truncate

_CENTER = "arn:aws:sso:::instance/ssoins-62c8d1f07ab394e5"
_ELEVATION_ROLE = "AccessElevation"
_PORTAL_SECONDS = 3600
ALTERED = "altered"
"""The detail of a grant whose record is sent a second time with the same id but another address."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


class CloudTrailWriter(RecordWriter):
    """Writes a lifecycle as CloudTrail records."""

    DIGITS = 0
    closings: tuple[tuple[StepKind, ...], ...] = (
        (StepKind.SESSION_STARTED, StepKind.SESSION_ENDED),
        (StepKind.GRANTED, StepKind.REVOKED),
        (StepKind.GRANTED, StepKind.CHECKED),
    )

    def prepare(self) -> None:
        """Generate the ids of the lifecycle."""
        self._key = self._name("ASIA")
        self._portal_key = self._name("ASIA")
        self.session_id = f"{self.lifecycle.person.login}-{self._name('')[:17].lower()}"
        self._principal = _digest(self.lifecycle.person.login, 32)
        self._issued = self.clock(self.start)
        self.grant_event = self.new_id()
        self._is_role = self.lifecycle.target.kind == "role"
        assignment = ("assignment", _CENTER, self._set, self.account, self._principal)
        self.grant_id = self._key if self._is_role else synthesized(*assignment)
        if self._is_role:  # the credentials expire automatically
            self.closings = self.closings[:1]

    @property
    def account(self) -> str:
        """The account of this trail."""
        return self.lifecycle.instance or self.lifecycle.target.name

    @property
    def until(self) -> int:
        """The end of the credentials, in microseconds since 1970."""
        return micros_of(truncate(self._issued, 0)) + round(self.lifecycle.grant_ends) * 1_000_000

    def grant(self, kind: StepKind) -> GrantName:
        """Return the grant as the access checker identifies it."""
        account = Resource("aws_account", self.account)
        if self._is_role:
            return GrantName(self.grant_id, self._caller["arn"], account, self._role, self.source)
        return GrantName(self.grant_id, self._principal, account, self._set, self.source)

    @property
    def source(self) -> tuple[str, str]:
        """System and instance that issued the grant: access keys are unique in all accounts."""
        return "cloudtrail", "" if self._is_role else self.account

    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the records of a step."""
        kind = step.kind
        if kind in (StepKind.GRANTED, StepKind.DENIED):
            refused = kind is StepKind.DENIED
            if not self._is_role:
                return [self._assignment("CreateAccountAssignment", "Creation", at, refused=refused)]
            if refused:
                message = f"User: {self._caller['arn']} is not authorized to perform: sts:AssumeRole on resource: "
                error: dict[str, Any] = {"errorCode": "AccessDenied", "errorMessage": message + self._role}
                return [self._record("sts", "AssumeRole", at, self._caller, **error)]
            return [self._assumed(step, at)]
        if kind is StepKind.ROLE_FETCHED:
            return self._portal(at)
        if kind is StepKind.REVOKED:
            return [self._assignment("DeleteAccountAssignment", "Deletion", at)]
        if kind is StepKind.SESSION_STARTED:
            asked = {"target": self.lifecycle.target.user, "documentName": "SSM-SessionManagerRunShell"}
            answer = {"sessionId": self.session_id, "streamUrl": "HIDDEN_DUE_TO_SECURITY_REASONS"}
            return [self._record("ssm", "StartSession", at, self._assumer, asked, answer)]
        if kind is StepKind.SESSION_ENDED:
            ids = {"sessionId": self.session_id}
            return [self._record("ssm", "TerminateSession", at, self._assumer, ids, ids)]
        service, _, call = step.detail.partition(":")
        who = self._assumer if self._is_role else self._portal_user
        return [self._record(service, call, at, who, {"maxResults": 100})]

    def _name(self, prefix: str) -> str:
        return prefix + "".join(self.rng.choices(_LETTERS, k=16))

    @property
    def _role(self) -> str:
        return f"arn:aws:iam::{self.account}:role/{self.lifecycle.target.role}"

    @property
    def _set(self) -> str:
        return f"arn:aws:sso:::permissionSet/{_CENTER.rpartition('/')[2]}/{self.lifecycle.target.role}"

    @property
    def _caller(self) -> dict[str, Any]:
        """The person's IAM user, which assumes the role."""
        arn = f"arn:aws:iam::{self.account}:user/{self.lifecycle.person.login}"
        return {
            "type": "IAMUser",
            "principalId": "AIDA" + _digest(arn, 17).upper(),
            "arn": arn,
            "accountId": self.account,
            "userName": self.lifecycle.person.login,
        }

    @property
    def _assumer(self) -> dict[str, Any]:
        arn = f"arn:aws:sts::{self.account}:assumed-role/{self.lifecycle.target.role}/{self.lifecycle.person.login}"
        return self._session_of(arn, self._role, self._key)

    @property
    def _portal_user(self) -> dict[str, Any]:
        role = f"AWSReservedSSO_{self.lifecycle.target.user}_{_digest(self._set, 16)}"
        arn = f"arn:aws:sts::{self.account}:assumed-role/{role}/{self.lifecycle.person.email}"
        return self._session_of(arn, f"arn:aws:iam::{self.account}:role/aws-reserved/{role}", self._portal_key)

    def _session_of(self, arn: str, role: str, key: str) -> dict[str, Any]:
        principal = "AROA" + _digest(role, 17).upper()
        issuer = {"type": "Role", "principalId": principal, "arn": role, "accountId": self.account}
        issuer["userName"] = role.rpartition("/")[2]
        return {
            "type": "AssumedRole",
            "principalId": f"{principal}:{arn.rpartition('/')[2]}",
            "arn": arn,
            "accountId": self.account,
            "accessKeyId": key,
            "sessionContext": {
                "sessionIssuer": issuer,
                "attributes": {"creationDate": rfc3339(self._issued, 0), "mfaAuthenticated": "false"},
            },
        }

    def _assumed(self, step: Step, at: datetime) -> dict[str, Any]:
        again = step.detail == ALTERED
        if not again:
            self._issued = at
        seconds = round(self.lifecycle.grant_ends)
        asked = {"roleArn": self._role, "roleSessionName": self.lifecycle.person.login, "durationSeconds": seconds}
        record = self._record("sts", "AssumeRole", self._issued, self._caller, asked, self._issues(self._key, seconds))
        record["eventID"] = self.grant_event
        if again:
            record["sourceIPAddress"] = "10.20.77.1"
        return record

    def _issues(self, key: str, seconds: int) -> dict[str, Any]:
        until = self._issued + timedelta(seconds=seconds)
        hour = f"{until.hour % 12 or 12}:{until:%M:%S} {'PM' if until.hour >= 12 else 'AM'}"
        expiration = f"{_MONTHS[until.month - 1]} {until.day}, {until.year}, {hour}"
        credentials = {"accessKeyId": key, "expiration": expiration}
        who = self._assumer if key == self._key else self._portal_user
        user = {"assumedRoleId": who["principalId"], "arn": who["arn"]}
        return {"credentials": credentials, "assumedRoleUser": user}

    def _portal(self, at: datetime) -> list[dict[str, Any]]:
        """Return the portal's record of a fetched role, and the record of STS in the account's trail."""
        self._issued = at
        person = {
            "type": "IdentityCenterUser",
            "accountId": self.account,
            "onBehalfOf": {"userId": self._principal, "identityStoreArn": f"arn:aws:identitystore::{self.account}:d-1"},
            "credentialId": self.new_id(),
        }
        fetched = {"role_name": self.lifecycle.target.user, "account_id": self.account}
        portal = self._record("sso", "GetRoleCredentials", at, person, serviceEventDetails=fetched)
        portal["eventType"] = "AwsServiceEvent"
        role = self._portal_user["sessionContext"]["sessionIssuer"]["arn"]
        asked = {"roleArn": role, "roleSessionName": self.lifecycle.person.email, "durationSeconds": _PORTAL_SECONDS}
        saml = {"type": "SAMLUser", "principalId": f"{self._principal}:{self.lifecycle.person.email}"}
        saml["userName"] = self.lifecycle.person.email
        answer = self._issues(self._portal_key, _PORTAL_SECONDS)
        return [portal, self._record("sts", "AssumeRoleWithSAML", at, saml, asked, answer)]

    def _assignment(self, call: str, what: str, at: datetime, *, refused: bool = False) -> dict[str, Any]:
        arn = f"arn:aws:sts::{self.account}:assumed-role/{_ELEVATION_ROLE}/{_ELEVATION_ROLE}"
        role = f"arn:aws:iam::{self.account}:role/{_ELEVATION_ROLE}"
        who = self._session_of(arn, role, "ASIA" + _digest(role, 16).upper())
        parts = {
            "instanceArn": _CENTER,
            "targetId": self.account,
            "targetType": "AWS_ACCOUNT",
            "permissionSetArn": self._set,
            "principalType": "USER",
            "principalId": self._principal,
        }
        if refused:
            message = f"User: {arn} is not authorized to perform: sso:{call}"
            return self._record("sso", call, at, who, errorCode="AccessDeniedException", errorMessage=message)
        # No record ever reports the completion.
        status = {"status": "IN_PROGRESS", "requestId": self.new_id(), "createdDate": rfc3339(at, 0)}
        return self._record("sso", call, at, who, parts, {f"accountAssignment{what}Status": status})

    def _record(  # noqa: PLR0917 - the members of every record
        self,
        service: str,
        call: str,
        at: datetime,
        who: dict[str, Any],
        asked: dict[str, Any] | None = None,
        answer: dict[str, Any] | None = None,
        **members: Any,
    ) -> dict[str, Any]:
        return {
            "eventVersion": "1.11",
            "userIdentity": who,
            "eventTime": rfc3339(at, self.DIGITS),
            "eventSource": f"{service}.amazonaws.com",
            "eventName": call,
            "awsRegion": AWS_REGION,
            "sourceIPAddress": self.lifecycle.person.address,
            "userAgent": "aws-cli/2.27.1",
            "requestParameters": asked,
            "responseElements": answer,
            "eventID": self.new_id(),
            "eventType": "AwsApiCall",
            "recipientAccountId": self.account,
            "eventCategory": "Management",
            **members,
        }


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
