"""Generates the page of settings: ``python -m grantledger.runtime.settings_doc > docs/settings.md``."""

from __future__ import annotations

import json
from typing import Any

from .settings import Settings

_HEAD = """\
# Settings

<!-- Generated: python -m grantledger.runtime.settings_doc > docs/settings.md -->

The value of a setting comes from the first of these sources that has one:

1. the command line, where a command has an option for it (`--data` is `data_dir`);
2. the environment: `GRANTLEDGER_` and the name in capitals, for example `GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS`. Tables
   and lists are in JSON;
3. a TOML file, given with `--config` or `GRANTLEDGER_CONFIG`, with the names below;
4. the local stack that runs in the data folder: its deployment, its Kafka and its topic prefix.

An unknown name in the file is an error. In the environment it is ignored, because other programs set variables too.
`grantledger settings` prints every setting with its current value, without secrets.

| setting | default | meaning |
|---|---|---|
"""


def page() -> str:
    """Return the page as Markdown."""
    return _HEAD + "".join(_row(name, field) for name, field in Settings.model_json_schema()["properties"].items())


def _row(name: str, field: dict[str, Any]) -> str:
    meaning = " ".join(filter(None, (field["description"], _limits(field)))).replace("|", "\\|")
    default = field.get("default")
    shown = default if isinstance(default, str) else json.dumps(default)
    empty = default in (None, "", {}) or field.get("format") == "password"
    return f"| `{name}` | {'' if empty else f'`{shown}`'} | {meaning} |\n"


def _limits(field: dict[str, Any]) -> str:
    """Return the constraints of a value as a sentence; those of an optional one are in its first variant."""
    rules = field.get("anyOf", [{}])[0] | field.get("items", {}) | field
    if choices := rules.get("enum") or ([rules["const"]] if "const" in rules else []):
        return f"One of {', '.join(f'`{choice}`' for choice in choices)}."
    if "maximum" in rules:
        return f"{rules['minimum']:g} to {rules['maximum']:g}."
    if rules.get("minimum"):
        return f"At least {rules['minimum']:g}."
    return f"At most {rules['maxLength']} characters." if "maxLength" in rules else ""


if __name__ == "__main__":
    print(page(), end="")
