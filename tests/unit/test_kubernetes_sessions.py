"""The Kubernetes adapter: sessions, credentials, secrets, and real records with random damage.

The records are made by hand after the reference of ``audit.k8s.io/v1`` and the API references of TokenRequest,
CertificateSigningRequest and EphemeralContainer; those that are damaged are from the sample file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.adapters import Mapped, Skipped, make_adapter
from grantledger.producers.adapters.kubernetes.certificate import end_of_certificate
from grantledger.producers.redaction.redactor import Known, Redaction, Redactor
from support.adapters import HERE, assert_maps_or_fails, one, read, reason, several
from support.examples import few
from support.kubernetes import BEGAN, CERTIFICATES, ENDED, gke, request, stream

from .test_adapters import JSON, samples

AFTER = datetime.fromisoformat(ENDED) + timedelta(hours=1)


def k8s(record: dict[str, Any]) -> Mapped | Skipped:
    return read("kubernetes", record, instance="prod")


def command_without_secrets(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(Redaction(Redactor(), Known()).words(words))


def told(events: Mapped) -> list[str]:
    return [event.event_type for event in events]


class TestStreams:
    def test_the_record_of_the_start_and_that_of_the_end_report_one_start(self) -> None:
        record = stream("exec", "command=ls&command=-l&command=%2Ftmp&container=app&stdin=true")
        started, command = several(k8s({**record, "stage": "ResponseStarted", "stageTimestamp": BEGAN}))
        again, repeated, ended = several(k8s(record))
        assert told((again, repeated, ended)) == ["session.started", "session.command", "session.ended"]
        for first, second in ((started, again), (command, repeated)):
            fields = ({**event.to_datum(), "salt": b"", "raw": b"", "raw_sha256": b""} for event in (first, second))
            assert next(fields) == next(fields)
        assert {event.session_id for event in (started, command, ended)} == {"a1"}
        assert (started.occurred_at, ended.occurred_at) == tuple(map(datetime.fromisoformat, (BEGAN, ENDED)))
        assert started.entitlement == "exec on shop/web-0/app"
        assert command.action and (command.action.command, command.action.args) == ("ls", ("-l", "/tmp"))
        assert (command.outcome, command.action.redacted) == ("unknown", False)

    @pytest.mark.parametrize(("what", "verb"), [("attach", "create"), ("portforward", "get"), ("exec", "get")])
    def test_sessions_without_a_command(self, what: str, verb: str) -> None:
        assert told(several(k8s(stream(what, verb=verb)))) == ["session.started", "session.ended"]

    def test_forwarded_ports(self) -> None:
        event = several(k8s(stream("portforward", "ports=8080,9090")))[1]
        assert event.action and event.action.args == ("8080", "9090")

    def test_a_refusal_and_a_crash(self) -> None:
        forbidden = {"annotations": {"authorization.k8s.io/decision": "forbid"}, "responseStatus": {"code": 403}}
        event = one(k8s(stream("exec", "command=sh", **forbidden)))
        assert (event.event_type, event.outcome) == ("session.denied", "denied")
        assert event.action and event.action.command == "sh"
        assert reason(k8s(stream("exec", **forbidden, stage="ResponseStarted"))) == "earlier_stage"
        assert one(k8s(stream("exec", responseStatus={"code": 404}))).outcome == "failure"
        crashed = one(k8s(stream("exec", stage="Panic", responseStatus={"code": 500})))
        assert (crashed.event_type, crashed.outcome) == ("session.ended", "failure")

    def test_the_binding_that_allowed_a_session_is_its_reason(self) -> None:
        words = 'RBAC: allowed by RoleBinding "b/shop" of ClusterRole "edit" to User "alice@example.com"'
        event = several(k8s(stream("exec", annotations={"authorization.k8s.io/reason": words})))[0]
        assert (event.reason, event.grant_id) == (words, None)

    def test_a_token_of_no_pod_is_the_grant_of_its_session(self) -> None:
        extra: dict[str, list[str]] = {"authentication.kubernetes.io/credential-id": ["JTI=j1"]}
        user = {"username": "system:serviceaccount:ci:bot", "extra": extra}
        event = several(k8s(stream("exec", user=user)))[0]
        assert (event.grant_id, event.grant_id_kind, event.subject.kind) == ("JTI=j1", "native", "service")
        extra["authentication.kubernetes.io/pod-name"] = ["web-0"]
        assert several(k8s(stream("exec", user=user)))[0].grant_id is None

    def test_gke_reports_no_end(self) -> None:
        asked = {"command": ["sh", "-c", "id"], "container": "app"}
        name = "core/v1/namespaces/shop/pods/web-0/exec"
        events = several(k8s(gke("io.k8s.core.v1.pods.exec.create", name, request=asked)))
        assert told(events) == ["session.started", "session.command"]
        assert events[1].action and events[1].action.args == ("-c", "id") and events[1].session_id == "g1"


class TestEphemeralContainers:
    CONTAINER: ClassVar[dict[str, Any]] = {"name": "debug", "image": "busybox", "command": ["sh"], "args": ["-c", "id"]}

    @pytest.mark.parametrize(
        "asked",
        [
            {"spec": {"ephemeralContainers": [CONTAINER]}},
            [{"op": "add", "path": "/spec/ephemeralContainers/-", "value": CONTAINER}],
            [{"op": "add", "path": "/spec/ephemeralContainers", "value": [CONTAINER]}],
        ],
    )
    def test_a_session_and_its_command(self, asked: Any) -> None:
        record = request("patch", "shop:pods/web-0/ephemeralcontainers", group="", asked=asked)
        started, command = several(k8s(record))
        assert told((started, command)) == ["session.started", "session.command"]
        assert started.entitlement == "ephemeral container on shop/web-0/debug"
        assert command.action and (command.action.command, command.action.args) == ("sh", ("-c", "id"))

    def test_without_the_object_and_refused(self) -> None:
        record = request("update", "shop:pods/web-0/ephemeralcontainers", group="")
        assert told(several(k8s(record))) == ["session.started"]
        assert one(k8s({**record, "responseStatus": {"code": 422}})).event_type == "session.denied"


class TestProxies:
    def test_people_and_components(self) -> None:
        record = request("get", "shop:pods/web-0/proxy", group="", requestURI="/api/v1/x/proxy/admin?token=s3cret")
        event = one(k8s(record))
        assert (event.event_type, event.entitlement) == ("session.command", "proxy on shop/web-0")
        assert event.action and (event.action.args, event.action.redacted) == (
            ("/admin?token=[redacted:secret]",),
            True,
        )
        scraper = {"username": "system:serviceaccount:monitoring:prometheus"}
        assert reason(k8s({**record, "user": scraper})) == "workload_proxy"

    def test_a_command_through_the_kubelet_counts_whoever_sends_it(self) -> None:
        uri = "/api/v1/nodes/n1/proxy/run/shop/web-0/app?command=id"
        user = {"username": "system:serviceaccount:ci:bot"}
        event = one(k8s(request("create", "nodes/n1/proxy", group="", requestURI=uri, user=user)))
        assert event.action and event.action.args == ("/run/shop/web-0/app?command=id",)


def test_denied_requests_of_people() -> None:
    event = one(k8s(request("get", "shop:secrets/db", 403, group="")))
    assert (event.event_type, event.entitlement) == ("session.denied", "get secrets db in shop")
    component = {"username": "system:serviceaccount:ci:bot"}
    refused = request("get", "shop:secrets/db", 403, group="", user=component)
    assert reason(k8s(refused)) == "api_read"
    as_component = {**refused, "user": {"username": "alice"}, "impersonatedUser": component}
    assert one(k8s(as_component)).actor.on_behalf_of == component["username"]


class TestTokens:
    @staticmethod
    def token(**members: Any) -> dict[str, Any]:
        issued = {"authentication.kubernetes.io/issued-credential-id": "JTI=j1"}
        asked = {"kind": "TokenRequest", "spec": {"expirationSeconds": 600, **members.pop("spec", {})}}
        record = request("create", "ci:serviceaccounts/bot/token", 201, group="", asked=asked, annotations=issued)
        return {**record, **members}

    def test_a_token_ends_by_itself(self) -> None:
        event = one(k8s(self.token()))
        assert (event.event_type, event.grant_id, event.entitlement, event.subject.id) == (
            "grant.activated", "JTI=j1", "system:serviceaccount:ci:bot", "alice@example.com",
        )  # fmt: skip
        end = datetime.fromisoformat(ENDED) + timedelta(minutes=10)
        assert (event.expires_at, event.expiry_source, event.ends_by_itself) == (end, "derived", True)
        native = one(k8s(self.token(responseObject={"status": {"expirationTimestamp": "2026-03-01T13:00:00Z"}})))
        assert (native.expiry_source, native.requested_seconds) == ("native", 600)

    def test_the_token_in_the_response_is_not_stored(self) -> None:
        answer = {"status": {"token": "eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "expirationTimestamp": "2026-03-01T13:00:00Z"}}
        event = one(k8s(self.token(responseObject=answer)))
        assert event.raw and b"eyJ" not in event.raw
        assert json.loads(event.raw)["responseObject"]["status"]["token"] == "[redacted:secret]"
        assert event.raw_sha256 == hashlib.sha256(event.raw).digest()

    def test_a_year_that_the_server_adds_in_silence(self) -> None:
        of_pod = {"expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "name": "web-0"}}
        event = one(k8s(self.token(spec=of_pod)))
        assert (event.expires_at, event.expiry_source, event.ends_by_itself) == (None, "unknown", None)

    def test_tokens_of_nodes_metadata_and_refusals(self) -> None:
        node = {"username": "system:node:n1", "groups": ["system:nodes"]}
        assert reason(k8s(self.token(user=node))) == "workload_token"
        hidden = one(k8s(self.token(impersonatedUser=node)))
        assert (hidden.event_type, hidden.actor.id, hidden.subject.id) == (
            "grant.activated", "alice@example.com", "system:node:n1",
        )  # fmt: skip
        bare = self.token(annotations={})
        del bare["requestObject"]
        event = one(k8s(bare))
        assert (event.expiry_source, event.grant_id_kind) == ("unknown", "synthesized")
        assert one(k8s(self.token(responseStatus={"code": 403}))).event_type == "grant.failed"


def certificate(until: datetime) -> str:
    """Return a certificate as ``status.certificate`` contains it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, datetime(2026, 1, 1, tzinfo=UTC), until)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return base64.b64encode(pem).decode()


