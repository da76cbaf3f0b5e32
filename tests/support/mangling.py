"""Records with a few members replaced by unexpected values."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

_JUNK = (
    None, "", "x", "\ud800", 0, -1, 1.5, True, [], [1], [None], {}, {"a": []}, {"\ud800": "a"}, 10**30,
    "9999-12-31T23:59:59Z", "0001",
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every member, at any depth."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [place for key, item in inner for place in _places(item, (*path, key))]
    return [path, *below] if path else below


@st.composite
def mangled(draw: st.DrawFn, records: list[dict[str, Any]]) -> dict[str, Any]:
    """One of the records, with up to three of its members replaced, at any depth."""
    record = copy.deepcopy(draw(st.sampled_from(records)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_places(record)))
        parent: Any = record
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = copy.deepcopy(draw(st.sampled_from(_JUNK)))
    return record
