"""The commands; the only place that prints."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from watcher import __version__, bootstrap
from watcher.cli_views import print_lives, print_overview, print_settings, print_variables
from watcher.daemon import Daemon
from watcher.domain.clock import SystemClock
from watcher.domain.errors import ConfigError, DeadlineExceededError, StoreLockedError, WatcherError
from watcher.domain.models import PollState
from watcher.domain.redaction import redact
from watcher.logs import configure_logging
from watcher.ops.control import Control
from watcher.ops.life import load_lives
from watcher.ops.overview import load_overview
from watcher.platform.server import PlatformServer
from watcher.settings import Settings, load_settings
from watcher.store import polls, watches

app = typer.Typer(
    name="watcher",
    help="Registers, thumbnails, embeds and picks every image that arrives in a datasource.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# A pipe has no width; tables for one are as wide as they need to be.
_out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

_POLL_WAIT_S = 300.0

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def _reporting() -> Iterator[None]:
    """Turns errors into one clear text and an exit code: 2 for what a person must change, 1 for the rest."""
    try:
        yield
    except ConfigError as error:
        _print_error(error)
        raise typer.Exit(2) from None
    except WatcherError as error:
        _print_error(error)
        raise typer.Exit(1) from None


def _print_error(error: Exception) -> None:
    for line in redact(str(error)).splitlines():
        _err.print(f"watcher: {line}", markup=False)


def _load(*, quiet: bool = False) -> Settings:
    settings = load_settings(os.environ)
    configure_logging(log_format=settings.log.format, level="WARNING" if quiet else settings.log.level)
    return settings


def _watch_signals() -> threading.Event:
    """An event that the first SIGINT or SIGTERM sets; the second one ends the process at once."""
    asked = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return asked


def _wait(asked: threading.Event) -> None:
    while not asked.wait(1.0):  # bounded, so that the handler of a signal gets its turn on every platform
        pass


@app.command()
def run() -> None:
    """Run the daemon; without LIGHTLY_TOKEN with the platform inside."""
    with _reporting():
        settings = _load()
        asked = _watch_signals()
        daemon = Daemon(settings)
        addresses = daemon.start()
        lines = [f"Datasource Watcher {__version__}"]
        lines += [
            f"  drop images into  {settings.data_dir / config.folder}"
            for config in daemon.configs
            if config.folder is not None
        ]
        lines += [
            f"  picks appear in   {settings.data_dir / 'selected'}",
            f"  status page       {addresses.http}/",
            f"  metrics           {addresses.http}/metrics",
            f"  {'platform' if settings.is_embedded else 'server'}          {addresses.server}".replace(
                "server  ", "server    "
            ),
            "  Ctrl-C drains and ends; twice ends at once",
        ]
        for line in lines:
            _out.print(line, markup=False)
        _wait(asked)
        _out.print("Draining; once more ends at once.")
        if not daemon.stop():
            _out.print("Some work was still under way; it goes on at the next start.")


@app.command()
def poll(
    watch: Annotated[str | None, typer.Argument(help="Only this watch.")] = None,
    *,
    jobs: Annotated[bool, typer.Option(help="Then run what is ready, until nothing is.")] = True,
) -> None:
    """Poll once, in the foreground; a running daemon is asked to do it."""
    with _reporting():
        settings = _load(quiet=True)
        daemon = Daemon(settings)
        names = [config.name for config in daemon.configs]
        if watch is not None and watch not in names:
            raise ConfigError(f"there is no watch {watch!r}; configured are: {', '.join(names)}")
        chosen = names if watch is None else [watch]
        try:
            daemon.open()
        except StoreLockedError:
            _poll_beside_daemon(settings, chosen)
            return
        failures: list[WatcherError] = []
        try:
            for name in chosen:
                try:
                    report = daemon.poll(name)
                except WatcherError as error:
                    _err.print(f"watcher: {name}: {redact(str(error))}", markup=False)
                    failures.append(error)
                else:
                    _out.print(
                        f"{name}: {report.n_listed} listed, {report.n_new} new, mark {report.to_s}",
                        markup=False,
                    )
            if jobs:
                _out.print(f"{daemon.run_ready()} attempts of runs")
        finally:
            daemon.stop()
        if failures:
            raise typer.Exit(2 if isinstance(failures[0], ConfigError) else 1)


def _poll_beside_daemon(settings: Settings, names: list[str]) -> None:
    control = Control.read(settings.data_dir)
    database = bootstrap.open_store(settings)
    try:
        for name in names:
            with database.read() as session:
                row = watches.load_watch(session, name=name)
                recent = [] if row is None else polls.load_recent_polls(session, watch_id=row.id, limit=1)
            last_id = recent[0].id if recent else 0
            control.request_poll(name)
            ends_s = time.monotonic() + _POLL_WAIT_S
            while True:
                with database.read() as session:
                    row = watches.load_watch(session, name=name)
                    recent = [] if row is None else polls.load_recent_polls(session, watch_id=row.id, limit=1)
                if recent and recent[0].id > last_id and recent[0].state is not PollState.LISTING:
                    done = recent[0]
                    break
                if time.monotonic() > ends_s:
                    raise DeadlineExceededError(
                        f"the daemon did not finish a poll of {name} within {_POLL_WAIT_S:.0f} s"
                    )
                time.sleep(0.1)
            if done.state is PollState.FAILED:
                raise WatcherError(f"{name}: {done.error}")
            _out.print(
                f"{name}: {done.n_listed} listed, {done.n_new} new, mark {done.to_s} (by the daemon)",
                markup=False,
            )
    finally:
        database.close()


@app.command()
def status(*, as_json: JsonOption = False) -> None:
    """Watches, marks, lag, batches and their steps, failures."""
    with _reporting():
        settings = _load(quiet=True)
        database = bootstrap.open_existing_store(settings)
        try:
            overview = load_overview(database, now_ms=int(time.time() * 1000))
        finally:
            database.close()
        if as_json:
            sys.stdout.write(msgspec.json.encode(overview).decode() + "\n")
        else:
            print_overview(_out, overview)


@app.command()
def why(
    file: Annotated[str, typer.Argument(help="File name in the datasource, or its end after a slash.")],
    *,
    watch: Annotated[str | None, typer.Option("--watch", "-w", help="Only this watch.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The whole life of one file: listing, window, batch, steps, picks, deliveries."""
    with _reporting():
        settings = _load(quiet=True)
        database = bootstrap.open_existing_store(settings)
        try:
            lives = load_lives(database, file_name=file, watch=watch)
        finally:
            database.close()
        if as_json:
            sys.stdout.write(msgspec.json.encode(lives).decode() + "\n")
        else:
            print_lives(_out, lives)
        if not lives:
            raise ConfigError(
                f"no watch has ever listed {file!r}: is it in the watched folder or bucket, and has a poll run since? "
                "`watcher status` tells the marks"
            )


