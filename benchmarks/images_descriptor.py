"""The built-in descriptor: speed from JPEG, and quality on groups of near-duplicates.

    python benchmarks/images_descriptor.py [--variants 8]

Groups are made from real photographs and from scikit-learn's digits (see tests/photographs.py); as many pictures are
picked as there are groups. The last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import time

import numpy as np
import sklearn.datasets
from numpy.typing import NDArray
from PIL import Image

from tests.photographs import build_near_duplicate, build_scenes
from watcher.embedders import DescriptorEmbedder
from watcher.images import DecodedImage
from watcher.platform.samplers import pick

Floats = NDArray[np.float32]


def build_digits(n: int, seed: int) -> list[Image.Image]:
    digits = sklearn.datasets.load_digits().images
    chosen = np.random.default_rng(seed).choice(len(digits), n, replace=False)
    return [
        Image.fromarray((digits[index] * (255 / 16)).astype(np.uint8))
        .resize((128, 128), Image.Resampling.BICUBIC)
        .convert("RGB")
        for index in chosen
    ]


def embed_groups(scenes: list[Image.Image], n_variants: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    pictures = [build_near_duplicate(scene, rng) for scene in scenes for _ in range(n_variants)]
    images = [DecodedImage(pixels=picture, view=picture, size_bytes=1, format="PNG") for picture in pictures]
    return DescriptorEmbedder().embed(images), np.repeat(np.arange(len(scenes)), n_variants)


def compute_coverage(vectors: Floats, groups: NDArray[np.int64], method: str, seed: int = 0) -> float:
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


def compute_precision_recall(
    vectors: Floats, groups: NDArray[np.int64], threshold: float
) -> tuple[float, float]:
    """Over all pairs: same group against cosine at or above the threshold."""
    first, second = np.triu_indices(len(vectors), 1)
    same = groups[first] == groups[second]
    close = (vectors @ vectors.T)[first, second] >= threshold
    return float(same[close].mean()), float(close[same].mean())


def measure_speed() -> dict[str, float]:
    contents = []
    for scene in build_scenes(20, seed=9):
        buffer = io.BytesIO()
        scene.resize((1600, 1200), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
    embedder = DescriptorEmbedder()
    embedder.embed_bytes(contents)
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        embedder.embed_bytes(contents)
        best = min(best, time.process_time() - start)
    return {
        "images_a_cpu_second": len(contents) / best,
        "mean_file_bytes": float(np.mean([len(c) for c in contents])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", type=int, default=8)
    n_variants = parser.parse_args().variants
    report: dict[str, object] = dict(measure_speed())
    print(f"{report['images_a_cpu_second']:.0f} images of 1600 x 1200 a CPU second")
    print(
        "set            groups  CORESET  random   (precision, recall) at cosine 0.95, 0.96, 0.97, 0.98, 0.99"
    )
    sets = [
        *((f"photographs-{seed}", build_scenes(84, seed=seed), seed) for seed in (0, 1, 2)),
        ("photographs, mirrored too", build_scenes(200, seed=3), 3),
        *((f"digits-{n}", build_digits(n, n), n) for n in (60, 100, 150)),
    ]
    for name, scenes, seed in sets:
        vectors, groups = embed_groups(scenes, n_variants, seed)
        chosen = compute_coverage(vectors, groups, "CORESET")
        at_random = float(np.mean([compute_coverage(vectors, groups, "RANDOM", s) for s in range(20)]))
        pairs = [compute_precision_recall(vectors, groups, t) for t in (0.95, 0.96, 0.97, 0.98, 0.99)]
        told = " ".join(f"({precision:.3f}, {recall:.3f})" for precision, recall in pairs)
        print(f"{name:26} {len(scenes):4} {chosen:7.3f} {at_random:7.3f}   {told}")
        report[name] = {"coreset": chosen, "random": at_random, "precision_recall": pairs}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
