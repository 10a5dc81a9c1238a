"""Greedy farthest-point sampling beside plain numpy and, where installed, numba, faiss and torch.

    python benchmarks/sampling_coreset.py [--rows 100000] [--dim 128] [--picks 1000] [--growth]

Each reference is the textbook loop: one pass over the matrix a pick. Those whose package is missing are named and
left out. All run on the same data: random directions, and clusters of near-duplicates as from fixed cameras.
Memory is that of numpy's arrays beyond the matrix. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from watcher.platform.samplers import pick

Floats = NDArray[np.float32]


def build_vectors(kind: str, n: int, d: int) -> Floats:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((n, d), dtype=np.float32)
    if kind == "clusters":
        vectors *= np.float32(0.1)
        vectors += rng.standard_normal((n // 100, d), dtype=np.float32)[rng.integers(0, n // 100, n)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def find_start(vectors: Floats) -> int:
    return int(np.square(vectors - vectors.mean(axis=0)).sum(axis=1).argmax())


def run_ours(vectors: Floats, n_picks: int) -> NDArray[np.int64]:
    return pick(
        method="CORESET",
        vectors=vectors,
        candidates=np.arange(len(vectors)),
        preselected=np.arange(0),
        n_samples=n_picks,
        min_distance=None,
    ).positions


def run_numpy(vectors: Floats, n_picks: int) -> NDArray[np.int64]:
    squares = np.einsum("ij,ij->i", vectors, vectors)
    nearest = np.full(len(vectors), np.inf, dtype=np.float32)
    picked = [find_start(vectors)]
    while len(picked) < n_picks:
        last = picked[-1]
        np.minimum(nearest, squares + squares[last] - 2 * (vectors @ vectors[last]), out=nearest)
        picked.append(int(nearest.argmax()))
    return np.asarray(picked)


def build_numba() -> Callable[[Floats, int], NDArray[np.int64]]:
    import numba

    @numba.njit(parallel=True, fastmath=True)
    def step(vectors, last, nearest):  # noqa: ANN001, ANN202 - numba's own types
        for row in numba.prange(len(vectors)):
            total = np.float32(0)
            for column in range(vectors.shape[1]):
                gap = vectors[row, column] - vectors[last, column]
                total += gap * gap
            nearest[row] = min(nearest[row], total)

    def run(vectors: Floats, n_picks: int) -> NDArray[np.int64]:
        nearest = np.full(len(vectors), np.inf, dtype=np.float32)
        picked = [find_start(vectors)]
        while len(picked) < n_picks:
            step(vectors, picked[-1], nearest)
            picked.append(int(nearest.argmax()))
        return np.asarray(picked)

    run(build_vectors("random", 100, 8), 3)
    return run


def build_faiss() -> Callable[[Floats, int], NDArray[np.int64]]:
    import faiss

    def run(vectors: Floats, n_picks: int) -> NDArray[np.int64]:
        nearest = np.full(len(vectors), np.inf, dtype=np.float32)
        picked = [find_start(vectors)]
        while len(picked) < n_picks:
            squared = faiss.pairwise_distances(vectors, vectors[picked[-1]][None])[:, 0]
            np.minimum(nearest, squared, out=nearest)
            picked.append(int(nearest.argmax()))
        return np.asarray(picked)

    return run


def build_torch() -> Callable[[Floats, int], NDArray[np.int64]]:
    import torch

    def run(vectors: Floats, n_picks: int) -> NDArray[np.int64]:
        tensor = torch.from_numpy(vectors)
        squares = (tensor * tensor).sum(dim=1)
        nearest = torch.full((len(vectors),), torch.inf)
        picked = [find_start(vectors)]
        while len(picked) < n_picks:
            last = picked[-1]
            nearest = torch.minimum(nearest, squares + squares[last] - 2 * (tensor @ tensor[last]))
            picked.append(int(nearest.argmax()))
        return np.asarray(picked)

    return run


REFERENCES = {
    "numba": ("numba", build_numba),
    "faiss": ("faiss", build_faiss),
    "torch": ("torch", build_torch),
}


def measure(
    run: Callable[[Floats, int], NDArray[np.int64]], vectors: Floats, n_picks: int
) -> tuple[float, NDArray[np.int64]]:
    best, picked = float("inf"), np.empty(0, dtype=np.int64)
    for _ in range(2):
        start = time.perf_counter()
        picked = run(vectors, n_picks)
        best = min(best, time.perf_counter() - start)
    return best, picked


def compute_cover_radius(vectors: Floats, picked: NDArray[np.int64]) -> float:
    """What the method minimises: the distance of the worst-served row to its nearest pick."""
    return float(np.sqrt(max(0.0, 2 - 2 * min((vectors[i : i + 4096] @ vectors[picked].T).max(axis=1).min()
                                              for i in range(0, len(vectors), 4096)))))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--picks", type=int, default=1_000)
    parser.add_argument("--growth", action="store_true", help="also with more rows and more picks")
    arguments = parser.parse_args()
    runs: dict[str, Callable[[Floats, int], NDArray[np.int64]]] = {"ours": run_ours, "numpy": run_numpy}
    for name, (module, build) in REFERENCES.items():
        if importlib.util.find_spec(module) is None:
            print(f"{name}: not installed, left out")
        else:
            runs[name] = build()
    report: dict[str, object] = {"rows": arguments.rows, "dim": arguments.dim, "picks": arguments.picks}
    for kind in ("random", "clusters"):
        vectors = build_vectors(kind, arguments.rows, arguments.dim)
        for name, run in runs.items():
            seconds, picked = measure(run, vectors, arguments.picks)
            radius = compute_cover_radius(vectors, picked)
            print(f"{kind:9} {name:6} {seconds:7.2f} s   radius {radius:.4f}")
            report[f"{kind}_{name}_s"] = round(seconds, 3)
    tracemalloc.start()
    run_ours(vectors, arguments.picks)
    report["beyond_matrix_bytes_a_row"] = round(tracemalloc.get_traced_memory()[1] / arguments.rows, 1)
    tracemalloc.stop()
    print(f"memory beyond the matrix: {report['beyond_matrix_bytes_a_row']} bytes a row at the peak")
    if arguments.growth:
        for rows, picks in ((50_000, 1_000), (200_000, 1_000), (400_000, 1_000), (100_000, 4_000)):
            seconds, _ = measure(run_ours, build_vectors("random", rows, arguments.dim), picks)
            print(f"ours, {rows} rows, {picks} picks: {seconds:.2f} s")
            report[f"growth_{rows}_{picks}_s"] = round(seconds, 3)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
