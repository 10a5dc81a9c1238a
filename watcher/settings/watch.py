"""The settings of one watch, and what must fit among several."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec
from pydantic import BeforeValidator, Field

from watcher.domain.cron import build_cron_trigger
from watcher.domain.delivery import DeliverRules, ManifestFormat, ManifestRules
from watcher.domain.errors import ConfigError
from watcher.domain.models import BatchRules, SamplingRules, Step, WatchConfig
from watcher.domain.names import explain_bad_name
from watcher.domain.pipeline import order_steps
from watcher.domain.poll_rules import OverwritePolicy, PollRules
from watcher.domain.sampling_rules import NoveltyRules
from watcher.domain.step_rules import EmbedRules, MetadataRules, UploadMode, UploadRules
from watcher.lightly.wire.base import DatasetName
from watcher.scheduler import build_trigger
from watcher.settings.faults import Faults
from watcher.settings.groups import Group
from watcher.settings.sampling import NoveltySettings, SamplingSettings, find_sampling_faults
from watcher.settings.sinks import DeliverSettings
from watcher.settings.steps import EmbedSettings, MetadataSettings
from watcher.sinks.place import find_write_prefix

_POLL, _BATCH, _UPLOAD = PollRules(), BatchRules(), UploadRules()
_WATCH = WatchConfig(name="-", dataset="-")
WatchName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,62}$")]
DEFAULT_WATCH = "incoming"
_MOST_DATASET_CHARACTERS = 255
# Below the data directory, beside the watched folders: see `bootstrap`.
_OWN_FOLDERS = ("neighbours", "platform", "selected", "work")


class ScheduleSettings(Group):
    """When a watch is polled."""

    interval_s: float = Field(_WATCH.interval_s, ge=0.5, le=86400, description="seconds between polls")
    cron: str | None = Field(None, description="instead: minute hour day month weekday, UTC")
    jitter_s: float = Field(_WATCH.jitter_s, ge=0, le=3600, description="starts up to this much later")


class PollSettings(Group):
    """How a datasource is listed."""

    hold_back_s: int = Field(
        _POLL.hold_back_s, ge=0, le=3600, description="the window ends this long before now"
    )
    overlap_s: int = Field(
        _POLL.overlap_s,
        ge=0,
        le=604800,
        description="listed again before the mark; more if objects come late",
    )
    overlap_min_s: int | None = Field(
        None, ge=0, le=604800, description="shrinks to this while none comes late; default: overlap_s"
    )
    overlap_max_s: int = Field(
        _POLL.overlap_max_s, ge=0, le=2_592_000, description="grows to this at the most"
    )
    max_clock_error_s: int = Field(
        _POLL.max_clock_error_s,
        ge=60,
        le=31_536_000,
        description="a server's clock further from ours is not believed, and the poll waits",
    )
    overwritten: OverwritePolicy = Field(
        _POLL.overwritten, description="objects written again: ignore, again (processed again) or alert"
    )
    max_pages: int = Field(_POLL.max_pages, ge=1, description="a longer listing is an error")
    source_check_interval_s: float = Field(
        _POLL.source_check_interval_s,
        ge=0,
        le=31_536_000,
        description="a look for objects that polls passed over this often; 0: never",
    )
    reconcile_interval_s: float = Field(
        _POLL.reconcile_interval_s, ge=0, le=31_536_000, description="full comparison this often; 0: never"
    )


class BatchSettings(Group):
    """When waiting samples become a batch."""

    min_samples: int = Field(_BATCH.min_samples, ge=1, description="as soon as this many wait")
    max_wait_s: float = Field(
        _BATCH.max_wait_s, ge=0, le=604800, description="or the oldest has waited this long"
    )
    max_samples: int = Field(_BATCH.max_samples, ge=1, le=100_000, description="no batch is larger")
    max_bytes: int | None = Field(
        None, ge=1, description="nor holds more than about this; as soon as this much waits a batch is cut"
    )
    cron: str | None = Field(
        None, description="instead of MIN_SAMPLES and MAX_WAIT_S: minute hour day month weekday, UTC"
    )
    max_open: int = Field(_BATCH.max_open, ge=1, le=1000, description="no more batches at once")
    shard_samples: int = Field(
        _BATCH.shard_samples, ge=1, le=100_000, description="a larger batch is worked on in runs of this size"
    )
    max_running: int | None = Field(
        _BATCH.max_running, ge=1, le=10_000, description="no more runs of the watch at once, on all machines"
    )

    def check_cron(self, where: str) -> None:
        """Raises ConfigError if the cron line is none, or stands beside what it replaces."""
        if self.cron is None:
            return
        build_cron_trigger(self.cron)
        for name in sorted({"min_samples", "max_wait_s"} & self.model_fields_set):
            raise ConfigError(
                f"{where}CRON and {where}{name.upper()} are both set: with a cron line batches are cut at its times "
                "alone; unset one of them"
            )


class UploadSettings(Group):
    """What is uploaded of a sample."""

    mode: UploadMode = Field(_UPLOAD.mode, description="metadata, thumbnails or full")
    workers: int = Field(_UPLOAD.workers, ge=1, le=256, description="images in work at once")
    max_bytes: int = Field(_UPLOAD.max_bytes, ge=1, description="larger files are quarantined")
    max_pixels: int = Field(
        _UPLOAD.max_pixels, ge=1, le=178_956_970, description="larger pictures are quarantined"
    )
    grey_bits: int | None = Field(
        _UPLOAD.grey_bits,
        ge=8,
        le=16,
        description="bits that the cameras use in greys of 16 bits, such as 10; default: 12 or 16 by each frame",
    )
    settle_s: float = Field(
        _UPLOAD.settle_s, ge=0, le=86400, description="a truncated file is read again after this"
    )
    settle_attempts: int = Field(
        _UPLOAD.settle_attempts, ge=0, le=100, description="this often, then quarantined"
    )


def _split_steps(value: object) -> object:
    return [step.strip() for step in value.split(",") if step.strip()] if isinstance(value, str) else value


class WatchSettings(Group):
    """One watch."""

    dataset: str | None = Field(None, description="dataset on the server; default: the watch's name")
    folder: str | None = Field(
        None, description="embedded platform only: the folder below the data directory"
    )
    steps: Annotated[tuple[Step, ...], BeforeValidator(_split_steps)] = Field(
        _WATCH.steps, description="comma separated: upload, metadata, embed, sampling, deliver"
    )
    silent_after_s: float = Field(
        _WATCH.silent_after_s,
        ge=0,
        le=31_536_000,
        description="no new sample for this long is an alert; 0: never",
    )
    schedule: ScheduleSettings = ScheduleSettings()
    poll: PollSettings = PollSettings()
    batch: BatchSettings = BatchSettings()
    upload: UploadSettings = UploadSettings()
    metadata: MetadataSettings = MetadataSettings()
    embed: EmbedSettings = EmbedSettings()
    sampling: SamplingSettings = SamplingSettings()
    novelty: NoveltySettings = NoveltySettings()
    deliver: DeliverSettings = DeliverSettings()

    def build_config(self, name: str) -> WatchConfig:
        """The watch as the daemon takes it, checked as a whole.

        Raises:
            ConfigError: all that does not fit together, a line each.
        """
        faults = Faults()
        config = self.read_config(name, faults)
        faults.refuse()
        return config

    def read_config(self, name: str, faults: Faults) -> WatchConfig:
        """The watch with its defaults in the place of what is wrong, which is gathered."""
        where = f"WATCHER_WATCHES__{name.upper()}__"
        own = Faults(f"watch {name!r}: ")
        as_given = tuple(step for step in Step if step in self.steps)
        config = WatchConfig(
            name=name,
            dataset=self.dataset or name,
            folder=self.folder,
            silent_after_s=self.silent_after_s,
            steps=own.gather(lambda: order_steps(self.steps, method=self.sampling.method), as_given),
            interval_s=self.schedule.interval_s,
            cron=self.schedule.cron,
            jitter_s=self.schedule.jitter_s,
            poll=PollRules(**dict(self.poll)),
            batch=BatchRules(**dict(self.batch)),
            upload=UploadRules(**dict(self.upload)),
            metadata=own.gather(
                lambda: self.metadata.build_rules(f"{where}METADATA__", is_used=Step.METADATA in self.steps),
                MetadataRules(on_error=self.metadata.on_error),
            ),
            embed=EmbedRules()
            if Step.EMBED not in self.steps
            else own.gather(
                lambda: self.embed.build_rules(f"{where}EMBED__"), EmbedRules(kind=self.embed.kind)
            ),
            sampling=own.gather(
                lambda: self.sampling.build_rules(f"{where}SAMPLING__"),
                SamplingRules(method=self.sampling.method),
            ),
            novelty=NoveltyRules(**dict(self.novelty)),
            deliver=own.gather(
                lambda: self.deliver.build_rules(f"{where}DELIVER__", is_used=Step.DELIVER in self.steps),
                DeliverRules(sinks=()),
            ),
        )
        for fault in find_sampling_faults(config, self.sampling.scores):
            own.add(fault)
        own.gather(lambda: check_schedule(config), None)
        own.gather(lambda: self.batch.check_cron(f"{where}BATCH__"), None)
        least_s = self.poll.overlap_s if self.poll.overlap_min_s is None else self.poll.overlap_min_s
        if least_s > self.poll.overlap_max_s:
            own.add(
                f"the overlap would be at least {least_s} s and at most poll.overlap_max_s "
                f"{self.poll.overlap_max_s} s: raise the latter, or lower poll.overlap_min_s or poll.overlap_s"
            )
        if self.batch.cron is None and self.batch.min_samples > self.batch.max_samples:
            own.add(
                f"batch.min_samples {self.batch.min_samples} is above batch.max_samples {self.batch.max_samples}, so "
                "no batch would ever be full: lower the one or raise the other"
            )
        faults.texts += own.texts
        return config


def check_schedule(config: WatchConfig) -> None:
    """Raises ConfigError if the watch would never be polled."""
    build_trigger(config)


def find_shared_manifests(configs: list[WatchConfig], *, data_dir: Path) -> list[str]:
    """Manifests of one watch that would overwrite each other.

    Those of two watches never do: the name of a manifest begins with that of the watch.
    """
    problems = []
    for config in configs:
        seen: dict[tuple[str, ManifestFormat], str] = {}
        for sink in config.deliver.sinks:
            if not isinstance(sink.rules, ManifestRules):
                continue
            place = str(find_write_prefix(sink, data_dir=data_dir)), sink.rules.format
            if place in seen:
                problems.append(
                    f"watch {config.name!r}: the sinks {seen[place]!r} and {sink.name!r} write the same files "
                    f"({sink.rules.format} in {place[0]}): give one of them another location or format, or take it out"
                )
            seen[place] = sink.name
    return problems


def find_bad_outputs(configs: list[WatchConfig], *, data_dir: Path) -> list[str]:
    """Manifests that a watch would list as its input."""
    problems = []
    folders = {
        config.name: (data_dir / config.folder).resolve() for config in configs if config.folder is not None
    }
    for config in configs:
        for sink in config.deliver.sinks:
            prefix = find_write_prefix(sink, data_dir=data_dir)
            if prefix is None or "://" in prefix:
                continue
            problems += [
                f"watch {config.name!r}: the sink {sink.name!r} writes into {prefix}, which the watch {name!r} lists, "
                "so output would become input: set its location to another folder"
                for name, folder in folders.items()
                if folder == Path(prefix) or folder in Path(prefix).parents
            ]
    return problems


def find_twins(configs: list[WatchConfig]) -> list[str]:
    """A sentence for each dataset or folder that two watches name."""
    problems = []
    for field in ("dataset", "folder"):
        seen: dict[str, str] = {}
        for config in configs:
            value = getattr(config, field)
            if value is None:
                continue
            if value in seen:
                problems.append(
                    f"the watches {seen[value]!r} and {config.name!r} both name the {field} {value!r}"
                )
            seen[value] = config.name
    return problems


def find_bad_datasets(configs: list[WatchConfig]) -> list[str]:
    """Datasets that are to be made under names which the platform refuses."""
    problems = []
    for config in configs:
        try:
            msgspec.convert(config.dataset, DatasetName)
            is_good = len(config.dataset) <= _MOST_DATASET_CHARACTERS
        except msgspec.ValidationError:
            is_good = False
        if not is_good:
            problems.append(
                f"watch {config.name!r}: the platform makes no dataset of the name {config.dataset[:300]!r}: set "
                f"WATCHER_WATCHES__{config.name.upper()}__DATASET to 3 to {_MOST_DATASET_CHARACTERS} letters, digits, "
                "spaces, _ and - that begin with a letter or a digit"
            )
    return problems


def find_bad_folders(configs: list[WatchConfig]) -> list[str]:
    """Folders that would leave the data directory, see the daemon's own files, or lie in one another."""
    problems = []
    folders = {config.name: PurePosixPath(config.folder) for config in configs if config.folder is not None}
    for config in configs:
        path = folders.get(config.name)
        if path is None:
            continue
        start = f"watch {config.name!r}: the folder {config.folder!r}"
        if explain_bad_name(str(config.folder)) or str(path) != str(config.folder).strip():
            problems.append(f"{start} is no path below the data directory, such as incoming or cameras/gate")
        elif path.parts[0] in _OWN_FOLDERS:
            problems.append(
                f"{start} is where the daemon itself writes, so its output would become its input: set "
                f"WATCHER_WATCHES__{config.name.upper()}__FOLDER to another one"
            )
        problems += [
            f"{start} lies in {str(other)!r} of the watch {name!r}, so its images would be listed twice"
            for name, other in folders.items()
            if other in path.parents and other.parts
        ]
    return problems
