"""Vectors from an ONNX model file of the user's, by ONNX Runtime on the processor."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from watcher.domain.errors import ConfigError, EmbedderUnavailableError
from watcher.domain.step_rules import ChannelOrder, EmbedRules, PreprocessRules, ResizeMode
from watcher.embedders.descriptor_facts import compute_grey_suffix
from watcher.images import ImageLimits, read_image, turn_upright

if TYPE_CHECKING:
    from watcher.embedders.base import Vectors

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_MOST_DIM = 65_536


class OnnxEmbedder:
    """A model with one picture input of shape (n, 3, h, w) or (n, h, w, 3) and an output of shape (n, d).

    The name holds a hash of the model file and of everything that changes its input, so another file or another
    preprocessing is another embedder. Weights in files beside the model are not part of the hash.

    Raises:
        ConfigError: ONNX Runtime or the file is missing, or the model has another shape; the text names the setting.
        EmbedderUnavailableError: the model took longer than the limit for one picture.
    """

    def __init__(self, rules: EmbedRules, *, limits: ImageLimits, where: str) -> None:
        self._rules = rules
        self._limits = limits
        self._where = where
        assert rules.model is not None
        path = Path(rules.model)
        self._session = _open_session(path, rules, where)
        self._input = _choose(self._session.get_inputs(), rules.input_name, f"{where}INPUT_NAME", "input")
        self._output = _choose(
            self._session.get_outputs(), rules.output_name, f"{where}OUTPUT_NAME", "output"
        )
        self._type = _TYPES.get(self._input.type)
        if self._type is None:
            raise ConfigError(
                f"the input {self._input.name!r} of {path} takes {self._input.type}, not floating point numbers: "
                "export the model without the conversion"
            )
        self._channels_first, height, width = _read_shape(self._input, rules.preprocess, path, where)
        self._size = (width, height)
        fixed = self._input.shape[0]
        self._n_fixed = fixed if isinstance(fixed, int) else None
        self.batch_size = self._n_fixed or rules.batch_size
        of_file = _hash(path, rules, self._input.name, self._output.name, self._size)
        self.name = f"onnx-{of_file}{compute_grey_suffix(limits.grey_bits)}"
        self.dim = self._probe(path)

    def prepare(self, content: bytes) -> NDArray[np.uint8]:
        """The picture upright and in the size of the input, uint8 of shape (h, w, 3), RGB.

        Raises:
            ImageError: the file is no picture this program can read.
        """
        image = read_image(content, limits=self._limits, draft_px=max(self._size))
        view = turn_upright(image.view, image.orientation)
        return np.asarray(fit_picture(view, self._size, self._rules.preprocess.resize))

    def embed_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> Vectors:
        """Vectors of shape (len(prepared), dim); a row of NaN where the model gives no finite numbers.

        Raises:
            EmbedderUnavailableError: the model took longer than the limit, or failed.
        """
        rows = [
            self._run(prepared[start : start + self.batch_size])
            for start in range(0, len(prepared), self.batch_size)
        ]
        vectors = np.concatenate(rows) if rows else np.empty((0, self.dim), dtype=np.float32)
        vectors[~np.isfinite(vectors).all(axis=1)] = np.nan
        return vectors

    def _run(self, pictures: Sequence[NDArray[np.uint8]]) -> Vectors:
        values = normalise(np.stack(pictures), self._rules.preprocess)
        if self._n_fixed is not None and len(values) < self._n_fixed:
            values = np.concatenate(
                [values, np.zeros((self._n_fixed - len(values), *values.shape[1:]), values.dtype)]
            )
        if self._channels_first:
            values = values.transpose(0, 3, 1, 2)
        output = self._call(np.ascontiguousarray(values, dtype=self._type))
        return output.reshape(len(output), -1)[: len(pictures)].astype(np.float32)

    def _call(self, values: NDArray[Any]) -> NDArray[Any]:
        import onnxruntime  # noqa: PLC0415 - an extra

        options = onnxruntime.RunOptions()
        expired = threading.Event()

        def give_up() -> None:
            expired.set()
            options.terminate = True

        limit_s = self._rules.time_limit_s
        timer = threading.Timer(limit_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            output: NDArray[Any] = self._session.run(
                [self._output.name], {self._input.name: values}, run_options=options
            )[0]
        except Exception as error:
            # ONNX Runtime raises classes of its own that share no base but Exception.
            if expired.is_set():
                raise EmbedderUnavailableError(
                    f"the model {self._rules.model} took longer than {limit_s:g} s for {len(values)} pictures: raise "
                    f"{self._where}TIME_LIMIT_S, lower {self._where}BATCH_SIZE, or take a smaller model"
                ) from error
            raise EmbedderUnavailableError(
                f"the model {self._rules.model} failed: {str(error)[:500]}"
            ) from error
        finally:
            timer.cancel()
        return output

    def _probe(self, path: Path) -> int:
        """The length of the vectors, found with a black picture."""
        width, height = self._size
        values = normalise(
            np.zeros((self._n_fixed or 1, height, width, 3), dtype=np.uint8), self._rules.preprocess
        )
        if self._channels_first:
            values = values.transpose(0, 3, 1, 2)
        try:
            shape = self._call(np.ascontiguousarray(values, dtype=self._type)).shape
        except EmbedderUnavailableError as error:
            if "took longer" in str(error):
                raise
            raise ConfigError(
                f"the model {path} cannot be run on a picture of {width} x {height}: {error}; check "
                f"{self._where}WIDTH_PX and {self._where}HEIGHT_PX"
            ) from error
        n = len(values)
        if (
            len(shape) < 2
            or shape[0] != n
            or int(np.prod(shape[1:])) != max(shape[1:])
            or max(shape[1:]) > _MOST_DIM
        ):
            raise ConfigError(
                f"the output {self._output.name!r} of {path} has shape {tuple(shape)} for {n} picture(s), not "
                f"({n}, d): choose another one by {self._where}OUTPUT_NAME, or export the model with pooling"
            )
        return int(max(shape[1:]))


def fit_picture(view: Image.Image, size: tuple[int, int], mode: ResizeMode) -> Image.Image:
    """The picture in (width, height), bilinear with smoothing."""
    if mode is ResizeMode.STRETCH:
        return view.resize(size, Image.Resampling.BILINEAR)
    if mode is ResizeMode.PAD:
        return ImageOps.pad(view, size, Image.Resampling.BILINEAR)
    return ImageOps.fit(view, size, Image.Resampling.BILINEAR)


def normalise(pictures: NDArray[np.uint8], rules: PreprocessRules) -> NDArray[np.float32]:
    """uint8 RGB of shape (n, h, w, 3) to `(levels * scale - mean) / std`, float32, channels in the model's order."""
    values = pictures.astype(np.float32) * np.float32(rules.scale)
    if rules.channels is ChannelOrder.BGR:
        values = values[..., ::-1]
    mean, std = np.asarray(rules.mean, np.float32), np.asarray(rules.std, np.float32)
    return np.asarray((values - mean) / std, dtype=np.float32)


