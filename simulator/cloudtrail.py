"""Sample lives as CloudTrail records them: roles taken from STS, and assignments of IAM Identity Center."""

from __future__ import annotations

import hashlib
import random
from datetime import datetime, timedelta
from typing import Any

from ..producers.adapters.values import synthesized
from ..schemas.event import Resource
from .life import Deed, Life, Step
from .own import Own
from .teller import Held, Teller, cut, micros, stamp
from .world import AWS_REGION

_CENTER = "arn:aws:sso:::instance/ssoins-62c8d1f07ab394e5"
_ELEVATION_ROLE = "AccessElevation"
_PORTAL_SECONDS = 3600
OTHERWISE = "otherwise"
"""Detail of a grant that is told a second time under the same id, with another address in it."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


class CloudTrailTeller(Teller):
    """Tells a life as CloudTrail records, one a line."""

    DIGITS = 0

    def __init__(self, life: Life, start: datetime, rng: random.Random, checker: Own | None = None) -> None:
        super().__init__(life, start, rng, checker)
        self._key = self._name("ASIA")
        self._portal_key = self._name("ASIA")
        self._ssm = f"{life.person.login}-{self._name('')[:17].lower()}"
        self._principal = _digest(life.person.login, 32)
        self._issued = self.clock(self.start)
        self.grant_event = self.new_id()

    @property
    def account(self) -> str:
        """The account whose trail this is."""
        return self.life.place or self.life.target.name

    @property
    def grant_id(self) -> str:
        """The access key of the credentials, or the assignment by its four parts."""
        if self.life.target.kind == "role":
            return self._key
        return synthesized("assignment", _CENTER, self._set, self.account, self._principal)

    @property
    def session_id(self) -> str:
        """Session Manager's session id."""
        return self._ssm

    @property
    def until(self) -> int:
        """When the credentials of STS end, in microseconds."""
        return micros(cut(self._issued, 0)) + round(self.life.grant_ends) * 1_000_000

    def held(self, deed: Deed) -> Held:
        """Return the grant as the checker knows it."""
        account = Resource("aws_account", self.account)
        if self.life.target.kind == "role":
            return Held(self._key, self._caller["arn"], account, self._role)
        return Held(self.grant_id, self._principal, account, self._set)

    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the records of a step."""
        deed = step.deed
        assignment = self.life.target.kind == "assignment"
        if deed in (Deed.GRANTED, Deed.DENIED):
            refused = deed is Deed.DENIED
            if assignment:
                return [self._assignment("CreateAccountAssignment", "Creation", at, refused=refused)]
            if refused:
                message = f"User: {self._caller['arn']} is not authorized to perform: sts:AssumeRole on resource: "
                error: dict[str, Any] = {"errorCode": "AccessDenied", "errorMessage": message + self._role}
                return [self._record("sts", "AssumeRole", at, self._caller, **error)]
            return [self._assumed(step, at)]
        if deed is Deed.ROLE_TAKEN:
            return self._portal(at)
        if deed is Deed.REVOKED:
            return [self._assignment("DeleteAccountAssignment", "Deletion", at)]
        if deed is Deed.SESSION_STARTED:
            asked = {"target": self.life.target.user, "documentName": "SSM-SessionManagerRunShell"}
            answer = {"sessionId": self._ssm, "streamUrl": "HIDDEN_DUE_TO_SECURITY_REASONS"}
            return [self._record("ssm", "StartSession", at, self._assumer, asked, answer)]
        if deed is Deed.SESSION_ENDED:
            ids = {"sessionId": self._ssm}
            return [self._record("ssm", "TerminateSession", at, self._assumer, ids, ids)]
        service, _, call = step.detail.partition(":")
        who = self._portal_user if assignment else self._assumer
        return [self._record(service, call, at, who, {"maxResults": 100})]

    def open_ends(self) -> list[Deed]:
        """Return what is left to say. Credentials of STS end by themselves; an assignment does not."""
        told = set(self.told)
        if Deed.SESSION_STARTED in told and Deed.SESSION_ENDED not in told:
            return [Deed.SESSION_ENDED]
        if self.life.target.kind == "role" or Deed.GRANTED not in told:
            return []
        if Deed.REVOKED not in told:
            return [Deed.REVOKED, Deed.CHECKED]
        return [] if Deed.CHECKED in told else [Deed.CHECKED]

    def _name(self, prefix: str) -> str:
        return prefix + "".join(self.rng.choices(_LETTERS, k=16))

    @property
    def _role(self) -> str:
        return f"arn:aws:iam::{self.account}:role/{self.life.target.role}"

    @property
    def _set(self) -> str:
        return f"arn:aws:sso:::permissionSet/{_CENTER.rpartition('/')[2]}/{self.life.target.role}"

    @property
    def _caller(self) -> dict[str, Any]:
        """The person's lasting identity, from which the role is taken."""
        arn = f"arn:aws:iam::{self.account}:user/{self.life.person.login}"
        return {
            "type": "IAMUser",
            "principalId": "AIDA" + _digest(arn, 17).upper(),
            "arn": arn,
            "accountId": self.account,
            "userName": self.life.person.login,
        }

    @property
    def _assumer(self) -> dict[str, Any]:
        arn = f"arn:aws:sts::{self.account}:assumed-role/{self.life.target.role}/{self.life.person.login}"
        return self._session_of(arn, self._role, self._key)

    @property
    def _portal_user(self) -> dict[str, Any]:
        role = f"AWSReservedSSO_{self.life.target.user}_{_digest(self._set, 16)}"
        arn = f"arn:aws:sts::{self.account}:assumed-role/{role}/{self.life.person.email}"
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
                "attributes": {"creationDate": stamp(self._issued, 0), "mfaAuthenticated": "false"},
            },
        }

    def _assumed(self, step: Step, at: datetime) -> dict[str, Any]:
        again = step.detail == OTHERWISE
        if not again:
            self._issued = at
        seconds = round(self.life.grant_ends)
        asked = {"roleArn": self._role, "roleSessionName": self.life.person.login, "durationSeconds": seconds}
        record = self._record("sts", "AssumeRole", self._issued, self._caller, asked, self._issues(self._key, seconds))
        record["eventID"] = self.grant_event
        if again:
            record["sourceIPAddress"] = "10.20.77.1"
        return record

    def _issues(self, key: str, seconds: int) -> dict[str, Any]:
        until = self._issued + timedelta(seconds=seconds)
        hour = f"{until.hour % 12 or 12}:{until:%M:%S} {'PM' if until.hour >= 12 else 'AM'}"
        credentials = {
            "accessKeyId": key,
            "expiration": f"{_MONTHS[until.month - 1]} {until.day}, {until.year}, {hour}",
        }
        who = self._assumer if key == self._key else self._portal_user
        user = {"assumedRoleId": who["principalId"], "arn": who["arn"]}
        return {"credentials": credentials, "assumedRoleUser": user}

    def _portal(self, at: datetime) -> list[dict[str, Any]]:
        """The role is fetched in the access portal: the portal's record, and that of STS in the account's trail."""
        self._issued = at
        person = {
            "type": "IdentityCenterUser",
            "accountId": self.account,
            "onBehalfOf": {"userId": self._principal, "identityStoreArn": f"arn:aws:identitystore::{self.account}:d-1"},
            "credentialId": self.new_id(),
        }
        taken = {"role_name": self.life.target.user, "account_id": self.account}
        portal = self._record("sso", "GetRoleCredentials", at, person, serviceEventDetails=taken)
        portal["eventType"] = "AwsServiceEvent"
        role = self._portal_user["sessionContext"]["sessionIssuer"]["arn"]
        asked = {"roleArn": role, "roleSessionName": self.life.person.email, "durationSeconds": _PORTAL_SECONDS}
        saml = {"type": "SAMLUser", "principalId": f"{self._principal}:{self.life.person.email}"}
        saml["userName"] = self.life.person.email
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
        # Begun, and no record ever says that it was done.
        status = {"status": "IN_PROGRESS", "requestId": self.new_id(), "createdDate": stamp(at, 0)}
        return self._record("sso", call, at, who, parts, {f"accountAssignment{what}Status": status})

    def _record(  # noqa: PLR0917 - the members that every record has, in their order
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
            "eventTime": stamp(at, self.DIGITS),
            "eventSource": f"{service}.amazonaws.com",
            "eventName": call,
            "awsRegion": AWS_REGION,
            "sourceIPAddress": self.life.person.address,
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
