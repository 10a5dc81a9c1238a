"""Vectors from a model file: the right numbers for the right pixels, and a clear word for every wrong model."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.unit.embedders.models import make_model, make_slow_model
from watcher.domain.errors import ConfigError, EmbedderUnavailableError, ImageError
from watcher.domain.step_rules import ChannelOrder, EmbedderKind, EmbedRules, PreprocessRules, ResizeMode
from watcher.embedders.onnx import OnnxEmbedder, fit_picture
from watcher.images import DEFAULT_LIMITS

pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
WHERE = "WATCHER_WATCHES__GATE__EMBED__"


def build(path, *, preprocess: PreprocessRules | None = None, **changes) -> OnnxEmbedder:
    rules = EmbedRules(
        kind=EmbedderKind.ONNX, model=str(path), preprocess=preprocess or PreprocessRules(), **changes
    )
    return OnnxEmbedder(rules, limits=DEFAULT_LIMITS, where=WHERE)


def encode(
    colour: tuple[int, int, int], *, orientation: int = 1, size=(30, 20), split: bool = False
) -> bytes:
    picture = Image.new("RGB", size, colour)
    if split:  # the left half is black
        picture.paste((0, 0, 0), (0, 0, size[0] // 2, size[1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def embed(embedder: OnnxEmbedder, *contents: bytes) -> np.ndarray:
    return embedder.embed_prepared([embedder.prepare(content) for content in contents])


def test_vectors_are_what_the_model_computes_of_the_normalised_pixels(tmp_path):
    rules = PreprocessRules(mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 2.0))
    embedder = build(make_model(tmp_path / "m.onnx"), preprocess=rules)
    assert embedder.dim == 3
    found = embed(embedder, encode((255, 0, 51)), encode((0, 255, 102)))
    np.testing.assert_allclose(found, [[1.0, -0.5, 0.1], [-1.0, 1.5, 0.2]], atol=1e-5)
    assert found.dtype == np.float32


def test_vectors_of_a_model_with_channels_last_and_bgr(tmp_path):
    path = make_model(tmp_path / "m.onnx", shape=("n", 4, 4, 3), op="Identity", output_shape=("n", 4, 4, 3))
    with pytest.raises(ConfigError, match=r"the output 'features' .* has shape \(1, 4, 4, 3\)"):
        build(path)
    path = make_model(
        tmp_path / "flat.onnx", shape=("n", 1, 1, 3), op="Identity", output_shape=("n", 1, 1, 3)
    )
    embedder = build(path, preprocess=PreprocessRules(channels=ChannelOrder.BGR, scale=1.0))
    np.testing.assert_allclose(embed(embedder, encode((10, 20, 30))), [[30, 20, 10]])


def test_vectors_of_a_model_for_one_picture_at_a_time_are_those_of_many(tmp_path):
    contents = [encode((level, 0, 0)) for level in (0, 51, 102, 153, 204)]
    one = build(make_model(tmp_path / "one.onnx", shape=(1, 3, 8, 8)))
    two = build(make_model(tmp_path / "two.onnx", shape=(2, 3, 8, 8)))
    many = build(make_model(tmp_path / "many.onnx"), batch_size=4)
    assert (one.batch_size, two.batch_size, many.batch_size) == (1, 2, 4)
    expected = [[level / 255, 0, 0] for level in (0, 51, 102, 153, 204)]
    for embedder in (one, two, many):
        np.testing.assert_allclose(embed(embedder, *contents), expected, atol=1e-6)


def test_vectors_of_half_precision(tmp_path):
    from onnx import TensorProto

    embedder = build(make_model(tmp_path / "m.onnx", element=TensorProto.FLOAT16))
    np.testing.assert_allclose(embed(embedder, encode((255, 0, 0))), [[1, 0, 0]], atol=1e-3)


def test_picture_is_turned_upright_before_it_is_shaped(tmp_path):
    path = make_model(tmp_path / "m.onnx", shape=("n", 3, 2, 2), op="Identity", output_shape=("n", 3, 2, 2))
    embedder = OnnxEmbedder.__new__(OnnxEmbedder)
    embedder._rules = EmbedRules(model=str(path), preprocess=PreprocessRules(resize=ResizeMode.STRETCH))
    embedder._limits = DEFAULT_LIMITS
    embedder._size = (2, 2)
    lying = embedder.prepare(encode((255, 255, 255), orientation=6, split=True, size=(40, 40)))
    # What was left is up after a quarter turn clockwise.
    assert lying[0].max() < lying[1].min()


@pytest.mark.parametrize(
    ("mode", "black_columns"),
    [(ResizeMode.CROP, 2), (ResizeMode.STRETCH, 2), (ResizeMode.PAD, 2)],
)
def test_picture_gets_the_shape_of_the_input(mode, black_columns):
    picture = Image.new("RGB", (80, 40), (255, 255, 255))
    picture.paste((0, 0, 0), (0, 0, 40, 40))
    shaped = np.asarray(fit_picture(picture, (4, 4), mode))
    assert shaped.shape == (4, 4, 3)
    # Padding leaves black bars above and below; cropping and stretching do not.
    assert bool(shaped[0, 3].max() == 0) is (mode is ResizeMode.PAD)
    assert shaped[2, :black_columns].max() < 60 < shaped[2, 3].min()


def test_name_changes_with_the_file_and_with_all_that_changes_its_input(tmp_path):
    path = make_model(tmp_path / "m.onnx", shape=("n", 3, "h", "w"))
    base = PreprocessRules(width_px=8, height_px=8)
    names = {
        build(path, preprocess=rules).name
        for rules in (
            base,
            PreprocessRules(width_px=9, height_px=8),
            PreprocessRules(width_px=8, height_px=8, resize=ResizeMode.PAD),
            PreprocessRules(width_px=8, height_px=8, channels=ChannelOrder.BGR),
            PreprocessRules(width_px=8, height_px=8, mean=(0.1, 0.1, 0.1)),
        )
    }
    assert len(names) == 5
    assert build(path, preprocess=base).name in names
    assert build(path, preprocess=base, batch_size=3, threads=2).name in names
    assert (
        build(
            make_model(tmp_path / "m2.onnx", op="GlobalMaxPool", shape=("n", 3, "h", "w")), preprocess=base
        ).name
        not in names
    )


def test_picture_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ImageError, match="not a picture"):
        build(make_model(tmp_path / "m.onnx")).prepare(b"no picture at all")


@pytest.mark.parametrize(
    ("make", "rules", "told"),
    [
        (
            lambda folder: folder / "absent.onnx",
            {},
            r"there is no model file .*absent\.onnx: check .*__MODEL",
        ),
        (lambda folder: _write(folder / "m.onnx", b"junk"), {}, "is no model that ONNX Runtime can load"),
        (
            lambda folder: make_model(
                folder / "m.onnx", shape=("n", 3), op="Identity", output_shape=("n", 3)
            ),
            {},
            r"has shape \('n', 3\): pictures need \(n, 3, h, w\)",
        ),
        (
            lambda folder: make_model(folder / "m.onnx", shape=("n", 1, 8, 8), output_shape=("n", 1, 1, 1)),
            {},
            r"has shape \('n', 1, 8, 8\): pictures need",
        ),
        (
            lambda folder: make_model(folder / "m.onnx", shape=("n", 3, "h", 8)),
            {},
            "leaves the size of its input open: set .*__HEIGHT_PX",
        ),
        (
            lambda folder: make_model(folder / "m.onnx"),
            {"preprocess": PreprocessRules(width_px=9)},
            "WIDTH_PX=9: the model .* takes 8 only",
        ),
        (
            lambda folder: make_model(folder / "m.onnx", n_outputs=2),
            {},
            r"has 2 outputs \(features, more\): name one by .*__OUTPUT_NAME",
        ),
        (
            lambda folder: make_model(folder / "m.onnx"),
            {"output_name": "other"},
            "OUTPUT_NAME=other: the model has no such output; it has features",
        ),
    ],
)
def test_model_that_cannot_be_used_is_refused_with_the_way_out(tmp_path, make, rules, told):
    with pytest.raises(ConfigError, match=told):
        build(make(tmp_path), **rules)


def test_model_with_two_outputs_gives_the_one_that_was_named(tmp_path):
    embedder = build(make_model(tmp_path / "m.onnx", n_outputs=2), output_name="more", input_name="pixels")
    np.testing.assert_allclose(embed(embedder, encode((255, 0, 0))), [[1, 0, 0]], atol=1e-6)


def test_model_of_whole_numbers_is_refused(tmp_path):
    from onnx import TensorProto

    path = make_model(
        tmp_path / "m.onnx",
        shape=("n", 3, 1, 1),
        op="Identity",
        output_shape=("n", 3, 1, 1),
        element=TensorProto.UINT8,
    )
    with pytest.raises(ConfigError, match=r"takes tensor\(uint8\), not floating point numbers"):
        build(path)


def test_model_that_takes_too_long_is_stopped(tmp_path):
    with pytest.raises(
        EmbedderUnavailableError, match=r"took longer than 0\.2 s for 1 pictures: raise .*TIME_LIMIT_S"
    ):
        build(make_slow_model(tmp_path / "slow.onnx"), time_limit_s=0.2)


def test_vectors_that_are_not_finite_stop_no_other(tmp_path):
    path = make_model(tmp_path / "m.onnx", shape=("n", 3, 1, 1), op="Log", output_shape=("n", 3, 1, 1))
    found = embed(build(path), encode((0, 9, 9)), encode((255, 255, 255)))
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], [0, 0, 0], atol=1e-6)


def _write(path, body: bytes):
    path.write_bytes(body)
    return path
