"""Lifecycles as Vault's audit log records them: two entries per request, secrets as HMACs."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from ...base.times import micros_of
from ...schemas.event import Resource
from ..company import VAULT_NAMESPACE
from ..lifecycle import Step, StepKind
from .program import GrantName
from .writer import RecordWriter, rfc3339, truncate

UNREACHABLE = "failed to revoke entry: dial tcp 10.20.40.7:5432: connect: connection refused"
"""The detail of a revocation that Vault could not execute."""
_POLICIES = ["default", "production-operator"]


class VaultWriter(RecordWriter):
    """Writes a lifecycle as Vault audit entries."""

    DIGITS = 6
    closings = (
        (StepKind.LEASED, StepKind.LEASE_REVOKED),
        (StepKind.LEASED, StepKind.LEASE_CHECKED),
        (StepKind.GRANTED, StepKind.REVOKED),
    )

    def prepare(self) -> None:
        """Generate the ids of the lifecycle."""
        self._token = self._hmac()
        self.grant_id = self._hmac()
        """The token's accessor."""
        self._entity = self.new_id()
        self.namespace = self.lifecycle.instance or VAULT_NAMESPACE

    @property
    def seconds(self) -> int:
        """The lifetime of the token, from its issue and from each renewal."""
        return max(1, round(self.lifecycle.grant_ends))

    @property
    def until(self) -> int:
        """The end of the token according to the login response, in microseconds since 1970."""
        return micros_of(truncate(self.clock(self.start), 0)) + self.seconds * 1_000_000

    def grant(self, kind: StepKind) -> GrantName:
        """Return the lease, or the token, as the access checker identifies it."""
        subject = f"oidc-{self.lifecycle.person.email}"
        if kind is StepKind.LEASE_CHECKED:
            path = self.lease_path.rpartition("/")[0]
            return GrantName(
                self.lease_path, subject, Resource("vault_path", path), path.rpartition("/")[2], self.source
            )
        space = Resource("vault_namespace", self.namespace.rstrip("/"))
        return GrantName(self.grant_id, subject, space, ",".join(_POLICIES), self.source)

    @property
    def lease_path(self) -> str:
        """The lease with its namespace, which is the id of its grant."""
        return f"{self.namespace.rstrip('/')}/{self.lease_id}"

    @property
    def source(self) -> tuple[str, str]:
        """System and instance in the events of the tool."""
        return "vault", self.namespace.rstrip("/")

    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the request and the response entry of a step."""
        kind = step.kind
        if kind in (StepKind.GRANTED, StepKind.DENIED):
            return self._login(at, refused=kind is StepKind.DENIED)
        if kind is StepKind.LEASED:
            self.lease_id = f"database/creds/{step.detail}/{self.new_id().replace('-', '')[:24]}"
            answer: dict[str, Any] = {
                "secret": {"lease_id": self.lease_id},
                "data": {"password": self._hmac(), "username": self._hmac()},
            }
            return self._pair(at, "read", f"database/creds/{step.detail}", response=answer)
        if kind is StepKind.RENEWED:
            return self._pair(at, "update", "auth/token/renew-self", response={"auth": self._auth(at)})
        if kind is StepKind.LEASE_RENEWED:
            answer = {"secret": {"lease_id": self.lease_id}}
            return self._pair(at, "update", f"sys/leases/renew/{self.lease_id}", response=answer)
        if kind is StepKind.LEASE_REVOKED:
            return self._pair(at, "update", f"sys/leases/revoke/{self.lease_id}", failure=step.detail or None)
        if kind is StepKind.REVOKED:
            return self._pair(at, "update", "auth/token/revoke-self")
        if kind is StepKind.ACTION_DENIED:
            return self._pair(at, "read", step.detail, error="permission denied")
        operation = (
            "update" if step.detail.startswith("transit/") else "list" if "/metadata/" in step.detail else "read"
        )
        answer = {"data": {"plaintext": self._hmac()}} if operation == "update" else {"data": {"keys": [self._hmac()]}}
        sent = {"ciphertext": self._hmac()} if operation == "update" else None
        return self._pair(at, operation, step.detail, data=sent, response=answer)

    def _hmac(self) -> str:
        return f"hmac-sha256:{hashlib.sha256(self.rng.randbytes(16)).hexdigest()}"

    def _auth(self, issued: datetime | None = None) -> dict[str, Any]:
        person = self.lifecycle.person
        auth: dict[str, Any] = {
            "accessor": self.grant_id,
            "client_token": self._token,
            "display_name": f"oidc-{person.email}",
            "entity_id": self._entity,
            "metadata": {"username": person.login, "email": person.email},
            "policies": _POLICIES,
            "token_policies": _POLICIES,
            "token_type": "service",
        }
        if issued is not None:
            auth |= {"token_issue_time": rfc3339(issued, 0), "token_ttl": self.seconds}
        return auth

    def _login(self, at: datetime, *, refused: bool) -> list[dict[str, Any]]:
        request = self._request("update", "auth/oidc/login", {"jwt": self._hmac(), "role": self._hmac()}, known=False)
        auth: dict[str, Any] = {"token_type": "default"}
        issued = auth if refused else self._auth(at)
        response: dict[str, Any] = (
            {"data": {"error": self._hmac()}} if refused else {"auth": issued, "mount_type": "oidc"}
        )
        first = {"time": rfc3339(at), "type": "request", "auth": auth, "request": request}
        second = {"time": rfc3339(at), "type": "response", "auth": issued, "request": request, "response": response}
        return [first, {**second, "error": "permission denied"} if refused else second]

    def _request(self, operation: str, path: str, data: dict[str, Any] | None, *, known: bool = True) -> dict[str, Any]:
        request: dict[str, Any] = {"id": self.new_id(), "operation": operation}
        if known:
            request |= {"client_token": self._token, "client_token_accessor": self.grant_id}
        request |= {"namespace": {"id": "smpl1", "path": self.namespace}, "path": path}
        if data is not None:
            request["data"] = data
        return {**request, "remote_address": self.lifecycle.person.address, "remote_port": 48210}

    def _pair(
        self,
        at: datetime,
        operation: str,
        path: str,
        *,
        data: dict[str, Any] | None = None,
        response: dict[str, Any] | None = None,
        error: str | None = None,
        failure: str | None = None,
    ) -> list[dict[str, Any]]:
        auth = {**self._auth(), "policy_results": {"allowed": error is None}}
        request = self._request(operation, path, data)
        entry = {"time": rfc3339(at), "auth": auth, "request": request}
        first = {**entry, "type": "request"}
        second = {**entry, "type": "response", "response": response or {}}
        if error is not None:
            first["error"] = error
        problem = failure or error  # a failure was allowed by policy
        if problem is not None:
            second |= {"response": {"data": {"error": self._hmac()}}, "error": f"1 error occurred:\n\t* {problem}\n\n"}
        return [first, second]
