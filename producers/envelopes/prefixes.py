"""What collectors write before a record on its line: syslog, Kubernetes, Fluentd, CloudWatch Logs exports."""

from __future__ import annotations

import re
from typing import NamedTuple


class Prefix(NamedTuple):
    """A prefix and the rest of its line. ``part_of`` names the stream of a line that a container runtime may split."""

    kind: str
    rest: bytes
    part_of: bytes | None = None
    more: bool = False


_DATE = rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?(?:Z|[+-]\d\d:?\d\d))?"
_SYSLOG_DATE = rb"[A-Z][a-z]{2} [ \d]\d(?: \d{4})? \d\d:\d\d:\d\d(?:\.\d{1,6})?"
_JOURNAL_DATE = rb"(?:[A-Z][a-z]{2} )?" + _DATE + rb"(?: [A-Z]{2,5})?|\d{10}\.\d{6}|\[ *\d{1,10}\.\d{6}\]"
_CRI = re.compile(rb"(" + _DATE + rb") (stdout|stderr) ([PF])(?::\S{0,64})? (.*)", re.DOTALL)
_BODY = rb"(?=[{<@\d]|\[[{\"]|[A-Z][a-z]{2} [ \d]\d \d)"
"""What may follow a prefix: a record, or another prefix. Anything else is a message of another program."""
_PREFIXES = (
    ("@cee cookie", re.compile(rb"@cee:[ \t]*(?=\{)")),
    ("Fluentd", re.compile(_DATE + rb"\t[^\t]{1,256}\t" + _BODY)),
    ("Fluentd", re.compile(_DATE + rb" [\w.*/-]{1,256}: (?=\{)")),
    (
        "syslog (RFC 5424)",  # Heroku leaves out the structured data
        re.compile(
            rb"(?:\d{1,7} )?<\d{1,3}>\d{1,2} \S{1,64} \S{1,255} \S{1,48} \S{1,128} \S{1,32} "
            rb'(?:-|(?:\[[^\s\]="]{1,32}(?: [^\s\]="]{1,32}="(?:[^"\\]|\\.)*+")*+\])++)? ?(?:\xef\xbb\xbf)?' + _BODY
        ),
    ),
    (
        "syslog (RFC 3164)",  # and what journalctl prints
        re.compile(
            rb"(?:\d{1,7} )?(?:<\d{1,3}>)?(?:" + _SYSLOG_DATE + rb"|" + _JOURNAL_DATE + rb") "
            rb"(?:[\w.:%-]{1,255} )?[\w./@()-]{1,128}(?:\[\w{1,32}\])?: ?" + _BODY
        ),
    ),
    ("syslog (RFC 3164)", re.compile(rb"<\d{1,3}>" + _SYSLOG_DATE + rb" [\w.:-]{1,255} (?=[{@])")),
    (
        "a time before the record",  # perhaps with a log stream; those of EKS have no slash
        re.compile(_DATE + rb"(?: (?:[\w.:$-]{1,128}/[\w./:$-]{1,384}|kube-[\w-]{1,128}))?[ \t]" + _BODY),
    ),
    ("kubectl logs --prefix", re.compile(rb"\[pod/[\w./-]{1,512}\] (?=[{\d])")),
    ("docker compose logs", re.compile(rb"[\w.-]{1,128} +\| (?=[{\d])")),
    ("Fluent Bit file", re.compile(rb"[\w.*/-]{1,256}: (?=\[[\d\[])")),
    ("a tag before the record", re.compile(rb"[\w@.+/-]{1,64}: ?(?=\{)")),
    ("syslog priority", re.compile(rb"<\d{1,3}>(?=[{@])")),
)


def prefix_in(line: bytes) -> Prefix | None:
    """Return the prefix of a line, or None."""
    if found := _CRI.match(line):
        part = found[3] == b"P"
        return Prefix("Kubernetes (CRI)", found[4], found[2], part)
    for kind, pattern in _PREFIXES:
        if found := pattern.match(line):
            return Prefix(kind, line[found.end() :])
    return None
