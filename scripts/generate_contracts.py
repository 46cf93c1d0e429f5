"""Generates driftloop/contracts from proto/ with grpcio-tools. `--check` only says whether the result would differ."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "driftloop" / "contracts"


def generate(into: Path) -> dict[Path, str]:
    """Generated files by path relative to the contracts package, imports rewritten to that package."""
    protos = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{files('grpc_tools') / '_proto'}"]
    arguments += [f"--python_out={into}", f"--pyi_out={into}", f"--grpc_python_out={into}", *protos]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc refused the protos; see above")
    found = {}
    for path in sorted(into.rglob("*.py*")):
        if path.name.endswith("_pb2_grpc.py") and "class " not in path.read_text():
            continue
        text = re.sub(r"^from driftloop\.", "from driftloop.contracts.", path.read_text(), flags=re.MULTILINE)
        found[path.relative_to(into / "driftloop")] = text
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        generated = generate(Path(folder))
    stale = []
    for relative, text in generated.items():
        path = TARGET / relative
        if not path.exists() or path.read_text() != text:
            stale.append(str(relative))
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                for package in (path.parent, path.parent.parent):
                    (package / "__init__.py").touch()
    if check and stale:
        print(f"generated contracts are stale: {', '.join(stale)}; run `make contracts`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
