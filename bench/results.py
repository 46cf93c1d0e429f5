"""The form of a benchmark's results: what was measured, against what, and whether a target was met."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Result:
    """One figure. `target` is a bound of the value; `at_most` says from which side. `met` is computed, never given."""

    case: str
    metric: str
    value: float | None
    unit: str
    baseline: str | None = None
    baseline_value: float | None = None
    target: float | None = None
    at_most: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The figure with its ratio to the baseline and whether the target was met."""
        ratio = self.value / self.baseline_value if self.value is not None and self.baseline_value else None
        met: bool | None = None
        if self.target is not None:
            met = self.value is not None and (self.value <= self.target if self.at_most else self.value >= self.target)
        fields = asdict(self)
        del fields["at_most"]
        return fields | {"ratio": ratio, "met": met}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}


def write(name: str, results: list[Result], folder: Path = Path("build/bench")) -> Path:
    """Writes `<folder>/<name>.json` and prints the same as a table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [result.as_dict() for result in results]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"name": name, "machine": machine(), "results": rows}, indent=1))
    table = Table("case", "metric", "value", "unit", "target", "met", title=name)
    for row in rows:
        value = "–" if row["value"] is None else f"{row['value']:.4g}"
        table.add_row(
            row["case"],
            row["metric"],
            value,
            row["unit"],
            str(row["target"] or ""),
            {True: "yes", False: "NO", None: ""}[row["met"]],
        )
    Console().print(table)
    return path
