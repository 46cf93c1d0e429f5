"""Makes the passwords of one installation, once: random, a file each, on a volume that only their users mount."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

FOLDER = Path("/run/secrets")
NAMES = ("postgres_password", "redis_password", "grafana_password")


def main() -> int:
    """Writes what is missing. With SECRETS_DIR set the files are the operator's, and nothing is made up."""
    own = os.environ.get("SECRETS_DIR", "")
    for name in NAMES:
        file = FOLDER / name
        if file.is_file() and file.stat().st_size:
            continue
        if own:
            print(
                f"driftloop cannot start: the secret {own}/{name} is missing: write it there, one line.",
                file=sys.stderr,
            )
            return 1
        beside = file.with_suffix(".unfinished")
        beside.write_text(secrets.token_hex(24))
        beside.chmod(0o444)  # PostgreSQL, Redis and Grafana read it, each as a user of its own
        beside.replace(file)
        print(f"made {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
