"""One schedule: a storm in which everything goes wrong that can, then calm, then the reckoning.

With `n_replicas` above one the store is shared by as many daemons, of which one leads at a time: they die, are stopped,
and are frozen for longer than their lease, so that an old leader wakes up beside the new one.
"""

from __future__ import annotations

import random
import traceback
from collections import deque
from collections.abc import MutableMapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import structlog

from tests.simulation.daemon import Daemon
from tests.simulation.invariants import Ledger, StepChecks
from tests.simulation.loop import Crash, Loop, Process, SimClock
from tests.simulation.network import Network
from tests.simulation.objects import N_PICTURES, Datasource, Version, draw_picture
from tests.simulation.profile import draw_profile
from tests.simulation.replica import LEASE_S, Replica
from tests.simulation.server import Server
from tests.simulation.stand_ins import SimDatabase, open_engine, threads_replaced
from watcher.domain.errors import CancelledError, FencedError, StoreError, StoreLockedError, WatcherError
from watcher.metrics import Metrics
from watcher.store import control, watches

_KEPT_TRACE = 4000
_CALM_LIMIT_S = 40_000.0


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, folder: Path, store_url: str, *, n_replicas: int = 1) -> None:
        self.profile = draw_profile(seed)
        self.folder = folder
        self.store_url = store_url
        self.n_replicas = n_replicas
        if n_replicas > 1:
            # Who is frozen between its look-up and its request cannot look up again.
            self.profile.knows_names = True
        self.trace: deque[str] = deque(maxlen=_KEPT_TRACE)
        self.violations: list[str] = []
        self.calm = False
        self.n_crashes = 0
        self.n_frozen_leaders = 0
        self.loop = Loop(self.profile.build_rng("order"))
        self.server = Server(self.profile, now=lambda: self.loop.now)
        self.network = Network(
            self.loop,
            self.server,
            self.profile.build_rng("network"),
            fault_rate=self.profile.fault_rate,
            crash_rate=self.profile.crash_rate / 4,
            note=self.note,
        )
        self.offsets: list[tuple[float, float]] = [(0.0, self.server.clock_offset_s)]
        self.daemons: list[Daemon | None] = [None] * n_replicas
        self._n_daemons = self._n_passed = 0
        self._local_offset_s = 0.0
        self._crash_rng = self.profile.build_rng("crashes")
        self._store_rng = self.profile.build_rng("store")
        self._idle_rng = self.profile.build_rng("idle")
        self._metrics = Metrics()
        self._surroundings = Process("world")
        for name in ("work", "selected"):
            (folder / name).mkdir()
        for config in self.profile.configs:
            self.server.datasources[config.dataset] = Datasource()
            self._metrics.init_watch(config.name, steps=config.steps)
            if config.folder is None:
                self.server.add_dataset(config.dataset)
        self.steps = StepChecks(self)

    @property
    def n_fenced_writes(self) -> float:
        """How many writes were refused because their process no longer led."""
        return sum(metric.samples[0].value for metric in self._metrics.fenced_writes.collect())

    @property
    def leader(self) -> Daemon | None:
        """The daemon that polls; None between two."""
        return next((each for each in self.daemons if each is not None and each.leads), None)

    def note(self, text: str) -> None:
        self.trace.append(f"{self.loop.now:10.2f}  {text}")

    def find_max_server_s(self, at: float) -> float:
        """The latest time that the server's clock had shown until the true time `at`."""
        shown = []
        for number, (since, offset_s) in enumerate(self.offsets):
            if since > at:
                break
            until = self.offsets[number + 1][0] if number + 1 < len(self.offsets) else at
            shown.append(min(until, at) + offset_s)
        return self.profile.epoch_s + max(shown)

    def run(self) -> None:
        """The whole schedule; what is wrong is in `violations`."""
        structlog.configure(processors=[self._note_event], logger_factory=structlog.ReturnLoggerFactory())
        try:
            with (
                threads_replaced(self.loop, self._pass_point, epoch_s=self.profile.epoch_s),
                closing(self.steps),
                closing(Ledger(self)) as ledger,
            ):
                try:
                    self._storm()
                    self._calm_down(ledger)
                except Exception:  # noqa: BLE001 - told with the seed, like everything that must not be
                    self.violations.append(traceback.format_exc())
        finally:
            structlog.reset_defaults()
            for daemon in self.daemons:
                if daemon is not None:
                    daemon.drop()
            self.loop.kill(self._surroundings)

    def _storm(self) -> None:
        for number in range(self.n_replicas):
            self.loop.spawn(
                self._surroundings, f"supervisor {number}", lambda number=number: self._supervise(number)
            )
        for name, target in (
            ("producer", self._produce),
            ("weather", self._change_clocks),
            ("operator", self._operate),
        ):
            self.loop.spawn(self._surroundings, name, target)
        self.loop.run(until=lambda: bool(self.violations), limit_s=self.profile.storm_s)

    def _calm_down(self, ledger: Ledger) -> None:
        self.calm = self.server.calm = True
        self.network.fault_rate = self.network.crash_rate = 0.0
        if self.violations:
            return
        self.note("it is calm now")
        self.profile.reconciles = False
        for daemon in self.daemons:
            if daemon is not None:
                daemon.reconciles = False
        rested = self._rest(ledger)
        for config in self.profile.configs:
            self._command(config.name, "resume")
        rested = rested and self._rest(ledger)
        if rested:
            ledger.check_polls_alone()
            self._reconcile()
            rested = self._rest(ledger)
        if rested:
            ledger.check_blame()
            for config in self.profile.configs:
                self._command(config.name, "replay")
            rested = self._rest(ledger)
        if not rested:
            self.violations.append(f"no rest: {ledger.explain_unrest()}")
        if self.violations:
            return
        ledger.check_end()
        before = ledger.take_snapshot()
        for config in self.profile.configs:
            self._command(config.name, "rewind", to_s=0)
        self._reconcile()
        self._rest(ledger)
        if ledger.take_snapshot() != before:
            self.violations.append(f"listing all again changed {before} to {ledger.take_snapshot()}")

    def _rest(self, ledger: Ledger) -> bool:
        """Lets time pass until nothing is left to do."""
        looked_at = -1

        def is_over() -> bool:
            nonlocal looked_at
            # The store changes nowhere but before a crash point.
            if self.violations or looked_at == self._n_passed:
                return bool(self.violations)
            looked_at = self._n_passed
            return ledger.is_at_rest()

        return self.loop.run(until=is_over, limit_s=_CALM_LIMIT_S) and not self.violations

    def _reconcile(self) -> None:
        """By whoever leads; one that no longer does without knowing it yet is refused, and the next one is asked."""
        ended: list[bool] = []
        while not (ended and ended[-1]):
            self.loop.run(until=lambda: self.leader is not None, limit_s=_CALM_LIMIT_S)
            daemon = self.leader
            assert daemon is not None
            ended.clear()
            self.loop.spawn(
                daemon.process,
                "final reconcile",
                lambda daemon=daemon: ended.append(self._reconcile_all(daemon)),
            )
            # One that was told to end just before the calm takes its comparison along.
            until = lambda daemon=daemon: bool(ended) or daemon.process.dead  # noqa: E731 - of this daemon
            assert self.loop.run(until=until, limit_s=_CALM_LIMIT_S), "a comparison that never ends"

    def _reconcile_all(self, daemon: Daemon) -> bool:
        try:
            for config in self.profile.configs:
                daemon.reconcile(config)
        except (CancelledError, FencedError) as error:
            self.note(f"not reconciled: {error}")
            self.loop.sleep(1.0)
            return False
        return True

    # What happens to the processes.

    def _pass_point(self, name: str) -> None:
        task = self.loop.current
        self.note(f"{'-' if task is None else task.name} passes {name}")
        self._n_passed += 1
        self.steps.check(name)
        if not self.calm and self._crash_rng.random() < self.profile.crash_rate:
            self.note(f"KILLED at {name}")
            raise Crash
        self.loop.sleep(0.0)

    def _build_daemon(self) -> Daemon:
        self._n_daemons += 1
        return (Daemon if self.n_replicas == 1 else Replica)(
            self.loop,
            self.profile,
            self.network,
            number=self._n_daemons,
            folder=self.folder,
            store_url=self.store_url,
            metrics=self._metrics,
            clock_offset_s=self._local_offset_s,
            note=self.note,
            store_fails=self._draw_store_failure,
            idle_s=lambda: self._idle_rng.uniform(2.0, 120.0 if self.calm else self.profile.storm_s / 8),
        )

    def _draw_store_failure(self) -> str:
        if self.calm or self._store_rng.random() >= self.profile.store_fault_rate:
            return ""
        return self._store_rng.choice(("start", "commit", "lost"))

    def _supervise(self, number: int) -> None:
        """Starts a daemon, starts it again when it died, stops it now and then.

        A single one has another tried beside it; one of several is frozen now and then.
        """
        rng = self.profile.build_rng("supervisor" if number == 0 else f"supervisor {number}")
        while True:
            daemon = self.daemons[number] = self._build_daemon()
            daemon.start()
            stops_at = self.loop.now + rng.choice((40.0, 100.0, 10_000.0))
            while not daemon.process.dead and (self.calm or self.loop.now < stops_at):
                self.loop.sleep(2.0)
                if not self.calm and self.n_replicas == 1 and rng.random() < 0.02:
                    self._try_second()
                if not self.calm and self.n_replicas > 1 and rng.random() < 0.05:
                    self._freeze(daemon, rng.choice((4.0, 20.0, 70.0)))
            if daemon.process.dead:
                self.n_crashes += 1
            else:
                self.note(f"SIGTERM to {daemon.process.name}")
                daemon.shut_down()
                ends = self.loop.now + 30.0
                while not daemon.is_down and self.loop.now < ends:
                    self.loop.sleep(1.0)
            daemon.drop()
            self.loop.sleep(0.0 if self.calm else rng.choice((0.5, 20.0)))

    def _freeze(self, daemon: Daemon, seconds: float) -> None:
        self.note(f"{daemon.process.name} is frozen for {seconds:g} s")
        self.n_frozen_leaders += daemon.leads and seconds > LEASE_S
        daemon.process.frozen_until = self.loop.now + seconds

    def _try_second(self) -> None:
        second = self._build_daemon()
        try:
            second.start()
        except StoreLockedError:
            return
        self.violations.append("two daemons hold one store")

    # What happens around them.

    def _produce(self) -> None:
        rng = self.profile.build_rng("producer")
        pause_s = self.profile.storm_s / self.profile.n_objects
        for number in range(self.profile.n_objects):
            config = rng.choice(self.profile.configs)
            datasource = self.server.datasources[config.dataset]
            self._put(
                rng, datasource, config.poll.overlap_s, f"a b+%:ü/{rng.randrange(100):02d},{number}.jpg"
            )
            self._replace_or_delete(rng, datasource)
            self.loop.sleep(rng.uniform(0.0, 2 * pause_s) * rng.choice((0.0, 1.0)))

    def _put(self, rng: random.Random, datasource: Datasource, overlap_s: int, name: str) -> None:
        now_s = int(self.server.now_s())
        delay_s = rng.choice((0.0, 0.0, 0.5, 3.0, overlap_s / 2))
        lateness_s = rng.choice((0, 0, 0, 1, -2, -60, overlap_s // 2, overlap_s * 3, 400_000))
        modified_s = max(0, now_s - lateness_s)
        stamps = [each.modified_s for stored in datasource.objects.values() for each in stored.versions]
        if stamps and rng.random() < 0.2:
            modified_s = rng.choice(stamps)  # the same second again
        picture = draw_picture(rng.randrange(N_PICTURES))
        kind = rng.choice(("sound",) * 8 + ("text", "empty", "half"))
        body = {"sound": picture, "text": b"no picture", "empty": b"", "half": picture[: len(picture) // 2]}[
            kind
        ]
        visible_at = self.loop.now + delay_s
        datasource.put(name, Version(modified_s, visible_at, body, is_sound=kind == "sound"))
        self.note(f"object {name!r} ({kind}), modified {modified_s - now_s:+d} s, visible in {delay_s:g} s")
        if kind == "half":
            whole_in_s = rng.choice((3.0, 30.0, 500.0))
            version = Version(now_s + int(whole_in_s), self.loop.now + max(delay_s, whole_in_s), picture)
            datasource.put(name, version)

    def _replace_or_delete(self, rng: random.Random, datasource: Datasource) -> None:
        stored = rng.choice([*datasource.objects.values()])
        if stored.deleted_at is not None or stored.versions[-1].visible_at > self.loop.now:
            return
        if rng.random() < 0.05:
            stored.deleted_at = self.loop.now + rng.choice((0.0, 20.0))
            self.note(f"object {stored.name!r} is deleted at {stored.deleted_at:.2f}")
        elif rng.random() < 0.05:
            body = draw_picture(rng.randrange(N_PICTURES))
            stored.versions.append(Version(int(self.server.now_s()), self.loop.now, body))
            self.note(f"object {stored.name!r} is written again")

    def _change_clocks(self) -> None:
        rng = self.profile.build_rng("weather")
        while not self.calm:
            self.loop.sleep(rng.uniform(5.0, 40.0))
            if self.calm or rng.random() >= self.profile.jump_rate:
                continue
            jump_s = rng.choice((-90.0, -5.0, -1.0, 1.0, 5.0, 90.0))
            if rng.random() < 0.5:
                self.server.clock_offset_s += jump_s
                self.offsets.append((self.loop.now, self.server.clock_offset_s))
                self.note(f"the server's clock jumps by {jump_s:+g} s")
            else:
                self._local_offset_s += jump_s
                for daemon in self.daemons:
                    if daemon is not None:
                        daemon.process.clock_offset_s = self._local_offset_s
                self.note(f"our clock jumps by {jump_s:+g} s")

    def _operate(self) -> None:
        rng = self.profile.build_rng("operator")
        while not self.calm:
            self.loop.sleep(rng.uniform(10.0, 60.0))
            if not self.calm and rng.random() < self.profile.operator_rate:
                verb = rng.choice(("pause", "resume", "resume", "rewind", "replay"))
                self._command(rng.choice(self.profile.configs).name, verb, back_s=rng.choice((1, 100, 10**7)))

    def _command(self, name: str, verb: str, *, back_s: int = 0, to_s: int | None = None) -> None:
        """A person's command, written into the store as `watcher pause` and the like do."""
        engine = open_engine(self.store_url, pool_size=1)
        database = SimDatabase(engine, self.loop, self._surroundings, lambda: "")
        clock = SimClock(self.loop, self._surroundings, self.profile.epoch_s)
        try:
            with suppress(StoreError), database.write() as session:
                watch = watches.load_watch(session, name=name)
                if watch is None:
                    return
                facts: dict[str, Any] = {"watch": watch, "actor": "sim", "now_ms": int(clock.now_s() * 1000)}
                if verb == "rewind":
                    facts["to_s"] = max(0, (watch.mark_s or 0) - back_s) if to_s is None else to_s
                    self.steps.allow_rewind(name)
                getattr(control, verb)(session, **facts)
                self.note(f"command {verb} {name}")
        except WatcherError as error:
            self.note(f"command {verb} {name}: {error}")
        finally:
            engine.dispose()

    def _note_event(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
        kept = {key: value for key, value in event.items() if key not in ("event", "exc_info", "component")}
        if event["event"] == "run.crashed":
            self.violations.append(f"an error nobody foresaw: {traceback.format_exc()}")
        self.note(f"log {event['event']} {kept}")
        return ""
