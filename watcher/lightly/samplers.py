"""What to sample: `SamplerConfig` and `SamplingMethod`, as in `lightly`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from watcher.domain.errors import DatasetError
from watcher.lightly.wire.samplings import SamplingConfig, StoppingCondition


class SamplingMethod(StrEnum):
    """Ways to pick samples; the last two need scores at the query tag."""

    RANDOM = "RANDOM"
    CORESET = "CORESET"
    CORAL = "CORAL"
    ACTIVE_LEARNING = "ACTIVE_LEARNING"


@dataclass
class SamplerConfig:
    """A sampling.

    Attributes:
        method: how to pick.
        n_samples: when to stop: a count that includes the preselected samples, or below 1 a share of all; -1: no
            limit.
        min_distance: when to stop: before two picks would be closer than this; -1: no limit.
        name: of the new tag; by default made of the three above and the local time.
    """

    method: SamplingMethod = SamplingMethod.CORESET
    n_samples: float = 32
    min_distance: float = -1
    name: str | None = None

    def __post_init__(self) -> None:
        try:
            self.method = SamplingMethod(self.method)
        except ValueError:
            choices = ", ".join(SamplingMethod)
            raise DatasetError(
                f"unknown sampling method {self.method!r}: it must be one of {choices}"
            ) from None
        if self.name is None:
            now = datetime.now().astimezone()
            self.name = f"{self.method}_{self.n_samples}_{self.min_distance}_{now:%m_%d_%Y__%H_%M_%S}"

    def build_wire_config(self) -> SamplingConfig:
        """The conditions as the protocol writes them."""
        return SamplingConfig(
            stopping_condition=StoppingCondition(n_samples=self.n_samples, min_distance=self.min_distance)
        )
