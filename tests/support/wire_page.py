"""The generated parts of docs/wire.md: ``PYTHONPATH=tests python tests/support/wire_page.py`` renews them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from grantledger.schemas.event import ACCESS_TYPES, GIVING, topic_of
from grantledger.schemas.rules import ABOUT_GRANTS, ALLOWED, DECISIONS, REQUIRED

from .vectors import FOLDER

PAGE = Path(__file__).resolve().parents[2] / "docs" / "wire.md"


def renewed(page: str) -> str:
    """Return the page with each generated part as the code gives it."""
    parts = {"types": _types(), "values": _values(), "event_id": _event_id(), "signature": _signature()}
    for name, text in parts.items():
        page, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda found, text=text: found[1] + text + found[2], page,
            flags=re.DOTALL,
        )  # fmt: skip
        if count != 1:
            raise ValueError(f"docs/wire.md has {count} parts {name}")
    return page


def _types() -> str:
    lines = ["| `event_type` | topic | required, besides the fields of every event |", "|---|---|---|"]
    for kind in ACCESS_TYPES:
        required = [f"`{name}`" for name, types in REQUIRED.items() if kind in types]
        if kind in ABOUT_GRANTS:
            required.insert(0, "`grant_id` or `request_id`")
        if kind in GIVING:
            required.append("`expires_at`, unless `expiry_source` is `unknown`")
        lines.append(f"| `{kind}` | `{topic_of(kind)}` | {', '.join(required)} |")
    return "\n".join(lines) + "\n"


def _values() -> str:
    lines = ["| field | values |", "|---|---|"]
    fields = {**ALLOWED, "approvals[].decision": DECISIONS}
    for name, allowed in fields.items():
        if not name.startswith(("finding.", "report.")):
            lines.append(f"| `{name}` | {', '.join(f'`{one}`' for one in sorted(allowed))} |")
    return "\n".join(lines) + "\n"


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return found


def _event_id() -> str:
    ids = _read("event_ids")
    first = ids["vectors"][0]
    name = first["name"].encode()
    return (
        f"```\nnamespace  {ids['namespace']}\nname       {first['name']}\n"
        f"in hex     {name[:20].hex()}…  ({len(name)} bytes)\nevent_id   {first['event_id']}\n```\n"
    )


def _signature() -> str:
    keys = _read("signatures")
    one = keys["vectors"][0]
    value, message = bytes.fromhex(one["value"]), one["message"]
    start = 2 * (len(message) // 2 - len(value))
    return (
        f"```\nprivate key  {keys['private_key']}   for tests only\npublic key   {keys['public_key']}\n"
        f"key id       {keys['key_id']}\ndeployment   {one['deployment']}\ntopic        {one['topic']}\n"
        f"key          {one['key']}\nvalue        {len(value)} bytes, {value[:10].hex()}…\n"
        f"message      {message[:start]}\n             ‖ value\nheader       {one['signature'][:72]}\n"
        f"             {one['signature'][72:]}\n```\n"
    )


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")
