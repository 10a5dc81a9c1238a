"""Embeddings and their two-dimensional projections."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from watcher.lightly.wire.base import TimestampMs, Wire

DimensionalityReductionMethod = Literal["PCA", "TSNE", "UMAP"]
_Coordinates = Annotated[list[float], msgspec.Meta(min_length=1)]


class DatasetEmbeddingData(Wire, frozen=True, kw_only=True):
    """An embedding record; lists are sorted newest first."""

    id: str
    name: str
    is_processed: bool
    created_at: TimestampMs
    is2d: bool | None = None


class SampleEmbeddingData(Wire, frozen=True, kw_only=True):
    """An embedding as seen from one of its samples."""

    id: str
    dataset: str
    name: str


class WriteCSVUrlData(Wire, frozen=True, kw_only=True):
    """The record exists from this answer on, before any byte was uploaded."""

    signed_write_url: str
    embedding_id: str


class EmbeddingIdIsProcessedBody(Wire, frozen=True, kw_only=True):
    """Number of rows read."""

    row_count: float


class Trigger2dEmbeddingJobRequest(Wire, frozen=True, kw_only=True):
    """Which projection to compute."""

    dimensionality_reduction_method: DimensionalityReductionMethod


class Embedding2dCreateRequest(Wire, frozen=True, kw_only=True):
    """A projection computed elsewhere."""

    name: str
    dimensionality_reduction_method: DimensionalityReductionMethod
    coordinates_dimension1: _Coordinates
    coordinates_dimension2: _Coordinates


class Embedding2dData(Wire, frozen=True, kw_only=True):
    """A stored projection, coordinates in mapping order."""

    id: str
    dataset_id: str
    embedding_id: str
    name: str
    created_at: TimestampMs
    dimensionality_reduction_method: str
    coordinates_dimension1: list[float] | None = None
    coordinates_dimension2: list[float] | None = None
