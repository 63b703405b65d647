"""Prometheus's conventions for names and units, checked on what a service answers.

Source: "Metric and label naming" and "Writing exporters", prometheus.io/docs.
"""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

NAME = re.compile(r"xpool_[a-z]+(_[a-z]+)*")
LABEL = re.compile(r"[a-z]+(_[a-z]+)*")
OTHER_UNITS = re.compile(
    r"(milli|micro|nano)?(seconds|bytes)$|_(ms|us|ns|kib|mib|gib|percent|points)(_|$)"
)


def problems(text: str) -> list[str]:
    """What breaks a convention; parsing fails on what is no exposition at all."""
    found = []
    for family in text_string_to_metric_families(text):
        name = family.name
        units = OTHER_UNITS.search(name)
        if not NAME.fullmatch(name):
            found.append(f"{name}: not lower case with the prefix xpool_")
        if not family.documentation.strip():
            found.append(f"{name}: no help")
        if units and units[0] not in ("seconds", "bytes"):
            found.append(f"{name}: not in a base unit")
        if family.type == "unknown":
            found.append(f"{name}: no type")
        if family.type == "gauge" and name.endswith(("_total", "_count", "_sum")):
            found.append(f"{name}: a gauge with a counter's name")
        for one in family.samples:
            if family.type == "counter" and not one.name.endswith("_total"):
                found.append(f"{one.name}: a counter without _total")
            if name.endswith("_ratio") and not 0 <= one.value <= 1:
                found.append(f"{one.name}: a ratio of {one.value}")
            labels = [key for key in one.labels if key not in ("le", "quantile")]
            found += [f"{key}: no label" for key in labels if not LABEL.fullmatch(key)]
    return found
