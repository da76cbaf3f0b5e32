"""The pages about tools, docs/sources: what people copy from them must work."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from grantledger.producers.adapters import ADAPTERS, recognise
from grantledger.producers.gateway.config import load_gateway_config
from support.command import invoke

PAGES = {path.stem: path for path in (Path(__file__).resolve().parents[2] / "docs" / "sources").glob("*.md")}
TLS = 'listen = "0.0.0.0:8443"\ntls_certificate = "gateway.crt"\ntls_key = "gateway.key"\n'


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page].read_text("utf-8"), re.DOTALL)


def test_every_tool_has_a_page() -> None:
    assert set(PAGES) == set(ADAPTERS)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_page_says_what_a_reader_needs(page: str) -> None:
    text = PAGES[page].read_text("utf-8")
    for part in ("Permission", "## What is covered", " not say"):
        assert part in text, part
    assert f"grantledger import {page} " in text or f"grantledger follow {page} " in text


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_sources_of_the_gateway_are_right(page: str, tmp_path: Path) -> None:
    for text in blocks(page, "toml"):
        if "[[source]]" not in text:
            continue
        path = tmp_path / "gateway.toml"
        path.write_text((TLS if "client_ca" in text else 'listen = "127.0.0.1:8480"\n') + text)
        path.chmod(0o600)
        [source] = load_gateway_config(path).source
        assert source.tool == page


@pytest.mark.parametrize("page", sorted(PAGES))
def test_files_in_yaml_and_json_are_valid(page: str) -> None:
    for text in blocks(page, "yaml"):
        assert yaml.safe_load(text)
    for text in blocks(page, "json"):
        for line in text.splitlines():
            assert json.loads(line)
    [own] = [one for one in map(json.loads, blocks("mcp", "json")) if "message" in one]
    assert recognise(own) == "mcp"


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_commands_are_right(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in a command is right but the missing file or broker."""
    monkeypatch.chdir(tmp_path)
    text = PAGES[page].read_text("utf-8").replace("\\\n", " ")
    found = re.findall(r"(?:^|\| |`|\$ )grantledger ((?:follow|import) [^`\n]+)", text, re.MULTILINE)
    assert found
    for command in found:
        words = shlex.split(re.sub(r"(?<= )(~|/var|/etc)/", f"{tmp_path}/", command))
        if any(one.startswith("s3://") for one in words):
            continue
        assert words[1] == page, command
        if words[0] == "follow":
            done = invoke(*words, "--once")
            assert done.exit_code == 2 and "no Kafka broker" in done.stderr, (command, done.stderr)
        else:
            done = invoke(*words, *([] if "--dry-run" in words else ["--dry-run"]))
            usage = ("Usage:", "No such option", "no adapter for")
            assert not any(one in done.stderr for one in usage), (command, done.stderr)
