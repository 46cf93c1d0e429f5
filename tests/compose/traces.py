"""Spans as the collector writes them to its file: OTLP in JSON, a line per export."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any


def edges(lines: Iterable[str]) -> Counter[tuple[str, str]]:
    """How often a span of the first name is the parent of, or linked by, one of the second."""
    spans: list[dict[str, Any]] = [
        span
        for line in lines
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    names = {span["spanId"]: span["name"] for span in spans}
    found: Counter[tuple[str, str]] = Counter()
    for span in spans:
        before = [span.get("parentSpanId", ""), *(link["spanId"] for link in span.get("links", []))]
        found.update((names[each], span["name"]) for each in before if each in names)
    return found
