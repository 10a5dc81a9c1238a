"""The commands; the only place that prints."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from watcher import __version__, bootstrap
from watcher.bootstrap_jobs import check_files
from watcher.cli.frame import JsonOption, app, load, out, reporting
from watcher.cli.views import print_lives, print_overview, print_settings, print_variables
from watcher.daemon import Addresses, Daemon
from watcher.domain.delivery import LabelStudioRules, ManifestRules, WebhookRules
from watcher.domain.errors import ConfigError
from watcher.domain.models import Step, WatchConfig
from watcher.ops.changes import find_watch
from watcher.ops.life import load_lives
from watcher.ops.overview import load_overview
from watcher.settings.faults import Faults
from watcher.settings.root import Settings
from watcher.signals import wait_for_signal, watch_signals
from watcher.sinks.place import describe_place
from watcher.worker import Worker


@app.command()
def run() -> None:
    """Run the daemon; without LIGHTLY_TOKEN with the platform inside."""
    with reporting():
        settings = load()
        asked = watch_signals()
        drained = True
        while not asked.is_set():
            daemon = Daemon(settings)
            _print_addresses(settings, daemon.configs, daemon.start())
            wait_for_signal(asked, unless=lambda daemon=daemon: daemon.must_restart)  # type: ignore[misc] # mypy infers no default of a lambda
            out.print(
                "Draining; once more ends at once."
                if asked.is_set()
                else "The store was replaced; starting anew."
            )
            drained = daemon.stop()
        if not drained:
            out.print("Some work was still under way; it goes on at the next start.")
            sys.stdout.flush()
            os._exit(0)  # the interpreter would wait for the threads of that work


def list_places(data_dir: Path, configs: Iterable[WatchConfig]) -> list[str]:
    """Where the picks of all watches go: folders, buckets, and receivers by their hosts; each once."""

    def tell(rules: ManifestRules | WebhookRules | LabelStudioRules) -> str:
        if not isinstance(rules, ManifestRules):
            return describe_place(rules.url)
        return rules.location if rules.is_bucket else str(data_dir / rules.location)

    delivering = [config for config in configs if Step.DELIVER in config.steps]
    places = [tell(sink.rules) for config in delivering for sink in config.deliver.sinks]
    return list(dict.fromkeys(places))


def _print_addresses(settings: Settings, configs: list[WatchConfig], addresses: Addresses) -> None:
    lines = [f"Datasource Watcher {__version__}"]
    lines += [
        f"  drop images into  {settings.data_dir / config.folder}"
        for config in configs
        if config.folder is not None
    ]
    lines += [f"  picks appear in   {place}" for place in list_places(settings.data_dir, configs)]
    lines += [
        f"  status page       {addresses.http}/",
        f"  metrics           {addresses.probes}/metrics",
        f"  {'platform' if settings.is_embedded else 'server'}          {addresses.server}".replace(
            "server  ", "server    "
        ),
        "  Ctrl-C drains and ends; twice ends at once",
    ]
    for line in lines:
        out.print(line, markup=False)


@app.command()
def worker(
    *,
    concurrency: Annotated[int | None, typer.Option(help="Runs in work at once.", min=1, max=64)] = None,
    steps: Annotated[
        str | None, typer.Option(help="Only these steps, comma separated; default: all.")
    ] = None,
) -> None:
    """Take runs from the queue, on any machine; needs Postgres and WATCHER_DISPATCH=procrastinate."""
    with reporting():
        settings = load()
        asked = watch_signals()
        chosen = _parse_steps(steps)
        process = Worker(settings, steps=chosen, concurrency=concurrency or settings.worker.concurrency)
        url = process.start()
        out.print(f"Datasource Watcher {__version__}, worker for {', '.join(chosen)}", markup=False)
        out.print(f"  metrics           {url}/metrics", markup=False)
        out.print("  Ctrl-C drains and ends; twice ends at once", markup=False)
        wait_for_signal(asked)
        out.print("Draining; once more ends at once.")
        if not process.stop():
            out.print("Some work was still under way; it goes on elsewhere.")
            sys.stdout.flush()
            os._exit(0)  # the interpreter would wait for the threads of that work


def _parse_steps(text: str | None) -> tuple[Step, ...]:
    if text is None:
        return tuple(Step)
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in set(Step)]
    if unknown or not names:
        known = ", ".join(Step)
        raise ConfigError(
            f"--steps {text!r}: {', '.join(unknown) or 'nothing'} is no step; known are {known}"
        )
    return tuple(Step(name) for name in names)


@app.command()
def status(
    watch: Annotated[str | None, typer.Argument(help="Only this watch.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Watches, marks, lag, batches and their steps, failures."""
    with reporting():
        settings = load(quiet=True)
        database = bootstrap.open_existing_store(settings)
        try:
            overview = load_overview(database, now_ms=int(time.time() * 1000), only=watch)
            if watch is not None and watch not in overview.unreached:
                with database.read() as session:
                    find_watch(session, watch)
        finally:
            database.close()
        if as_json:
            sys.stdout.write(msgspec.json.encode(overview).decode() + "\n")
        else:
            print_overview(out, overview)


