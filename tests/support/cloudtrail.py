"""CloudTrail records for tests: a role that is assumed, an Identity Center assignment, and the API calls of both."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grantledger.producers.adapters import Location, make_adapter

from .adapters import Result
from .adapters import read as read_record

AT = datetime(2026, 7, 1, 10, 0, tzinfo=UTC)
ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/ops/breakglass"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/breakglass/alice"
KEY = "ASIAEXAMPLEEXAMPLE01"
ALICE = {
    "type": "IAMUser",
    "arn": f"arn:aws:iam::{ACCOUNT}:user/alice",
    "accessKeyId": "AKIAEXAMPLEEXAMPLE01",
    "userName": "alice",
}
TAKEN = {
    "type": "AssumedRole",
    "arn": SESSION,
    "accessKeyId": KEY,
    "sessionContext": {
        "sessionIssuer": {"type": "Role", "arn": ROLE, "userName": "breakglass"},
        "attributes": {"creationDate": "2026-07-01T10:00:00Z", "mfaAuthenticated": "false"},
    },
}
ISSUED = {
    "credentials": {"accessKeyId": KEY, "expiration": "Jul 1, 2026, 11:00:00 AM"},
    "assumedRoleUser": {"arn": SESSION},
}


def record(service: str, operation: str, **members: Any) -> dict[str, Any]:
    return {
        "eventVersion": "1.11",
        "eventSource": f"{service}.amazonaws.com",
        "eventName": operation,
        "eventTime": "2026-07-01T10:00:00Z",
        "eventID": "e1",
        "eventType": "AwsApiCall",
        "recipientAccountId": ACCOUNT,
        "sourceIPAddress": "203.0.113.7",
        "userIdentity": ALICE,
        "requestParameters": None,
        "responseElements": None,
        **members,
    }


def read(found: dict[str, Any], **options: Any) -> Result:
    return read_record("cloudtrail", found, **options)


def call(service: str, operation: str, **members: Any) -> Result:
    return read(record(service, operation, **members))


def assume(**members: Any) -> Result:
    asked = {"roleArn": ROLE, "roleSessionName": "alice", "durationSeconds": 3600}
    return call("sts", "AssumeRole", **{"requestParameters": asked, "responseElements": ISSUED, **members})


ASSIGNMENT = {
    "instanceArn": "arn:aws:sso:::instance/ssoins-1",
    "targetId": "444455556666",
    "targetType": "AWS_ACCOUNT",
    "permissionSetArn": "arn:aws:sso:::permissionSet/ssoins-1/ps-1",
    "principalType": "USER",
    "principalId": "u-1",
}
PORTAL_USER = {
    "type": "IdentityCenterUser",
    "accountId": ACCOUNT,
    "credentialId": "cred-1",
    "onBehalfOf": {"userId": "u-1", "identityStoreArn": "arn:aws:identitystore::1:identitystore/d-1"},
}


def assignment(verb: str, status: str | None, **members: Any) -> Result:
    word = {"Create": "Creation", "Delete": "Deletion"}[verb]
    answer = {f"accountAssignment{word}Status": {"status": status}}
    more = {"requestParameters": ASSIGNMENT, "responseElements": answer, "userIdentity": TAKEN, **members}
    return call("sso", f"{verb}AccountAssignment", **more)


def read_samples(samples: Path) -> list[tuple[dict[str, Any], Result]]:
    """Return the real records, each with its result."""
    lines = (samples / "aws_cloudtrail" / "cloudtrail.jsonl").read_bytes().splitlines()
    adapter = make_adapter("cloudtrail")
    return [(json.loads(line), adapter.read(line, Location("s", number))) for number, line in enumerate(lines, 1)]
