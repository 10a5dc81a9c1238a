"""Runs seeds: `python -m tests.simulation.run SEED...`, `--from A --count N`, or `--minutes M`; exit code 1 if one fails.

A seed is a number, for one daemon, or `pair-` and a number for two that share a store.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path

from tests.builders import open_store
from tests.fast_folder import find_fast_folder
from tests.simulation.world import World

SEEDS_FILE = Path(__file__).with_name("seeds.txt")
_SHOWN_TRACE = 150
_PAIR = "pair-"


@dataclass(frozen=True)
class Seed:
    """What a schedule is drawn from."""

    number: int
    is_pair: bool = False

    @classmethod
    def read(cls, text: str) -> Seed:
        return cls(int(text.removeprefix(_PAIR)), is_pair=text.startswith(_PAIR))

    def __str__(self) -> str:
        return f"{_PAIR}{self.number}" if self.is_pair else str(self.number)


@dataclass
class Verdict:
    """What became of a seed; `trace` is the end of what happened."""

    seed: Seed
    violations: list[str]
    trace: list[str]
    n_crashes: int
    n_frozen_leaders: int
    n_fenced_writes: float

    def explain(self) -> str:
        """Everything a person needs to repeat it."""
        return "\n".join(
            [
                *self.trace,
                f"seed {self.seed} fails:",
                *(f"  {violation}" for violation in self.violations),
                f"repeat it: python -m tests.simulation.run {self.seed}",
                f"once it is mended, add it to {SEEDS_FILE.name}",
            ]
        )


def make_migrated_file(folder: Path) -> Path:
    """An empty store with its tables, to be copied for each seed."""
    path = folder / "migrated.sqlite"
    with open_store(f"sqlite:///{path}"):
        pass
    return path


def run_seed(
    seed: Seed, migrated_file: Path, *, store_url: str | None = None, shown: int = _SHOWN_TRACE
) -> Verdict:
    """One schedule from its beginning to its end, over a copy of `migrated_file` or the empty store at `store_url`."""
    with tempfile.TemporaryDirectory(prefix=f"sim-{seed}-") as folder:
        if store_url is None:
            path = Path(folder, "store.sqlite")
            shutil.copyfile(migrated_file, path)
            store_url = f"sqlite:///{path}"
        world = World(seed.number, Path(folder), store_url, n_replicas=2 if seed.is_pair else 1)
        world.run()
    return Verdict(
        seed,
        world.violations,
        list(world.trace)[-shown:] if shown else [],
        world.n_crashes,
        world.n_frozen_leaders,
        world.n_fenced_writes,
    )


def read_seeds() -> list[Seed]:
    """The seeds that once failed."""
    lines = SEEDS_FILE.read_text(encoding="utf-8").splitlines()
    return [Seed.read(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def iter_verdicts(
    seeds: Iterable[Seed], migrated_file: Path, *, n_processes: int, shown: int
) -> Iterator[Verdict]:
    """Runs seeds in so many processes at once; verdicts come in the order of the seeds, a few are in memory."""
    context = multiprocessing.get_context("fork")  # the parent has no threads, and all is imported already
    run = partial(run_seed, migrated_file=migrated_file, shown=shown)
    with ProcessPoolExecutor(n_processes, mp_context=context, initializer=_relax_collector) as pool:
        running: deque[Future[Verdict]] = deque()
        try:
            for seed in seeds:
                running.append(pool.submit(run, seed))
                if len(running) > 2 * n_processes:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _relax_collector() -> None:
    """What was imported is for ever, so that the collector need not look through it a hundred times a schedule."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def main() -> int:
    """Prints what fails with its trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="*", type=Seed.read)
    parser.add_argument("--pairs", action="store_true", help="two daemons a store; without seeds")
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--trace", type=int, default=_SHOWN_TRACE)
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    # A long run draws both kinds in turn.
    kinds = (True,) if options.pairs else (False, True) if options.minutes else (False,)
    numbers = range(options.first, options.first + (options.count or 10**9))
    seeds = options.seeds or (Seed(number, is_pair=is_pair) for number in numbers for is_pair in kinds)
    begun_s = time.monotonic()
    n_run = n_failed = n_crashes = n_frozen = n_fenced = 0
    tempfile.tempdir = find_fast_folder()
    with tempfile.TemporaryDirectory(prefix="sim-") as folder:
        migrated_file = make_migrated_file(Path(folder))
        in_time = takewhile(
            lambda _: not options.minutes or time.monotonic() - begun_s < 60 * options.minutes, seeds
        )
        verdicts = iter_verdicts(in_time, migrated_file, n_processes=options.processes, shown=options.trace)
        for verdict in verdicts:
            n_run += 1
            n_crashes += verdict.n_crashes
            n_frozen += verdict.n_frozen_leaders
            n_fenced += int(verdict.n_fenced_writes)
            if verdict.violations:
                n_failed += 1
                sys.stdout.write(verdict.explain() + "\n")
                if not options.keep_going:
                    break
    seconds = time.monotonic() - begun_s
    sys.stdout.write(
        f"{n_run} schedules, {n_crashes} crashes, {n_frozen} frozen leaders, {n_fenced} writes fenced, "
        f"{n_failed} failed, {seconds:.1f} s\n"
    )
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
