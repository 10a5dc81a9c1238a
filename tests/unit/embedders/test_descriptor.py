"""The built-in descriptor keeps near-duplicates together and different views apart."""

from __future__ import annotations

import io

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from tests.photographs import build_near_duplicate, build_scenes
from watcher.embedders.base import Embedder
from watcher.embedders.descriptor import DescriptorEmbedder
from watcher.embedders.descriptor_facts import NEAR_DUPLICATE_DISTANCE
from watcher.images import DecodedImage, ImageLimits, read_image
from watcher.platform.samplers import pick

N_VARIANTS = 6


def wrap(picture: Image.Image, orientation: int = 1) -> DecodedImage:
    return DecodedImage(pixels=picture, view=picture, size_bytes=1, format="PNG", orientation=orientation)


def encode(picture: Image.Image, name: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, name)
    return buffer.getvalue()


def build_digits(n: int, *, seed: int) -> list[Image.Image]:
    digits = sklearn.datasets.load_digits().images
    chosen = np.random.default_rng(seed).choice(len(digits), n, replace=False)
    return [
        Image.fromarray((digits[index] * (255 / 16)).astype(np.uint8))
        .resize((128, 128), Image.Resampling.BICUBIC)
        .convert("RGB")
        for index in chosen
    ]


def embed_groups(scenes: list[Image.Image], *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = [wrap(build_near_duplicate(scene, rng)) for scene in scenes for _ in range(N_VARIANTS)]
    return DescriptorEmbedder().embed(images), np.repeat(np.arange(len(scenes)), N_VARIANTS)


def compute_coverage(vectors: np.ndarray, groups: np.ndarray, *, method: str, seed: int = 0) -> float:
    n_groups = len(np.unique(groups))
    picks = pick(
        method=method,
        vectors=vectors,
        candidates=np.arange(len(vectors)),
        preselected=np.arange(0),
        n_samples=n_groups,
        min_distance=None,
        seed=seed,
    )
    return len(np.unique(groups[picks.positions])) / n_groups


@pytest.mark.parametrize("subject", ["photographs", "digits"])
def test_farthest_picks_cover_the_groups_that_random_picks_miss(subject):
    scenes = build_scenes(84, seed=0) if subject == "photographs" else build_digits(60, seed=7)
    vectors, groups = embed_groups(scenes, seed=0)
    at_random = np.mean([compute_coverage(vectors, groups, method="RANDOM", seed=s) for s in range(20)])
    assert 0.58 < at_random < 0.72
    assert compute_coverage(vectors, groups, method="CORESET") >= 0.95


def test_near_duplicates_are_found_at_the_default_threshold():
    vectors, groups = embed_groups(build_scenes(60, seed=3), seed=3)
    pairs = np.triu_indices(len(vectors), 1)
    same = groups[pairs[0]] == groups[pairs[1]]
    close = np.linalg.norm(vectors[pairs[0]] - vectors[pairs[1]], axis=1) <= NEAR_DUPLICATE_DISTANCE
    assert close[same].mean() > 0.95
    assert same[close].mean() > 0.9


def test_vectors_have_length_one_whatever_the_picture():
    pictures = [
        Image.new("RGB", (300, 200)),
        Image.new("RGB", (1, 1), "white"),
        Image.new("RGB", (5000, 3), "red"),
        *build_scenes(3, seed=1),
    ]
    embedder: Embedder = DescriptorEmbedder()
    vectors = embedder.embed([wrap(picture) for picture in pictures])
    assert (vectors.shape, vectors.dtype) == ((6, embedder.dim), np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_nothing_embeds_to_nothing():
    assert DescriptorEmbedder().embed([]).shape == (0, 128)
    assert DescriptorEmbedder().embed_bytes([]).vectors.shape == (0, 128)


def test_batches_of_any_size_give_the_same_vectors():
    images = [wrap(scene) for scene in build_scenes(40, seed=2)]
    whole = DescriptorEmbedder().embed(images)
    single = np.concatenate([DescriptorEmbedder().embed([image]) for image in images])
    assert whole == pytest.approx(single, abs=1e-6)


def test_files_give_the_vectors_of_their_pictures():
    contents = [encode(scene.resize((1600, 1200))) for scene in build_scenes(4, seed=5)]
    contents.append(encode(build_scenes(5, seed=5)[4], "PNG"))
    batch = DescriptorEmbedder().embed_bytes(contents)
    full = DescriptorEmbedder().embed([read_image(content) for content in contents])
    assert batch.errors == {}
    assert np.einsum("ij,ij->i", batch.vectors, full).min() > 0.995


def test_unreadable_file_stops_no_other():
    good = encode(build_scenes(1, seed=0)[0])
    batch = DescriptorEmbedder(limits=ImageLimits(max_bytes=len(good))).embed_bytes(
        [b"no picture", good, good[:1000], good + b"x", good]
    )
    assert sorted(batch.errors) == [0, 2, 3]
    assert batch.errors[2].truncated
    assert np.isnan(batch.vectors).all(axis=1).tolist() == [True, False, True, True, False]
    assert np.array_equal(batch.vectors[1], batch.vectors[4])


def test_picture_is_turned_upright_first():
    upright = build_scenes(1, seed=4)[0]
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    vectors = DescriptorEmbedder().embed([wrap(upright), wrap(lying, orientation=6), wrap(lying)])
    assert vectors[0] @ vectors[1] > 0.999
    assert vectors[0] @ vectors[2] < 0.97


def test_version_one_gives_the_numbers_of_version_one():
    y, x = np.mgrid[0:64, 0:64]
    levels = np.stack([4 * x, 4 * y, (x * y) % 256], axis=-1).astype(np.uint8)
    vector = DescriptorEmbedder().embed([wrap(Image.fromarray(levels))])[0]
    assert DescriptorEmbedder.name == "descriptor-v1"
    assert vector[[0, 15, 18, 20, 25, 40, 90, 95, 110, 125]].tolist() == pytest.approx(
        [-0.0935, 0.0882, -0.4088, 0.1301, 0.0340, 0.0887, 0.0055, 0.0736, 0.0, 0.0225], abs=2e-4
    )