@app.command()
def why(
    file: Annotated[str, typer.Argument(help="File name in the datasource, or its end after a slash.")],
    *,
    watch: Annotated[str | None, typer.Option("--watch", "-w", help="Only this watch.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The whole life of one file: listing, window, batch, steps, picks, deliveries."""
    with reporting():
        settings = load(quiet=True)
        database = bootstrap.open_existing_store(settings)
        try:
            if watch is not None:
                with database.read() as session:
                    find_watch(session, watch)
            lives = load_lives(database, file_name=file, watch=watch)
        finally:
            database.close()
        if as_json:
            sys.stdout.write(msgspec.json.encode(lives).decode() + "\n")
        else:
            print_lives(out, lives)
        if not lives:
            raise ConfigError(
                f"no watch has ever listed {file!r}: is it in the watched folder or bucket, and has a poll run since? "
                "`watcher status` tells the marks"
            )


@app.command()
def migrate() -> None:
    """Bring the schemas of the store and the embedded platform up; harmless if they are."""
    with reporting():
        for line in bootstrap.migrate(load(quiet=True)):
            out.print(line)


@app.command("check-config")
def check_config(
    *,
    show_all: Annotated[bool, typer.Option("--all", help="Every variable, its default and meaning.")] = False,
) -> None:
    """The settings as understood, secrets masked; exit code 2 if something is wrong."""
    with reporting():
        if show_all:
            print_variables(out, Settings)
            return
        settings = load(quiet=True)
        faults = Faults()
        nothing: list[WatchConfig] = []
        configs = faults.gather(settings.build_watch_configs, nothing)
        for check in (bootstrap.check_dispatch, bootstrap.check_certificates):
            faults.gather(partial(check, settings), None)
        faults.gather(lambda: check_files(settings, configs), None)
        faults.refuse()
        print_settings(out, settings, configs, os.environ)


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

    with reporting():
        settings = load(quiet=True)
        asked = watch_signals()
        configs = {config.name: config for config in settings.build_watch_configs()}
        chosen = next(iter(configs.values())) if watch is None else configs.get(watch)
        if chosen is None:
            raise ConfigError(f"there is no watch {watch!r}; configured are: {', '.join(configs)}")
        if chosen.folder is None:
            raise ConfigError(
                f"the demo writes into a watched folder, but {chosen.name!r} belongs to another server: unset "
                "LIGHTLY_TOKEN, and the platform inside watches a folder"
            )
        folder = settings.data_dir / chosen.folder
        folder.mkdir(parents=True, exist_ok=True)
        report = run_demo(
            folder,
            seconds=seconds,
            rate_per_s=rate,
            seed=seed,
            stop=asked,
            say=lambda line: out.print(line, markup=False),
        )
        special = {
            "late": report.late,
            "half-written for a while": report.half_written,
            "broken": report.broken,
            "no picture at all": report.not_pictures,
        }
        told = ", ".join(f"{len(names)} {what}" for what, names in special.items())
        out.print(f"{len(report.frames)} frames ({report.n_bytes / 1e6:.1f} MB): {told}", markup=False)
        for what, names in special.items():
            for name in names:
                out.print(f"  {what}: watcher why {name}", markup=False)


from watcher.cli import (  # noqa: E402 - after these in `watcher --help`
    alerts,
    backup,
    control,
    dataset,
    health,
    plan,
    platform,
    reembed,
    statement,
    store,
)

__all__ = [
    "alerts",
    "app",
    "backup",
    "control",
    "dataset",
    "health",
    "plan",
    "platform",
    "reembed",
    "statement",
    "store",
]
