"""Vectors from a program of the user's, which is fed paths of pictures; `docs/pipeline.md` tells the protocol."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from watcher.domain.clock import Clock
from watcher.domain.errors import CommandError, EmbedderAnswerError, EmbedderUnavailableError
from watcher.domain.step_rules import EmbedRules
from watcher.embedders.answered import check_vector
from watcher.embedders.descriptor_facts import compute_grey_suffix
from watcher.embedders.shrinking import shrink_picture
from watcher.images import ImageLimits
from watcher.line_process import LineProcess
from watcher.work_folders import open_work_folder

if TYPE_CHECKING:
    from watcher.embedders.base import Vectors


class CommandEmbedder:
    """One process, started at the first use and kept; after any fault it is ended, and the next call starts another."""

    def __init__(self, rules: EmbedRules, *, limits: ImageLimits, work_dir: Path, clock: Clock) -> None:
        assert rules.dim is not None
        self._rules = rules
        self._limits = limits
        self._work_dir = work_dir
        self._clock = clock
        self._lock = threading.Lock()
        self._process: LineProcess | None = None
        self._n_asked = 0
        self._what = f"the embedding command {rules.command[0]!r}"
        self.name = f"command-{rules.version}{compute_grey_suffix(limits.grey_bits)}"
        self.dim = rules.dim
        self.batch_size = rules.batch_size

    def prepare(self, content: bytes) -> bytes:
        """The file that the command will read; see `shrink_picture`."""
        return shrink_picture(content, side_px=self._rules.send_px, limits=self._limits)

    def embed_prepared(self, prepared: Sequence[bytes]) -> Vectors:
        """Vectors of shape (len(prepared), dim); NaN where the command answered an error for the picture.

        Raises:
            EmbedderUnavailableError: it hangs, ended, or failed half-way: a new process may do better.
            EmbedderAnswerError: it answers rubbish.
            ConfigError: it cannot be started.
        """
        vectors = np.full((len(prepared), self.dim), np.nan, dtype=np.float32)
        with self._lock, open_work_folder(self._work_dir, prefix="embed-") as folder:
            for start in range(0, len(prepared), self.batch_size):
                part = prepared[start : start + self.batch_size]
                vectors[start : start + len(part)] = self._ask(folder, part)
        return vectors

    def _ask(self, folder: Path, part: Sequence[bytes]) -> Vectors:
        lines = []
        # No number is given twice, so that an answer that comes late or again is not taken for that of another picture.
        first = self._n_asked
        self._n_asked += len(part)
        for number, body in enumerate(part):
            path = folder / f"{number}{'.jpg' if self._rules.send_px else ''}"
            path.write_bytes(body)
            lines.append(msgspec.json.encode({"id": first + number, "path": str(path.absolute())}))
        if self._process is None:
            self._process = LineProcess(self._rules.command, what=self._what, clock=self._clock)
        try:
            answers = self._process.exchange(
                lines, n_answers=len(part), time_limit_s=self._rules.time_limit_s, check=lambda: None
            )
            return self._read(answers, first, len(part))
        except CommandError as error:
            self.close_process()
            raise EmbedderUnavailableError(str(error)) from error
        except EmbedderAnswerError:
            # What it still has to say belongs to no question any more.
            self.close_process()
            raise

    def _read(self, answers: Sequence[bytes], first: int, n: int) -> Vectors:
        vectors = np.full((n, self.dim), np.nan, dtype=np.float32)
        seen: set[int] = set()
        for line in answers:
            try:
                answer: Any = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                answer = None
            number = answer.get("id") if isinstance(answer, dict) else None
            if (
                not isinstance(number, int)
                or isinstance(number, bool)
                or not first <= number < first + n
                or number in seen
            ):
                shown = line[:100].decode("utf-8", "replace")
                raise EmbedderAnswerError(
                    f"{self._what} printed {shown!r}, which answers no question: a line an answer, "
                    '{"id": ..., "vector": [...]}, and everything else to the standard error'
                )
            seen.add(number)
            if "error" not in answer:
                vectors[number - first] = check_vector(answer.get("vector"), dim=self.dim, what=self._what)
        return vectors

    def close_process(self) -> None:
        """Ends the process and all it started."""
        if self._process is not None:
            self._process.close()
            self._process = None