class TestCertificates:
    SPEC: ClassVar[dict[str, Any]] = {
        "signerName": "kubernetes.io/kube-apiserver-client", "username": "bob@example.com", "expirationSeconds": 3600,
    }  # fmt: skip

    def csr(self, verb: str, subresource: str = "", code: int = 200, **status: Any) -> dict[str, Any]:
        answer = {"metadata": {"name": "bob", "uid": "u1"}, "spec": self.SPEC, "status": status}
        place = "/".join(filter(None, ("certificatesigningrequests/bob", subresource)))
        return request(verb, place, code, group=CERTIFICATES, answer=answer)

    def test_request_approval_and_issue(self) -> None:
        approval = {"type": "Approved", "reason": "KubectlApprove", "message": "INC-1"}
        until = AFTER.replace(microsecond=0)
        issued = self.csr("update", "status", conditions=[approval], certificate=certificate(until))
        events = [one(k8s(record)) for record in (
            self.csr("create", code=201), self.csr("update", "approval", conditions=[approval]), issued,
        )]  # fmt: skip
        assert told(tuple(events)) == ["request.created", "request.approved", "grant.activated"]
        assert {(event.request_id, event.subject.id, event.entitlement) for event in events} == {
            ("u1", "bob@example.com", "kubernetes.io/kube-apiserver-client")
        }
        asked, approved, given = events
        assert (asked.outcome, asked.requested_seconds) == ("pending", 3600)
        (decision,) = approved.approvals
        assert (decision.reviewer, decision.decision, decision.reason) == ("alice@example.com", "approved", "INC-1")
        assert (given.expires_at, given.expiry_source, given.ends_by_itself) == (
            until, "native", True,
        )  # fmt: skip
        assert (given.grant_id, given.grant_id_kind) == ("u1", "native")

    def test_denial_failure_and_cleanup(self) -> None:
        denied = one(k8s(self.csr("update", "approval", conditions=[{"type": "Denied", "reason": "no"}])))
        assert (denied.event_type, denied.outcome, denied.approvals[0].decision) == (
            "request.denied", "denied", "denied",
        )  # fmt: skip
        failed = one(k8s(self.csr("update", "status", conditions=[{"type": "Failed", "message": "bad"}])))
        assert (failed.event_type, failed.error, failed.request_id) == ("grant.failed", "bad", None)
        refused = one(k8s(self.csr("update", "approval", 403, conditions=[{"type": "Approved"}])))
        assert (refused.event_type, refused.outcome, refused.request_id) == ("grant.failed", "denied", None)
        assert reason(k8s(self.csr("delete"))) == "request_cleanup"
        bare = request("update", "certificatesigningrequests/bob/status", group=CERTIFICATES)
        assert reason(k8s(bare)) == "content_not_logged"
        assert reason(k8s(self.csr("update", "approval", conditions=[{"type": "x"}]))) == "nothing_changed"

    def test_a_certificate_that_cannot_be_read(self) -> None:
        event = one(k8s(self.csr("update", "status", certificate="bm90IFBFTQ==")))
        assert (event.expiry_source, event.ends_by_itself) == ("derived", None)

    def test_certificates_of_nodes(self) -> None:
        record = self.csr("create")
        spec = {"signerName": "kubernetes.io/kubelet-serving", "username": "system:node:n1"}
        record["responseObject"]["spec"] = spec
        assert reason(k8s(record)) == "node_certificate"
        record["responseObject"]["spec"] = {**spec, "username": "mallory"}
        assert one(k8s(record)).event_type == "request.created", "a person who asks to be a node"

    @pytest.mark.parametrize("year", [2027, 2049, 2050, 9999])
    def test_ends(self, year: int) -> None:
        until = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
        assert end_of_certificate(certificate(until)) == until

    @given(st.binary(max_size=300))
    def test_any_bytes_are_a_certificate_or_not(self, data: bytes) -> None:
        pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----"
        end_of_certificate(base64.b64encode(pem).decode())
        end_of_certificate(data.decode("latin-1"))


