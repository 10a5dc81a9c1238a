"""Commands on the signed statements: export and verify."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from watcher import bootstrap
from watcher.cli.frame import app, load, out, reporting
from watcher.data_folder import find_statement_key
from watcher.domain.errors import ConfigError, StatementError
from watcher.domain.statements import SignedStatement, split_keys, verify_chain
from watcher.settings.root import Settings
from watcher.store import statements, watches

statement = typer.Typer(
    help="The signed statements, one a day and watch: what was listed, what became of it."
)
app.add_typer(statement, name="statement")


@statement.command()
def export(
    watch: Annotated[str, typer.Argument(help="Name of the watch.")],
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Into this file, not to standard output.")
    ] = None,
) -> None:
    """Write all statements of a watch, one a line, oldest first."""
    with reporting():
        database = bootstrap.open_existing_store(load(quiet=True))
        try:
            with database.read() as session:
                row = watches.load_watch(session, name=watch)
                if row is None:
                    raise ConfigError(
                        f"there is no watch {watch!r} in the store: `watcher status` lists them"
                    )
                lines = (
                    msgspec.json.encode(each).decode() + "\n"
                    for each in statements.iter_statements(session, watch_id=row.id)
                )
                n_lines = _write(lines, file)
        finally:
            database.close()
        if file is not None:
            out.print(f"{n_lines} statements in {file}", markup=False)


def _write(lines: Iterator[str], file: Path | None) -> int:
    n_lines = 0
    if file is None:
        for line in lines:
            sys.stdout.write(line)
            n_lines += 1
        return n_lines
    try:
        with file.open("w", encoding="utf-8") as target:
            for line in lines:
                target.write(line)
                n_lines += 1
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    return n_lines


@statement.command()
def verify(
    file: Annotated[Path, typer.Argument(help="What `watcher statement export` wrote.")],
    *,
    key_file: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of a key that statements were signed with, beside the present one; repeatable."
        ),
    ] = None,
) -> None:
    """Prove that every statement in a file is as it was made, and that none is missing in between."""
    with reporting():
        keys = _read_keys(load(quiet=True), key_file or [])
        n = 0
        last = None
        for last in verify_chain(_read(file), keys=keys):  # noqa: B007 - the last one is told
            n += 1
        if last is None:
            raise StatementError(f"{file} holds no statement: `watcher statement export WATCH` writes them")
        out.print(
            f"{n} statements of {last.watch} up to {last.day} are genuine and complete: {last.n_listed} listed, "
            f"{last.n_missing} missing, {last.n_unexplained} unexplained on the last day",
            markup=False,
        )


def _read_keys(settings: Settings, files: list[Path]) -> list[str]:
    """The present key and those of the files; the file of the present one may be absent if others are named."""
    keys, paths = [], list(files)
    if settings.statement.key is not None:
        keys += split_keys(settings.statement.key.get_secret_value())
    else:
        present = find_statement_key(settings)
        if present.exists() or not files:
            paths.append(present)
    for path in paths:
        try:
            keys += split_keys(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError(
                f"the key {path} cannot be read ({reason}): one is made by the first full comparison, unless "
                "WATCHER_STATEMENT__KEY is set"
            ) from error
    return keys


def _read(file: Path) -> Iterator[SignedStatement]:
    try:
        with file.open(encoding="utf-8") as source:
            for number, line in enumerate(source, 1):
                try:
                    yield msgspec.json.decode(line, type=SignedStatement)
                except msgspec.MsgspecError as error:
                    raise StatementError(f"line {number} of {file} is no statement: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
