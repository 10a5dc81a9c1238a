"""The command that makes a dataset on another server: make-dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from watcher import attach, bootstrap
from watcher.cli.frame import app, load, out, reporting
from watcher.domain.errors import ConfigError
from watcher.domain.names import explain_bad_name


@app.command("make-dataset")
def make_dataset(
    name: Annotated[str, typer.Argument(help="Name of the dataset.")],
    *,
    folder: Annotated[
        str,
        typer.Option(
            help="Its datasource: a folder below the platform's --datasource-root, or else its WATCHER_DATA_DIR."
        ),
    ],
) -> None:
    """Make a dataset over a folder on the platform of LIGHTLY_SERVER_LOCATION; harmless if it is there."""
    with reporting():
        settings = load(quiet=True)
        if settings.lightly_token is None or settings.lightly_server_location is None:
            raise ConfigError(
                "the daemon makes the datasets of its own platform itself; for another one set LIGHTLY_TOKEN and "
                "LIGHTLY_SERVER_LOCATION"
            )
        if bad := explain_bad_name(folder):
            raise ConfigError(f"--folder {folder!r}: {bad}")
        transport = bootstrap.build_command_transport(settings, database=None)
        try:
            dataset_id = attach.make_dataset(transport, name=name, folder=folder)
        finally:
            transport.close()
        out.print(f"Dataset {name!r} ({dataset_id}) over the folder {folder}.", markup=False)