SECRET = "hunter2-Zq9"


class TestSecrets:
    @pytest.mark.parametrize(
        "words",
        [
            ("psql", f"postgres://app:{SECRET}@db/x"),
            ("mysql", f"-p{SECRET}", "-u", "root"),
            ("mysql", f"--password={SECRET}"),
            ("vault", "login", "--token", SECRET),
            ("redis-cli", "-a", SECRET, "ping"),
            ("env", f"PGPASSWORD={SECRET}", "psql"),
            ("sh", "-c", f"export API_KEY='{SECRET}'; run"),
            ("sh", "-c", f"mysql -p{SECRET} -e 'select 1'"),
            ("app", f"-password={SECRET}"),
            ("openssl", "rsa", "-passin", f"pass:{SECRET}"),
            ("curl", "-H", f"Authorization: Bearer {SECRET}"),
            ("curl", "-u", f"app:{SECRET}", "https://x"),
            ("sh", "-c", f"curl -u app:{SECRET} https://x"),
            ("echo", f'{{"client_secret": "{SECRET}"}}'),
        ],
    )
    def test_no_secret_of_a_command_reaches_an_event(self, words: tuple[str, ...]) -> None:
        query = "&".join(f"command={quote(word)}" for word in words) + "&container=app"
        events = several(k8s(stream("exec", query)))
        for event in events:
            assert event.raw and SECRET.encode() not in event.raw and SECRET not in str(event.to_datum())
        action = events[1].action
        assert action and action.redacted and action.command == words[0] and len(action.args) == len(words) - 1
        same = several(k8s(stream("exec", query, stage="ResponseStarted")))
        assert [event.event_id for event in same] == [event.event_id for event in events[:2]]

    @pytest.mark.parametrize(
        "words",
        [("mkdir", "-p", "/a"), ("ssh", "-p2222", "h"), ("ls", "-l", "/secrets"), ("sh", "-c", "ps -p 1; mkdir -p b")],
    )
    def test_what_is_no_secret_stays(self, words: tuple[str, ...]) -> None:
        assert command_without_secrets(words) == words

    def test_environment_and_secrets(self) -> None:
        container = {"name": "d", "image": "i", "env": [{"name": "X", "value": SECRET}, {"name": "Y", "valueFrom": {}}]}
        asked = {"spec": {"ephemeralContainers": [container]}}
        record = request("patch", "shop:pods/web-0/ephemeralcontainers", group="", asked=asked, answer=asked)
        for event in several(k8s(record)):
            assert event.raw and SECRET.encode() not in event.raw
        refused = request("create", "shop:secrets/s", 403, group="", asked={"kind": "Secret", "data": {"k": SECRET}})
        assert SECRET.encode() not in (one(k8s(refused)).raw or b"")
        entry = gke("io.k8s.core.v1.pods.exec.create", "core/v1/namespaces/shop/pods/web-0/exec",
                    request={"command": ["x", f"--password={SECRET}"]})  # fmt: skip
        assert all(event.raw and SECRET.encode() not in event.raw for event in several(k8s(entry)))

    def test_a_record_without_secrets_is_stored_as_it_came(self) -> None:
        line = json.dumps(stream("exec", "command=ls"), indent=1).encode()
        result = make_adapter("kubernetes").read(line, HERE)
        assert not isinstance(result, Skipped) and {event.raw for event in result} == {line}

    @given(st.lists(st.text(max_size=20), max_size=6))
    def test_redaction_is_stable(self, words: list[str]) -> None:
        once = command_without_secrets(words)
        assert len(once) == len(words) and command_without_secrets(once) == once


