"""Finds the parts of driftloop that only a checkout has: deployment, services, simulation."""

from __future__ import annotations

import sys
from pathlib import Path

import click

import driftloop


def import_from_checkout(folder: str, does: str) -> None:
    """Lets the packages beside the library be imported; ClickException that names what needs it where they are not there."""
    root = Path(driftloop.__file__).resolve().parents[1]
    if not (root / folder).is_dir():
        raise click.ClickException(f"{does} from a checkout of driftloop; this is the installed library alone.")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
