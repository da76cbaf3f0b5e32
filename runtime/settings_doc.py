"""The page of settings, out of the settings: ``python -m grantledger.runtime.settings_doc > docs/settings.md``."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .settings import Settings

_HEAD = """\
# Settings

<!-- Generated: python -m grantledger.runtime.settings_doc > docs/settings.md -->

A setting comes, first found wins, from

1. the command line, where a command has an option for it (`--data` is `data_dir`);
2. the environment: `GRANTLEDGER_` and the name in capitals, `GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS` for example. Tables
   and lists are JSON there;
3. a TOML file, named with `--config` or `GRANTLEDGER_CONFIG`, with the names below;
4. the running local stack of the data folder, which says where its Kafka and its store are.

A name in the file that is none of these stops the command. In the environment it is passed over: other programs set
variables too. `grantledger settings` prints what holds, without secrets.

| setting | default | meaning |
|---|---|---|
"""


def page() -> str:
    """Return the page as Markdown."""
    return _HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    limits = _limits(field)
    meaning = f"{field.description}{' ' + limits if limits else ''}".replace("|", "\\|")
    return f"| `{name}` | {_default(field)} | {meaning} |\n"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or isinstance(value, SecretStr) or value in ("", {}):
        return ""
    if isinstance(value, tuple):
        return f"`{list(value)}`".replace("'", '"')
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


def _limits(field: FieldInfo) -> str:
    """Return what a value must be, in words."""
    words = _words(field.annotation)
    if words:
        return f"One of {', '.join(f'`{word}`' for word in words)}."
    found: dict[str, Any] = {}
    for rule in field.metadata:
        found |= {name: getattr(rule, name) for name in ("ge", "le", "max_length") if hasattr(rule, name)}
    if "ge" in found and "le" in found:
        return f"{found['ge']:g} to {found['le']:g}."
    if "ge" in found and found["ge"] > 0:
        return f"At least {found['ge']:g}."
    if "max_length" in found:
        return f"At most {found['max_length']} characters."
    return ""


def _words(annotation: Any) -> list[str]:
    origin = get_origin(annotation)
    if origin is Literal:
        return [str(word) for word in get_args(annotation)]
    if origin in (tuple, Union, types.UnionType):
        return [word for part in get_args(annotation) for word in _words(part)]
    return []


if __name__ == "__main__":
    print(page(), end="")
