"""`watcher platform`: the self-hosted server alone, and its users."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from watcher import __version__, bootstrap
from watcher.cli.frame import JsonOption, app, err, load, out, reporting
from watcher.domain.clock import SystemClock
from watcher.domain.errors import ConfigError
from watcher.platform import users as platform_users
from watcher.platform.secrets import KEY_FILE
from watcher.rotation import Rotation
from watcher.signals import wait_for_signal, watch_signals
from watcher.traces import open_tracing

if TYPE_CHECKING:
    from watcher.platform.context import Platform

platform_app = typer.Typer(
    help="Run the self-hosted platform alone, or manage its users.", invoke_without_command=True
)
users_app = typer.Typer(help="The platform's users; works beside a running platform.", no_args_is_help=True)
app.add_typer(platform_app, name="platform")
platform_app.add_typer(users_app, name="users")

DataDirOption = Annotated[Path | None, typer.Option(help="The platform's database, keys and uploads.")]
NameArgument = Annotated[str, typer.Argument(help="Name of the user.")]
DatasetArgument = Annotated[str, typer.Argument(help="Id of the dataset.")]
SamplesOption = Annotated[
    int | None,
    typer.Option(min=0, help="Most samples of a dataset of theirs; 0: as many as the platform lets."),
]
DatasetsOption = Annotated[int | None, typer.Option(min=0, help="Most datasets of theirs; 0: no limit.")]


@platform_app.callback()
def platform(
    context: typer.Context,
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    data_dir: DataDirOption = None,
    token: Annotated[
        str | None, typer.Option(help="Token to ask for; better set by variable or file.")
    ] = None,
    datasource_root: Annotated[Path | None, typer.Option(help="Folder below which datasources lie.")] = None,
    migrate_only: Annotated[bool, typer.Option("--migrate", help="Bring the schema up and end.")] = False,
) -> None:
    """Run the self-hosted platform alone, or manage its users."""
    context.obj = data_dir
    if context.invoked_subcommand is not None:
        return
    with reporting():
        settings = load()
        asked = watch_signals()
        config = bootstrap.build_platform_config(
            settings, host=host, port=port, data_dir=data_dir, token=token, datasource_root=datasource_root
        )
        if migrate_only:
            out.print(f"platform: version {bootstrap.migrate_platform(config)}")
            return
        tracing = open_tracing(settings.traces.endpoint)
        rotation = Rotation(settings)
        server = bootstrap.build_platform_server(
            config, clock=SystemClock(), tracing=tracing, on_refused=rotation.wake
        )
        server.start()
        rotation.follow_platform(server, with_token=token is None)
        rotation.start(asked)
        out.print(f"Platform {__version__} at {server.url}", markup=False)
        out.print(f"  datasources below  {config.datasource_root}", markup=False)
        out.print(f"  data               {config.data_dir}", markup=False)
        if token is None and settings.platform.token is None:
            out.print(f"  token              in {config.data_dir / 'token'}", markup=False)
        wait_for_signal(asked)
        server.stop(timeout_s=settings.drain_timeout_s)
        tracing.close()


@contextmanager
def _opened(context: typer.Context) -> Iterator[Platform]:
    """The platform's parts, errors reported; refuses where no platform has ever run, instead of making one."""
    with reporting():
        settings = load(quiet=True)
        data_dir: Path = context.obj or settings.data_dir / "platform"
        if settings.platform.key is None and not (data_dir / KEY_FILE).is_file():
            raise ConfigError(
                f"no platform has run over {data_dir} yet: start it once with `watcher platform` or `watcher run`, "
                "or name its folder with `watcher platform --data-dir FOLDER users ...`"
            )
        config = bootstrap.build_platform_config(settings, data_dir=data_dir)
        with (
            bootstrap.needing_platform(),
            platform_users.open_platform(config, clock=SystemClock()) as platform_parts,
        ):
            yield platform_parts


def _tell_token(name: str, token: str) -> None:
    # The token alone goes to the output, so that a script can take it; the log and the store never have it.
    err.print(f"Token of {name}, shown this once only:", markup=False)
    sys.stdout.write(token + os.linesep)


@users_app.command("add")
def add(
    context: typer.Context,
    name: NameArgument,
    *,
    max_samples: SamplesOption = None,
    max_datasets: DatasetsOption = None,
) -> None:
    """Add a user and print their token, which is shown this once only."""
    with _opened(context) as platform_parts:
        token = platform_users.add_user(
            platform_parts, name=name, max_samples=max_samples or None, max_datasets=max_datasets or None
        )
        _tell_token(name, token)


@users_app.command("list")
def list_all(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """All users and their limits; tokens cannot be read back."""
    with _opened(context) as platform_parts:
        found = platform_users.list_users(platform_parts)
        newest, *earlier = platform_parts.keys.ids
        keys: dict[str | None, str] = {None: "unknown", newest: "newest"}
        keys.update(dict.fromkeys(earlier, "earlier"))
        if as_json:
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
            return
        table = Table("name", "most samples", "most datasets", "key of the token", box=None)
        for user in found:
            limits = str(user.max_samples or "-"), str(user.max_datasets or "-")
            table.add_row(user.name, *limits, keys.get(user.token_key, "no longer listed"))
        out.print(table, markup=False)


@users_app.command("remove")
def remove(context: typer.Context, name: NameArgument) -> None:
    """Remove a user who owns nothing any more."""
    with _opened(context) as platform_parts:
        platform_users.remove_user(platform_parts, name=name)
        out.print(f"removed {name}", markup=False)


@users_app.command("token")
def renew(context: typer.Context, name: NameArgument) -> None:
    """Give a user another token and print it; the old one ends within five seconds."""
    with _opened(context) as platform_parts:
        _tell_token(name, platform_users.renew_token(platform_parts, name=name))


@users_app.command("quota")
def set_quota(
    context: typer.Context,
    name: NameArgument,
    *,
    max_samples: SamplesOption = None,
    max_datasets: DatasetsOption = None,
) -> None:
    """Set a user's limits; what is not given stays."""
    with _opened(context) as platform_parts:
        user = platform_users.set_limits(
            platform_parts, name=name, max_samples=max_samples, max_datasets=max_datasets
        )
        limits = f"most samples {user.max_samples or '-'}, most datasets {user.max_datasets or '-'}"
        out.print(f"{name}: {limits}", markup=False)


@users_app.command("share")
def share(context: typer.Context, name: NameArgument, dataset: DatasetArgument) -> None:
    """Let a user see and change a dataset that is not theirs."""
    with _opened(context) as platform_parts:
        platform_users.share_dataset(platform_parts, dataset_id=dataset, name=name)
        out.print(f"{dataset} is shared with {name}", markup=False)


@users_app.command("unshare")
def unshare(context: typer.Context, name: NameArgument, dataset: DatasetArgument) -> None:
    """End the sharing of a dataset."""
    with _opened(context) as platform_parts:
        platform_users.share_dataset(platform_parts, dataset_id=dataset, name=name, shared=False)
        out.print(f"{dataset} is no longer shared with {name}", markup=False)
