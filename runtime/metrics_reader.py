"""Reads the metrics endpoint of another process on this machine, which its status file names."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPException
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, str], float]
"""Values by name and labels; labels as ``name=value,…`` in alphabetical order."""


def read_samples(status_file: Path) -> Samples:
    """Return the samples of a process; none while it does not answer."""
    try:
        status = json.loads(status_file.read_text())
        with urllib.request.urlopen(status["metrics"], timeout=1.0) as answer:  # noqa: S310 - a local address of ours
            text = answer.read().decode()
    except (OSError, ValueError, KeyError, HTTPException):
        return {}
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[sample.name, labels] = sample.value
    return samples
