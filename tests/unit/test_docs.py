"""The documentation is up to date: its numbers, settings, schema ids, columns and codes are checked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import second_verifier

from grantledger.cli.docs import page as commands_page
from grantledger.runtime import settings_doc
from grantledger.runtime.settings import Settings
from grantledger.schemas.arrow import DECODED_SCHEMA
from grantledger.schemas.catalog import load, released
from grantledger.schemas.framing import single_object_prefix
from grantledger.sinks.migrate import available
from support.worked_example import example, made

ROOT = Path(__file__).resolve().parents[2]
LEDGER = (ROOT / "docs" / "ledger.md").read_text("utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text("utf-8")


def test_the_worked_example_is_the_output_of_the_code() -> None:
    """Mend it with ``PYTHONPATH=tests python tests/support/worked_example.py``, if the bytes may change at all."""
    assert f"<!-- example -->\n{example()}<!-- /example -->" in LEDGER


def test_the_worked_example_is_sound_by_the_second_verifier() -> None:
    key, batch, anchor = made()
    found = second_verifier.verify([batch, anchor], key)
    [(origin, (size, root))] = found["heads"].items()
    assert (origin, size, found["anchors"]) == ("test.example/access.lifecycle/0/0", 3, 1)
    assert f"root            {root}\n" in LEDGER


@pytest.mark.parametrize("name", ["event", "sealed_batch", "anchor"])
def test_schema_ids_are_in_the_page(name: str) -> None:
    for version, schema in released(name).items():
        assert f"`{single_object_prefix(schema).hex()}`" in LEDGER
        assert f"schemas/released/{name}.{version}.avsc" in LEDGER


@pytest.mark.parametrize("name", ["sealed_batch", "anchor"])
def test_every_field_is_explained(name: str) -> None:
    for field in load(name)["fields"]:
        assert f"`{field['name']}`" in LEDGER


def test_every_decoded_column_is_explained() -> None:
    for column in DECODED_SCHEMA.names:
        assert f"`{column}`" in LEDGER
    assert set(second_verifier.PLACES) | {"decode_error"} == set(DECODED_SCHEMA.names)


def test_every_column_of_the_evidence_is_explained() -> None:
    texts = "".join(migration.text for migration in available())
    for table in ("entries", "origins", "anchors"):
        body = re.search(rf"CREATE TABLE {table}\n\((.*?)\n\)", texts, re.DOTALL)
        assert body is not None
        for name in re.findall(r"^    `?(\w+)`? .* COMMENT '", body[1], re.MULTILINE):
            assert f"`{name}`" in LEDGER, f"{table}.{name}"


def test_every_code_of_decode_error_is_explained() -> None:
    words = set()
    for file in ("arrow", "framing"):
        text = (ROOT / "schemas" / f"{file}.py").read_text("utf-8")
        words |= set(re.findall(r"\"((?:value|framing|schema|datum)_[a-z]+)[\":]", text))
    assert {"value_null", "framing_unknown", "schema_unknown", "datum_invalid"} <= words
    for word in words:
        assert f"`{word}`" in LEDGER


def test_the_page_of_settings_is_generated_and_current() -> None:
    assert settings_doc.page() == SETTINGS, "run: python -m grantledger.runtime.settings_doc > docs/settings.md"
    printed = subprocess.run(
        [sys.executable, "-m", "grantledger.runtime.settings_doc"], capture_output=True, text=True, check=True
    ).stdout
    assert printed == SETTINGS


def test_the_page_of_commands_is_generated_and_current(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GRANTLEDGER_")]:
        monkeypatch.delenv(name)
    shown = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert commands_page() == shown, "run: python -m grantledger.cli.docs > docs/cli.md"


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith((".", ")")), name
        assert f"| `{name}` |" in SETTINGS


@pytest.mark.parametrize(
    "page",
    [*sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")), "../README.md"],
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / "docs" / page
    if not path.exists():
        pytest.skip(f"there is no {page}")
    text = path.read_text("utf-8")
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)", text):
        found = path.parent / target if target else path
        assert found.exists(), f"{page} names {target}"
        if anchor and found.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", found.read_text("utf-8"), re.MULTILINE)
            names = {re.sub(r"[^\w -]", "", one.lower()).strip().replace(" ", "-") for one in headings}
            assert anchor in names, f"{page} names {target}#{anchor}"