@app.command()
def migrate() -> None:
    """Bring the schemas of the store and the embedded platform up; harmless if they are."""
    with _reporting():
        for line in bootstrap.migrate(_load(quiet=True)):
            _out.print(line)


@app.command("check-config")
def check_config(
    *,
    show_all: Annotated[bool, typer.Option("--all", help="Every variable, its default and meaning.")] = False,
) -> None:
    """The settings as understood, secrets masked; exit code 2 if something is wrong."""
    with _reporting():
        if show_all:
            print_variables(_out, Settings)
            return
        settings = _load(quiet=True)
        configs = settings.build_watch_configs()
        print_settings(_out, settings, configs, os.environ)


@app.command()
def platform(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The platform's database, keys and uploads.")] = None,
    token: Annotated[
        str | None, typer.Option(help="Token to ask for; better set by variable or file.")
    ] = None,
    datasource_root: Annotated[Path | None, typer.Option(help="Folder below which datasources lie.")] = None,
    migrate_only: Annotated[bool, typer.Option("--migrate", help="Bring the schema up and end.")] = False,
) -> None:
    """Run the self-hosted platform alone."""
    with _reporting():
        settings = _load()
        asked = _watch_signals()
        config = bootstrap.build_platform_config(
            settings, host=host, port=port, data_dir=data_dir, token=token, datasource_root=datasource_root
        )
        if migrate_only:
            _out.print(f"platform: version {bootstrap.migrate_platform(config)}")
            return
        server = PlatformServer(config, clock=SystemClock())
        server.start()
        _out.print(f"Platform {__version__} at {server.url}", markup=False)
        _out.print(f"  datasources below  {config.datasource_root}", markup=False)
        _out.print(f"  data               {config.data_dir}", markup=False)
        if token is None and settings.platform.token is None:
            _out.print(f"  token              in {config.data_dir / 'token'}", markup=False)
        _wait(asked)
        server.stop(timeout_s=settings.drain_timeout_s)


@app.command()
def demo(
    *,
    seconds: Annotated[float, typer.Option(help="How long frames arrive.", min=1, max=86_400)] = 60.0,
    rate: Annotated[float, typer.Option(help="Frames a second.", min=0.1, max=100)] = 3.0,
    seed: Annotated[int, typer.Option(help="Same seed, same frames.")] = 1,
    watch: Annotated[str | None, typer.Option("--watch", "-w", help="Into the folder of this watch.")] = None,
) -> None:
    """Let camera frames arrive in the watched folder, beside a running daemon."""
    from watcher.demo import run_demo  # noqa: PLC0415 - no other command draws pictures

    with _reporting():
        settings = _load(quiet=True)
        asked = _watch_signals()
        configs = {config.name: config for config in settings.build_watch_configs()}
        chosen = next(iter(configs.values())) if watch is None else configs.get(watch)
        if chosen is None:
            raise ConfigError(f"there is no watch {watch!r}; configured are: {', '.join(configs)}")
        if chosen.folder is None:
            raise ConfigError(
                "the demo writes into a watched folder, but this watch belongs to another server"
            )
        folder = settings.data_dir / chosen.folder
        folder.mkdir(parents=True, exist_ok=True)
        report = run_demo(
            folder,
            seconds=seconds,
            rate_per_s=rate,
            seed=seed,
            stop=asked,
            say=lambda line: _out.print(line, markup=False),
        )
        special = {
            "late": report.late,
            "half-written for a while": report.half_written,
            "broken": report.broken,
            "no picture at all": report.not_pictures,
        }
        told = ", ".join(f"{len(names)} {what}" for what, names in special.items())
        _out.print(f"{len(report.frames)} frames ({report.n_bytes / 1e6:.1f} MB): {told}", markup=False)
        for what, names in special.items():
            for name in names:
                _out.print(f"  {what}: watcher why {name}", markup=False)
