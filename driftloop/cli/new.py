"""`driftloop new`: writes a use case from a table, as a declaration to read and correct; starts nothing."""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from driftloop.cli.table_options import table_options
from driftloop.usecase import UseCaseError

if TYPE_CHECKING:
    from driftloop.tables import InferenceOptions, Inferred, Table


@click.command()
@click.argument("name")
@click.option("--from", "data", required=True, type=click.Path(path_type=Path), help="A CSV or Parquet file.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("usecases"),
    show_default=True,
    help="The folder to write NAME into; put it on DRIFTLOOP_USECASES.",
)
@table_options
def new(name: str, data: Path, into: Path, options: InferenceOptions | None) -> None:
    """Write the use case NAME from a table: usecase.py, replay.py, README.md and the data."""
    from driftloop.tables import infer, read_table
    from driftloop.tables.source import demo_command

    folder = into / name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", name):
        raise click.UsageError(f"{name!r} cannot name a use case: letters, digits, '-' and '_' only, at most 40")
    if folder.exists():
        raise click.UsageError(f"{folder} is there already and is left as it is: remove it, or give another name")
    try:
        table = read_table(data)
        if options is None:
            raise click.UsageError(
                f"which column is to be predicted? Say --label COL; {data} has {', '.join(table.names)}"
            )
        inferred = infer(table, dataclasses.replace(options, name=name))
        written = write_use_case(table, inferred, folder)
    except UseCaseError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{data}: {table.rows:,} rows. Inferred:")
    for sentence in inferred.sentences():
        click.echo(f"  {sentence}")
    click.echo(f"\nWritten to {folder}:")
    for file in written:
        click.echo(f"  {file.name:<13} {file.stat().st_size / 1e3:10,.1f} kB")
    click.echo(f"\nRead {folder / 'usecase.py'} and correct what is wrong. Then:")
    if into.resolve() != Path("usecases").resolve():
        click.echo(f"  export DRIFTLOOP_USECASES={into.resolve()}")
    click.echo(f"  {demo_command(inferred)}")


def write_use_case(table: Table, inferred: Inferred, folder: Path) -> list[Path]:
    """Writes the use case's files into a folder that is not there yet, all of them or none; returns their paths."""
    import pyarrow.parquet as pq

    from driftloop.tables import prepared
    from driftloop.tables.replay import DATA_FILE
    from driftloop.tables.source import REPLAY, declaration_source, readme

    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        data = unfinished / DATA_FILE
        pq.write_table(prepared(table, inferred), data, compression="zstd")
        (unfinished / "usecase.py").write_text(declaration_source(inferred), encoding="utf-8")
        (unfinished / "replay.py").write_text(REPLAY, encoding="utf-8")
        (unfinished / "README.md").write_text(readme(inferred, data.stat().st_size), encoding="utf-8")
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return [folder / name for name in ("usecase.py", "replay.py", "README.md", DATA_FILE)]
