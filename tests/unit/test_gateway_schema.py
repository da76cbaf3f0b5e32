"""The OpenAPI document of the gateway, and what a client may send by it: no answer is an error of the server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi import checks

from grantledger.producers.adapters import ADAPTERS
from support.gateway import TOKENS, GatewayInProcess

ROUTES = [
    ("/v1/events", "POST", "bot"),
    *(("/ingest/{tool}", "POST", tool) for tool in sorted(ADAPTERS)),
    ("/ingest/{tool}", "GET", "okta"),
    ("/v1/logs", "POST", "teleport"),
    ("/livez", "GET", "bot"),
    ("/readyz", "GET", "bot"),
]
CONFORMING = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInProcess]:
    with GatewayInProcess(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def schema(gateway: GatewayInProcess) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", gateway.app)


@pytest.mark.parametrize(("path", "method", "source"), ROUTES, ids=lambda value: value)
def test_whatever_the_document_allows_is_answered_as_it_says(
    schema: schemathesis.BaseSchema, path: str, method: str, source: str
) -> None:
    operation = schema[path][method]

    @settings(
        max_examples=1000 if os.environ.get("GRANTLEDGER_TEST_SLOW") else 10, suppress_health_check=list(HealthCheck)
    )
    @given(operation.as_strategy())
    def check(case: schemathesis.Case) -> None:
        if "tool" in case.path_parameters:
            case.path_parameters["tool"] = source
        case.call_and_validate(headers={"Authorization": f"Bearer {TOKENS[source]}"}, checks=CONFORMING)

    check()


def test_the_document_names_every_route_and_tool(gateway: GatewayInProcess) -> None:
    document = gateway.get("/openapi.json").json()
    assert {path for path, _, _ in ROUTES} == document["paths"].keys()
    [tool] = document["paths"]["/ingest/{tool}"]["post"]["parameters"]
    assert tool["schema"]["examples"] == sorted(ADAPTERS)
    for path in ("/v1/events", "/ingest/{tool}", "/v1/logs"):
        assert {"401", "413", "422", "429", "503"} <= document["paths"][path]["post"]["responses"].keys()