@few(60)
@given(data=st.data())
def test_real_records_with_random_damage(data: st.DataObject) -> None:
    """Each becomes valid events, is skipped for a stated reason, or fails with its place; none is lost."""
    record = json.loads(data.draw(st.sampled_from(samples("kubernetes"))))
    for _ in range(data.draw(st.integers(1, 4))):
        if record:
            _damage(record, data)
    assert_maps_or_fails("kubernetes", record)


def _damage(record: Any, data: st.DataObject) -> None:
    """Remove, replace or add one member, at any depth."""
    place, member = record, data.draw(st.sampled_from(sorted(record)))
    while isinstance(place[member], dict) and place[member] and data.draw(st.booleans()):
        place, member = place[member], data.draw(st.sampled_from(sorted(place[member])))
    change = data.draw(st.sampled_from(("remove", "replace", "type")))
    if change == "remove":
        del place[member]
    elif change == "replace":
        place[member] = data.draw(JSON)
    else:
        place[member] = data.draw(st.sampled_from(["", "x" * 300, -1, 2**70, [], {}, None, True, "\ud800", "2026"]))


def test_records_of_the_audit_filter_of_the_api_server() -> None:
    """Written by ``filters.WithAudit`` of k8s.io/apiserver v0.34.2, with the policy of docs/sources/kubernetes.md.

    The requests, the handler that answered them and the authorizer were made for this file.
    """
    lines = (Path(__file__).parents[1] / "support" / "kubernetes_api_server.jsonl").read_bytes().splitlines()
    found: list[tuple[str, str]] = []
    ids: set[str] = set()
    for line in lines:
        result = make_adapter("kubernetes", instance="prod").read(line, HERE)
        for event in () if isinstance(result, Skipped) else result:
            if event.event_id not in ids:
                found.append((event.event_type, event.outcome))
            ids.add(event.event_id)
            assert b"hunter2" not in (event.raw or b"")
    session = [("session.started", "success"), ("session.command", "unknown"), ("session.ended", "success")]
    assert found == [
        *session, *session, ("session.denied", "denied"), ("session.ended", "failure"), ("grant.revoked", "success"),
        ("grant.revoked", "denied"), ("session.denied", "denied"),
    ]  # fmt: skip