def _open_session(path: Path, rules: EmbedRules, where: str) -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "ONNX Runtime is not installed: install the extra by `pip install 'datasource-watcher[onnx]'`, or choose "
            f"another {where}KIND"
        ) from error
    if not path.is_file():
        raise ConfigError(f"there is no model file {path}: check {where}MODEL")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = rules.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # As above.
        raise ConfigError(f"{path} is no model that ONNX Runtime can load: {str(error)[:500]}") from error


def _choose(known: Sequence[Any], name: str | None, setting: str, kind: str) -> Any:
    names = [entry.name for entry in known]
    if name is None:
        if len(known) == 1:
            return known[0]
        raise ConfigError(f"the model has {len(known)} {kind}s ({', '.join(names)}): name one by {setting}")
    if name not in names:
        raise ConfigError(f"{setting}={name}: the model has no such {kind}; it has {', '.join(names)}")
    return known[names.index(name)]


def _read_shape(entry: Any, rules: PreprocessRules, path: Path, where: str) -> tuple[bool, int, int]:
    """Whether channels come first, height and width."""
    shape = list(entry.shape)
    if len(shape) != 4 or (shape[1] != 3 and shape[3] != 3 and isinstance(shape[1], int)):
        raise ConfigError(
            f"the input {entry.name!r} of {path} has shape {tuple(shape)}: pictures need (n, 3, h, w) or (n, h, w, 3)"
        )
    channels_first = shape[3] != 3 or shape[1] == 3
    sides = shape[2:4] if channels_first else shape[1:3]
    found = []
    for side, wanted, name in zip(
        sides, (rules.height_px, rules.width_px), ("HEIGHT_PX", "WIDTH_PX"), strict=True
    ):
        if isinstance(side, int):
            if wanted not in (None, side):
                raise ConfigError(f"{where}{name}={wanted}: the model {path} takes {side} only")
            found.append(side)
        elif wanted is None:
            raise ConfigError(f"the model {path} leaves the size of its input open: set {where}{name}")
        else:
            found.append(wanted)
    return channels_first, found[0], found[1]


def _hash(path: Path, rules: EmbedRules, input_name: str, output_name: str, size: tuple[int, int]) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    p = rules.preprocess
    facts = (input_name, output_name, size, p.resize.value, p.channels.value, p.scale, p.mean, p.std)
    digest.update(repr(facts).encode())
    return digest.hexdigest()[:16]
