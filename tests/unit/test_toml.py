"""The TOML loader: every error at once, each with its line and key, and no value of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from grantledger.base.secret import SecretReference
from grantledger.base.toml import ConfigError, load_toml


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Hook(Part):
    kind: Literal["hook"]
    url: str
    timeout_seconds: float = Field(10, gt=0)
    password: SecretStr | None = None


class Pager(Part):
    kind: Literal["pager"]
    number: int

    @model_validator(mode="after")
    def _reachable(self) -> Pager:
        if self.number == 0:
            raise ValueError("number must not be 0")
        return self


class Rule(Part):
    source: str = "*"
    limits: dict[str, float] = {}


class Whole(Part):
    keep_days: float = 90
    people: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    groups: frozenset[Literal["a", "b"]] = frozenset()
    channels: dict[str, Annotated[Hook | Pager, Field(discriminator="kind")]]
    rules: tuple[Rule, ...] = ()


def errors(folder: Path, text: str) -> list[str]:
    path = folder / "file.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as raised:
        load_toml(path, Whole)
    return [line.removeprefix(f"{path}:") for line in str(raised.value).splitlines()]


def test_every_error_is_reported_with_line_and_key(tmp_path: Path) -> None:
    text = """\
keep_day = 3

[channels.a]          # an inline comment
kind = "hook"
url = "https://x"
timeout_secs = 4
timeout_seconds = "hunter2"

[channels.b]
kind = "pager"

[channels.c]
kind = "pager"
number = 0

[[rules]]
source = "x"
[[rules]]
sorce = '''
[[rules]]
'''
limits = {
}
""".replace("limits = {\n}\n", 'limits = { fast = 1, slow = "hunter2" }\n')
    found = errors(tmp_path, text)
    assert found == [
        "1: keep_day: unknown key; did you mean keep_days?",
        "6: channels.a.timeout_secs: unknown key; did you mean timeout_seconds?",
        "7: channels.a.timeout_seconds: Input should be a valid number, unable to parse string as a number",
        "9: channels.b.number: is required",
        "12: channels.c: number must not be 0",
        "19: rules 2.sorce: unknown key; did you mean source?",
        "22: rules 2.limits.slow: Input should be a valid number, unable to parse string as a number",
    ]


def test_a_statement_of_several_lines_is_found_at_its_first(tmp_path: Path) -> None:
    text = '[channels.a]\nkind = "pager"\nnumber = 1\n\n[[rules]]\nsource = [\n  "a",\n  "b",\n]\n'
    assert errors(tmp_path, text) == ["6: rules 1.source: Input should be a valid string"]


def test_a_suggestion_comes_from_the_right_variant(tmp_path: Path) -> None:
    (found,) = errors(tmp_path, '[channels.a]\nkind = "pager"\nnumber = 1\nurll = "x"\n')
    assert found == "4: channels.a.urll: unknown key"


def test_a_wrong_kind_gets_a_suggestion_and_is_not_printed(tmp_path: Path) -> None:
    (found,) = errors(tmp_path, '[channels.a]\nnumber = 1\nkind = "pagr"\n')
    assert found == "3: channels.a.kind: is not one of hook, pager; did you mean pager?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[channels.a]\nnumber = 1\nkid = "pager"\n',
            "3: channels.a.kid: unknown key; did you mean kind? It is required",
        ),
        ("[channels.a]\nnumber = 1\n", "1: channels.a.kind: is required"),
    ],
)
def test_without_its_kind_the_valid_ones_are_listed(text: str, message: str, tmp_path: Path) -> None:
    assert errors(tmp_path, text) == [f"{message}: one of hook, pager"]


def test_a_value_of_the_wrong_type_is_described_in_terms_of_the_file(tmp_path: Path) -> None:
    text = 'rules = "x"\ngroups = "a"\n[people]\nann = "a"\nbob = []\ncid = [1]\n[channels]\na = 3\n'
    assert errors(tmp_path, text) == [
        "1: rules: must be a list of tables",
        "2: groups: must be a list of texts",
        "4: people.ann: must be a list of texts",
        "5: people.bob: must not be empty",
        "6: people.cid 1: Input should be a valid string",
        "8: channels.a: must be a table",
    ]


def test_a_file_without_a_required_key(tmp_path: Path) -> None:
    assert errors(tmp_path, "# nothing\n") == ["1: channels: is required"]


def test_a_parse_error_has_line_and_column(tmp_path: Path) -> None:
    assert errors(tmp_path, "keep_days = 1\nkeep_days 2\n") == ["2:11: Expected '=' after a key in a key/value pair"]
    (found,) = errors(tmp_path, "keep_days = 1\nchannels = [")
    assert found.startswith("2:")


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    with pytest.raises(ConfigError, match=r"file.toml: cannot be read: No such file"):
        load_toml(path, Whole)
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 5"):
        load_toml(path, Whole)
    path.write_text("channels = {}")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="anybody can write this file; run: chmod o-w"):
        load_toml(path, Whole)
    path.chmod(0o644)
    assert load_toml(path, Whole).keep_days == 90


def test_a_long_file_is_searched_quickly(tmp_path: Path) -> None:
    text = "".join(f'[[rules]]\nsource = "s{number}"\n' for number in range(1000))
    found = errors(tmp_path, f'{text}colour = 1\n[channels.a]\nkind = "pager"\nnumber = 1\n')
    assert found == ["2001: rules 1000.colour: unknown key"]


def test_a_secret_file_is_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_text("hunter2\nsecond line\n")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="a.b: others can access .*chmod 600"):
        SecretReference(file=path).read("a.b")
    path.chmod(0o600)
    assert SecretReference(file=path).read("a.b") == "hunter2"
    for content in (b"\n", b"\xff\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="a.b: the first line of .* is not a secret"):
            SecretReference(file=path).read("a.b")
    path.unlink()
    with pytest.raises(ConfigError, match="a.b: .* cannot be read: No such file"):
        SecretReference(file=path).read("a.b")
    monkeypatch.delenv("SOME_SECRET", raising=False)
    with pytest.raises(ConfigError, match="a.b: the environment variable SOME_SECRET is not set"):
        SecretReference(env="SOME_SECRET").read("a.b")
    monkeypatch.setenv("SOME_SECRET", " hunter2 ")
    assert SecretReference(env="SOME_SECRET").read("a.b") == "hunter2"
    for fields in ({}, {"env": "A", "file": "/b"}):
        with pytest.raises(ValueError, match="give either env"):
            SecretReference.model_validate(fields)
