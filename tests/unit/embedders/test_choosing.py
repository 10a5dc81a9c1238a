"""The embedder of a watch: its name tells all that its vectors depend on."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.unit.embedders.models import make_model
from watcher.domain.clock import SystemClock
from watcher.domain.models import WatchConfig
from watcher.domain.step_rules import EmbedderKind, EmbedRules, UploadRules
from watcher.embedders.base import Embedder
from watcher.embedders.choosing import build_embedder
from watcher.embedders.descriptor_facts import find_default_distances

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def build(rules: EmbedRules, root, *, grey_bits: int | None = None) -> Embedder:
    config = WatchConfig(name="gate", dataset="gate", embed=rules, upload=UploadRules(grey_bits=grey_bits))
    return build_embedder(config, work_dir=root, clock=SystemClock())


def encode(levels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", EmbedderKind)
def test_embedder_of_a_watch_that_sets_the_depth_of_its_greys_bears_another_name(kind, tmp_path):
    if kind is EmbedderKind.ONNX:
        pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    rules = EmbedRules(
        kind=kind,
        model=str(make_model(tmp_path / "m.onnx")),
        command=("true",),
        url="http://127.0.0.1:9",
        version="v1",
        dim=2,
    )
    plain = build(rules, tmp_path).name
    assert "grey" not in plain
    assert build(rules, tmp_path, grey_bits=10).name == f"{plain}-grey10"


def test_greys_of_ten_bits_get_the_vector_of_the_same_picture_in_eight_once_the_depth_is_set(tmp_path):
    eight, ten = encode((RAMP * 255).astype(np.uint8)), encode((RAMP * 1023).astype(np.uint16))
    plain, deep = build(EmbedRules(), tmp_path), build(EmbedRules(), tmp_path, grey_bits=10)
    (expected,) = plain.embed_prepared([plain.prepare(eight)])
    (found,) = deep.embed_prepared([deep.prepare(ten)])
    assert np.linalg.norm(found - expected) < 0.01
    assert find_default_distances(deep.name) == find_default_distances(plain.name) != (None, None)
