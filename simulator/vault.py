"""Sample lives as Vault writes them into its audit log: two entries a request, secrets as HMAC."""

from __future__ import annotations

import hashlib
import random
from datetime import datetime
from typing import Any

from ..schemas.event import Resource
from .life import Deed, Life, Step
from .own import Own
from .teller import Held, Teller, cut, micros, stamp
from .world import VAULT_NAMESPACE

UNREACHABLE = "failed to revoke entry: dial tcp 10.20.40.7:5432: connect: connection refused"
"""Detail of a revocation that Vault could not carry out."""
_POLICIES = ["default", "production-operator"]


class VaultTeller(Teller):
    """Tells a life as Vault audit entries."""

    DIGITS = 6

    def __init__(self, life: Life, start: datetime, rng: random.Random, checker: Own | None = None) -> None:
        super().__init__(life, start, rng, checker)
        self._token = self._hmac()
        self._accessor = self._hmac()
        self._entity = self.new_id()
        self.lease = ""
        self.namespace = life.place or VAULT_NAMESPACE

    @property
    def grant_id(self) -> str:
        """The token, by its accessor."""
        return self._accessor

    @property
    def seconds(self) -> int:
        """How long the token lives, from its issue and from every renewal."""
        return max(1, round(self.life.grant_ends))

    @property
    def until(self) -> int:
        """When the token ends by the answer to the login, in microseconds."""
        return micros(cut(self.clock(self.start), 0)) + self.seconds * 1_000_000

    def held(self, deed: Deed) -> Held:
        """Return the lease, or the token, as the checker knows it."""
        subject = f"oidc-{self.life.person.email}"
        if deed is Deed.LEASE_CHECKED:
            path = self.lease.rpartition("/")[0]
            return Held(self.lease, subject, Resource("vault_path", path), path.rpartition("/")[2])
        space = Resource("vault_namespace", self.namespace.rstrip("/"))
        return Held(self._accessor, subject, space, ",".join(_POLICIES))

    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the request and the response entry of a step."""
        deed = step.deed
        if deed in (Deed.GRANTED, Deed.DENIED):
            return self._login(at, refused=deed is Deed.DENIED)
        if deed is Deed.LEASED:
            self.lease = f"database/creds/{step.detail}/{self.new_id().replace('-', '')[:24]}"
            answer: dict[str, Any] = {
                "secret": {"lease_id": self.lease},
                "data": {"password": self._hmac(), "username": self._hmac()},
            }
            return self._pair(at, "read", f"database/creds/{step.detail}", response=answer)
        if deed is Deed.RENEWED:
            return self._pair(at, "update", "auth/token/renew-self", response={"auth": self._auth(at)})
        if deed is Deed.LEASE_RENEWED:
            answer = {"secret": {"lease_id": self.lease}}
            return self._pair(at, "update", f"sys/leases/renew/{self.lease}", response=answer)
        if deed is Deed.LEASE_REVOKED:
            return self._pair(at, "update", f"sys/leases/revoke/{self.lease}", failure=step.detail or None)
        if deed is Deed.REVOKED:
            return self._pair(at, "update", "auth/token/revoke-self")
        if deed is Deed.REFUSED:
            return self._pair(at, "read", step.detail, error="permission denied")
        operation = (
            "update" if step.detail.startswith("transit/") else "list" if "/metadata/" in step.detail else "read"
        )
        answer = {"data": {"plaintext": self._hmac()}} if operation == "update" else {"data": {"keys": [self._hmac()]}}
        sent = {"ciphertext": self._hmac()} if operation == "update" else None
        return self._pair(at, operation, step.detail, data=sent, response=answer)

    def open_ends(self) -> list[Deed]:
        """Return what is left to say: the lease given back, the token revoked."""
        told = set(self.told)
        ends = []
        if Deed.LEASED in told and Deed.LEASE_REVOKED not in told:
            ends.append(Deed.LEASE_REVOKED)
        if Deed.LEASED in told and Deed.LEASE_CHECKED not in told:
            ends.append(Deed.LEASE_CHECKED)
        if Deed.GRANTED in told and Deed.REVOKED not in told:
            ends.append(Deed.REVOKED)
        return ends

    def _hmac(self) -> str:
        return f"hmac-sha256:{hashlib.sha256(self.rng.randbytes(16)).hexdigest()}"

    def _auth(self, issued: datetime | None = None) -> dict[str, Any]:
        person = self.life.person
        auth: dict[str, Any] = {
            "accessor": self._accessor,
            "client_token": self._token,
            "display_name": f"oidc-{person.email}",
            "entity_id": self._entity,
            "metadata": {"username": person.login, "email": person.email},
            "policies": _POLICIES,
            "token_policies": _POLICIES,
            "token_type": "service",
        }
        if issued is not None:
            auth |= {"token_issue_time": stamp(issued, 0), "token_ttl": self.seconds}
        return auth

    def _login(self, at: datetime, *, refused: bool) -> list[dict[str, Any]]:
        request = self._request("update", "auth/oidc/login", {"jwt": self._hmac(), "role": self._hmac()}, known=False)
        auth = {"token_type": "default"}
        first = {"time": stamp(at), "type": "request", "auth": auth, "request": request}
        if refused:
            answer: dict[str, Any] = {"data": {"error": self._hmac()}}
            second = {"time": stamp(at), "type": "response", "auth": auth, "request": request, "response": answer}
            return [first, {**second, "error": "permission denied"}]
        issued = self._auth(at)
        answer = {"auth": issued, "mount_type": "oidc"}
        return [first, {"time": stamp(at), "type": "response", "auth": issued, "request": request, "response": answer}]

    def _request(self, operation: str, path: str, data: dict[str, Any] | None, *, known: bool = True) -> dict[str, Any]:
        request: dict[str, Any] = {"id": self.new_id(), "operation": operation}
        if known:
            request |= {"client_token": self._token, "client_token_accessor": self._accessor}
        request |= {"namespace": {"id": "smpl1", "path": self.namespace}, "path": path}
        if data is not None:
            request["data"] = data
        return {**request, "remote_address": self.life.person.address, "remote_port": 48210}

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
        entry = {"time": stamp(at), "auth": auth, "request": request}
        first = {**entry, "type": "request"}
        second = {**entry, "type": "response", "response": response or {}}
        if failure is not None:  # allowed, and then it went wrong
            second |= {"response": {"data": {"error": self._hmac()}}, "error": f"1 error occurred:\n\t* {failure}\n\n"}
        if error is not None:
            first["error"] = error
            second |= {"response": {"data": {"error": self._hmac()}}, "error": f"1 error occurred:\n\t* {error}\n\n"}
        return [first, second]
