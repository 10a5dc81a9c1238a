"""`ApiWorkflowClient`: every documented method of the client that `lightly` had until 1.5, over the stateless layer.

State is in two places only: the chosen dataset and the chosen embedding, both kept in `_Choice`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import IOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast, get_args

import requests

from watcher.domain.errors import (
    ConfigError,
    DatasetError,
    EmbeddingDoesNotExistError,
    TagDoesNotExistError,
)
from watcher.lightly import datasets, datasources, mappings, tags, versions, workflows
from watcher.lightly.compatibility import PROTOCOL_VERSION, is_compatible
from watcher.lightly.samplers import SamplerConfig, SamplingMethod
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import Creator, DatasetType
from watcher.lightly.wire.datasources import RawSample
from watcher.lightly.wire.embeddings import DatasetEmbeddingData, DimensionalityReductionMethod
from watcher.lightly.wire.jobs import JobStatusData
from watcher.lightly.wire.samplings import SamplingCreateRequest
from watcher.lightly.wire.tags import INITIAL_TAG_NAME, TagArithmeticsRequest, TagData

if TYPE_CHECKING:
    from watcher.lightly.workflows.download import DownloadReport
    from watcher.lightly.workflows.metadata import MetadataReport
    from watcher.lightly.workflows.upload import UploadReport
    from watcher.lightly.workflows.window import Window

DEFAULT_SERVER = "https://api.lightly.ai"
SAMPLING_DEADLINE_S = 6 * 3600.0
HOLD_BACK_S = 5
ALL_PROJECTIONS: tuple[DimensionalityReductionMethod, ...] = get_args(DimensionalityReductionMethod)


@dataclass(frozen=True)
class _Choice:
    """What the client works on. Replaced as a whole, so threads see the one or the other.

    Attributes:
        dataset_id: None before one was chosen.
        is_guess: nobody chose it; it is the dataset that was changed last.
        embedding_id: None before one was chosen; always one of this dataset.
    """

    dataset_id: str | None = None
    is_guess: bool = False
    embedding_id: str | None = None


class ApiWorkflowClient:
    """Works on one dataset of a server that speaks the Lightly API.

    Nothing is sent before the first call. Safe to share between threads; can be pickled. Differences from the
    original are listed in `docs/differences.md`.

    Args:
        token: absent: `LIGHTLY_TOKEN`.
        dataset_id: dataset to work on; choose it here, by `set_dataset_id_by_name` or by `create_dataset`.
        embedding_id: embedding to sample by; absent: the newest one.
        creator: noted by the server as the maker of what is made.
        server: absent: `LIGHTLY_SERVER_LOCATION`, else the vendor's.
        transport: a ready transport instead of token, creator and server.

    `LIGHTLY_CA_CERTS` names trusted certificates; proxies are taken from the usual variables.

    Raises:
        ConfigError: no token, or a token, server or certificate file that cannot be used.
    """

    def __init__(
        self,
        token: str | None = None,
        dataset_id: str | None = None,
        embedding_id: str | None = None,
        *,
        creator: Creator = "USER_PIP",
        server: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.transport = transport or Transport(
            server=server or os.environ.get("LIGHTLY_SERVER_LOCATION") or DEFAULT_SERVER,
            token=token or os.environ.get("LIGHTLY_TOKEN") or "",
            creator=creator,
            ca_certs=os.environ.get("LIGHTLY_CA_CERTS") or None,
        )
        self._choice = _Choice(dataset_id=dataset_id, embedding_id=embedding_id)
        self._lock = threading.Lock()
        self.wait_time_till_next_poll: float = 1.0

    def __repr__(self) -> str:
        return f"ApiWorkflowClient(server={self.transport.server!r}, dataset_id={self._choice.dataset_id!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    # -- datasets --------------------------------------------------------------------------------------------

    @property
    def dataset_id(self) -> str:
        """Id of the chosen dataset; without one that of the dataset changed last, with a warning that names it.

        Methods that change something refuse to work on a dataset that nobody chose.

        Raises:
            DatasetDoesNotExistError: none is chosen, and there is none.
        """
        choice = self._choice
        if choice.dataset_id is not None:
            return choice.dataset_id
        found = workflows.choosing.find_latest_dataset(self.transport)
        with self._lock:
            if self._choice.dataset_id is None:
                self._choice = _Choice(dataset_id=found.id, is_guess=True)
        warnings.warn(
            f"no dataset was chosen: {found.name!r} ({found.id}), changed last, is used for reading",
            stacklevel=2,
        )
        return found.id

    @dataset_id.setter
    def dataset_id(self, dataset_id: str) -> None:
        self._choose_dataset(dataset_id)

    @property
    def embedding_id(self) -> str | None:
        """Id of the chosen embedding; None before one was chosen, and after the dataset was changed."""
        return self._choice.embedding_id

    @embedding_id.setter
    def embedding_id(self, embedding_id: str | None) -> None:
        with self._lock:
            self._choice = _Choice(self._choice.dataset_id, self._choice.is_guess, embedding_id)

    @property
    def dataset_type(self) -> str:
        """`Images`, `Videos` or `Crops`. One call; NotFoundException if the dataset is gone."""
        return datasets.fetch_dataset(self.transport, dataset_id=self.dataset_id).type

    def create_dataset(self, dataset_name: str, *, dataset_type: DatasetType = "Images") -> None:
        """Chooses the dataset of this name, and makes it if there is none.

        A dataset that is there already and not empty is chosen with a warning.

        Raises:
            DatasetError: no dataset may bear this name.
        """
        dataset_id, found = workflows.choosing.ensure_dataset(
            self.transport, name=dataset_name, dataset_type=dataset_type
        )
        if found is not None and found.n_samples:
            warnings.warn(
                f"the dataset {dataset_name!r} was there already, with {found.n_samples} samples",
                stacklevel=2,
            )
        self._choose_dataset(dataset_id)

    def create_new_dataset_with_unique_name(
        self, dataset_basename: str, *, dataset_type: DatasetType = "Images"
    ) -> None:
        """Makes and chooses a dataset called `dataset_basename`, or the first free of `..._1`, `..._2`, ..."""
        dataset_id, _ = workflows.choosing.create_uniquely(
            self.transport, base_name=dataset_basename, dataset_type=dataset_type
        )
        self._choose_dataset(dataset_id)

    def set_dataset_id_by_name(self, dataset_name: str, *, shared: bool | None = False) -> None:
        """Chooses the dataset of exactly this name.

        Args:
            dataset_name: case-sensitive.
            shared: False: own ones; True: those of others; None: own ones first.

        Raises:
            DatasetDoesNotExistError: there is none; also a ValueError.
        """
        self._choose_dataset(
            workflows.choosing.find_dataset(self.transport, name=dataset_name, shared=shared).id
        )

    def delete_dataset_by_id(self, dataset_id: str) -> None:
        """Deletes a dataset; if it is the chosen one, none is chosen afterwards."""
        datasets.delete_dataset(self.transport, dataset_id=dataset_id)
        with self._lock:
            if self._choice.dataset_id == dataset_id:
                self._choice = _Choice()

    def check_version_compatibility(self) -> None:
        """Asks the server for the oldest client version it works with.

        Raises:
            ConfigError: the protocol spoken here is older.
        """
        minimum = versions.fetch_minimum_version(self.transport)
        if not is_compatible(PROTOCOL_VERSION, minimum):
            raise ConfigError(
                f"the server asks for version {minimum} of the protocol, this client speaks {PROTOCOL_VERSION}: "
                "upgrade datasource-watcher"
            )

    # -- datasource ------------------------------------------------------------------------------------------

    def get_datasource(self) -> dict[str, Any]:
        """The configuration of the datasource, with the JSON names; ApiException if there is none."""
        return datasources.fetch_datasource_fields(self.transport, dataset_id=self.dataset_id)

    def get_processed_until_timestamp(self) -> int:
        """The mark in unix seconds; 0 means that nothing was processed yet."""
        return datasources.fetch_processed_until(self.transport, dataset_id=self.dataset_id)

    def update_processed_until_timestamp(self, timestamp: int) -> None:
        """Sets the mark, in unix seconds; it may go back."""
        if type(timestamp) is not int or not 0 <= timestamp < 10**11:
            raise DatasetError(f"the mark is given in whole unix seconds, not as {timestamp!r}")
        datasources.update_processed_until(
            self.transport, dataset_id=self._get_chosen_dataset_id(), timestamp_s=timestamp
        )

    def download_raw_samples(
        self,
        from_: int = 0,
        to: int | None = None,
        *,
        relevant_filenames_file_name: str | None = None,
        divide_and_conquer_shards: int = 1,
        use_redirected_read_url: bool | None = None,
        progress_bar: bool = False,
    ) -> list[tuple[str, str]]:
        """All objects last written within `[from_, to]`, unix seconds, as pairs of file name and read URL.

        Args:
            from_: first second.
            to: last second; absent: now, by the server's clock.
            relevant_filenames_file_name: text file in the datasource that restricts the listing.
            divide_and_conquer_shards: listings at a time, where the server can cut one.
            use_redirected_read_url: whether read URLs should lead through the server.
            progress_bar: whether progress is shown.

        Each name comes once. For long listings `iter_raw_samples` needs no list.
        """
        dataset_id = self.dataset_id
        return workflows.raw_samples.list_raw_samples(
            self.transport,
            dataset_id=dataset_id,
            from_s=from_,
            to_s=self._fetch_server_now_s(dataset_id) if to is None else to,
            n_shards=divide_and_conquer_shards,
            relevant_filenames_file_name=relevant_filenames_file_name,
            use_redirected_read_url=use_redirected_read_url,
            verbose=progress_bar,
        )

    def iter_raw_samples(
        self, from_: int = 0, to: int | None = None, *, divide_and_conquer_shards: int = 1
    ) -> Iterator[RawSample]:
        """The same as `download_raw_samples`, one by one, in constant memory; a name may come twice."""
        dataset_id = self.dataset_id
        yield from workflows.raw_samples.iter_raw_samples(
            self.transport,
            dataset_id=dataset_id,
            from_s=from_,
            to_s=self._fetch_server_now_s(dataset_id) if to is None else to,
            n_shards=divide_and_conquer_shards,
        )

    def download_new_raw_samples(self, *, hold_back_s: int = 1) -> list[tuple[str, str]]:
        """All objects since the mark, and the mark moved behind them, before they are returned.

        Whoever must not lose any takes `new_raw_samples_window`, which moves the mark afterwards.

        Args:
            hold_back_s: how far before the server's present the listing ends, so that a second is listed once it
                is over.
        """
        dataset_id = self._get_chosen_dataset_id()
        with workflows.window.new_raw_samples_window(
            self.transport, dataset_id=dataset_id, hold_back_s=hold_back_s
        ) as window:
            found: dict[str, str] = {}
            for row in window.iter_samples():
                found.setdefault(row.file_name, row.read_url)
        return list(found.items())

    def new_raw_samples_window(
        self, *, hold_back_s: int = HOLD_BACK_S, overlap_s: int = 0
    ) -> AbstractContextManager[Window]:
        """A window of what is new, page by page; the mark moves when the `with` block ends without an exception."""
        return workflows.window.new_raw_samples_window(
            self.transport,
            dataset_id=self._get_chosen_dataset_id(),
            hold_back_s=hold_back_s,
            overlap_s=overlap_s,
        )

    # -- samples and tags ------------------------------------------------------------------------------------

    def get_filenames(self) -> list[str]:
        """File names of all samples; the position is the bit in every mask."""
        return mappings.fetch_file_names(self.transport, dataset_id=self.dataset_id)

    def get_filenames_in_tag(
        self,
        tag_data: TagData,
        filenames_on_server: list[str] | None = None,
        exclude_parent_tag: bool = False,
    ) -> list[str]:
        """File names of a tag's samples, in the order of `get_filenames`.

        Args:
            tag_data: the tag.
            filenames_on_server: what `get_filenames` gave, to save a call.
            exclude_parent_tag: only those that the parent does not have; useful for tags of samplings with a
                preselected tag, which is the parent then.

        Raises:
            DatasetError: the mask reaches beyond the file names, or a tag without parent with `exclude_parent_tag`.
        """
        dataset_id = self.dataset_id
        mask = tag_data.bit_mask_data
        if exclude_parent_tag:
            if tag_data.prev_tag_id is None:
                raise DatasetError(f"the tag {tag_data.name!r} has no parent that could be excluded")
            mask = tags.compute_tag_mask(
                self.transport,
                dataset_id=dataset_id,
                request=TagArithmeticsRequest(
                    tag_id1=tag_data.id, tag_id2=tag_data.prev_tag_id, operation="DIFFERENCE"
                ),
            )
        if filenames_on_server is None:
            filenames_on_server = mappings.fetch_file_names(self.transport, dataset_id=dataset_id)
        return workflows.download.select_by_mask(mask, filenames_on_server)

    def get_all_tags(self) -> list[TagData]:
        """All tags, in no defined order; none before the end of the first upload."""
        return tags.fetch_tags(self.transport, dataset_id=self.dataset_id)

    def get_tag_by_id(self, tag_id: str) -> TagData:
        """One tag; NotFoundException if there is none."""
        return tags.fetch_tag(self.transport, dataset_id=self.dataset_id, tag_id=tag_id)

    def get_tag_by_name(self, tag_name: str) -> TagData:
        """The tag of exactly this name.

        Raises:
            TagDoesNotExistError: there is none; also a ValueError.
        """
        found = tags.fetch_tag_by_name(self.transport, dataset_id=self.dataset_id, name=tag_name)
        if found is None:
            raise TagDoesNotExistError(f"the dataset has no tag {tag_name!r}")
        return found

    def create_tag_from_filenames(
        self, fnames_new_tag: list[str], new_tag_name: str, parent_tag_id: str | None = None
    ) -> TagData:
        """Makes a tag of the samples with the given names.

        Raises:
            DatasetError: the name is taken or cannot be one, there are no tags yet, or a file name is unknown;
                also a RuntimeError.
        """
        return workflows.picking.create_tag_of_names(
            self.transport,
            dataset_id=self._get_chosen_dataset_id(),
            name=new_tag_name,
            file_names=fnames_new_tag,
            parent_tag_id=parent_tag_id,
        )

    # -- upload and download ---------------------------------------------------------------------------------

    def upload_dataset(
        self,
        input: Any,  # noqa: A002 - the documented name
        max_workers: int = 8,
        mode: str = "thumbnails",
        verbose: bool = True,
        custom_metadata: dict[str, Any] | None = None,
        *,
        strict: bool = False,
        cancel: threading.Event | None = None,
    ) -> UploadReport:
        """Uploads images; what the dataset has already is skipped, what a broken-off run left behind is completed.

        Args:
            input: a folder; pairs of (name, path or function that opens a binary file); or a dataset object with
                `get_filenames()`.
            max_workers: files at a time.
            mode: `metadata`, `thumbnails` or `full`.
            verbose: whether progress is shown.
            custom_metadata: entries for every file; see `upload_custom_metadata`.
            strict: whether a file that fails is an error, `UploadIncompleteError`, once the others are done.
            cancel: set it to stop.

        Raises:
            DatasetError: nothing usable in `input`, videos, an unknown mode, or more samples than allowed.
        """
        dataset_id = self._get_chosen_dataset_id()
        items = workflows.sources.list_upload_items(input)
        return workflows.upload.upload_items(
            self.transport,
            dataset_id=dataset_id,
            items=items,
            mode=mode,
            max_workers=max_workers,
            upsize_tag_name=_build_time_suffix()[1:],
            custom_metadata=None
            if custom_metadata is None
            else workflows.metadata.index_custom_metadata(custom_metadata),
            strict=strict,
            verbose=verbose,
            cancel=cancel,
        )

    def upload_file_with_signed_url(
        self, file: IOBase | BinaryIO, signed_write_url: str, headers: dict[str, str] | None = None
    ) -> requests.Response:
        """PUTs a file from its present position to a signed URL; tried again from the same position.

        Args:
            file: binary; one that cannot seek is copied first. Stays open.
            signed_write_url: sent byte for byte, without a token.
            headers: sent with it.

        Raises:
            ApiException: the store refused.
            TransportError: no answer.
        """
        source = cast("BinaryIO", file)
        with _make_seekable(source) as body:
            start = body.tell()
            size = body.seek(0, os.SEEK_END) - start

            @contextmanager
            def open_body() -> Iterator[BinaryIO]:
                body.seek(start)
                yield body

            store_headers = workflows.register.build_put_headers(
                signed_write_url, size, s3_kms_key=os.environ.get("LIGHTLY_S3_SSE_KMS_KEY")
            )
            return self.transport.put_signed_url(
                signed_write_url,
                cast("Callable[[], BinaryIO]", open_body),
                size,
                {**store_headers, **(headers or {})},
            )

    def download_dataset(
        self,
        output_dir: str,
        tag_name: str = INITIAL_TAG_NAME,
        verbose: bool = True,
        *,
        max_workers: int = 8,
        strict: bool = False,
    ) -> DownloadReport:
        """Writes the images of a tag below a folder, byte for byte; goes on where an earlier run broke off.

        Args:
            output_dir: made if missing.
            tag_name: which images.
            verbose: whether progress is shown.
            max_workers: files at a time.
            strict: whether a file that fails is an error once the others are done.

        Raises:
            DatasetError: the images were not uploaded in full; also a ValueError.
            TagDoesNotExistError: no such tag; also a ValueError.
        """
        return workflows.download.download_tag(
            self.transport,
            dataset_id=self.dataset_id,
            output_dir=output_dir,
            tag_name=tag_name,
            max_workers=max_workers,
            strict=strict,
            verbose=verbose,
        )

    # -- custom metadata -------------------------------------------------------------------------------------

    def verify_custom_metadata_format(self, custom_metadata: dict[str, Any]) -> None:
        """Checks the shape of custom metadata, without a call.

        Raises:
            MetadataFormatError: tells what is wrong; also a KeyError.
        """
        workflows.metadata.verify_custom_metadata_format(custom_metadata)

    def index_custom_metadata_by_filename(
        self, filenames: list[str], custom_metadata: dict[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """File name to metadata entry for the given names, without a call; DatasetError if one has none."""
        return workflows.metadata.index_custom_metadata_by_filename(filenames, custom_metadata)

    def upload_custom_metadata(
        self, custom_metadata: dict[str, Any], verbose: bool = False, max_workers: int = 8
    ) -> MetadataReport:
        """Stores custom metadata for the samples it names; the other samples keep theirs.

        Args:
            custom_metadata: `{"images": [{"file_name", "id"}], "metadata": [{"image_id", ...}]}`.
            verbose: whether progress is shown.
            max_workers: samples at a time.

        Raises:
            MetadataFormatError: wrong shape; also a KeyError.
            DatasetError: not stored for some samples; the others are done.
        """
        return workflows.metadata.upload_custom_metadata(
            self.transport,
            dataset_id=self._get_chosen_dataset_id(),
            custom_metadata=custom_metadata,
            max_workers=max_workers,
            verbose=verbose,
        )

    # -- embeddings ------------------------------------------------------------------------------------------

    def set_embedding_id_to_latest(self) -> None:
        """Chooses the newest embedding; a processed one if there is any.

        Raises:
            EmbeddingDoesNotExistError: there is none; also a ValueError and a RuntimeError.
        """
        dataset_id = self.dataset_id
        found = workflows.embedding_upload.find_latest_embedding(self.transport, dataset_id=dataset_id)
        self._choose_embedding(dataset_id, found.id)

    def get_embedding_by_name(self, name: str, ignore_suffix: bool = True) -> DatasetEmbeddingData:
        """The newest embedding of a name.

        Args:
            name: as given to `upload_embeddings`.
            ignore_suffix: whether the time that an upload put behind the name is disregarded.

        Raises:
            EmbeddingDoesNotExistError: there is none; also a ValueError.
        """
        return workflows.embedding_upload.find_embedding(
            self.transport, dataset_id=self.dataset_id, name=name, ignore_suffix=ignore_suffix
        )

    def append_embeddings(self, path_to_embeddings_csv: str, embedding_id: str) -> None:
        """Merges the rows of a stored embedding into the local file; where both have a name the local row stays.

        Remote rows come first in their order, then the remaining local ones. The file is replaced once the new one
        is whole.

        Raises:
            DatasetError: one of them is no embedding CSV, or their columns differ in number; also a RuntimeError.
        """
        workflows.embedding_upload.append_to_csv(
            self.transport,
            dataset_id=self.dataset_id,
            path=path_to_embeddings_csv,
            embedding_id=embedding_id,
        )

    def upload_embeddings(
        self,
        path_to_embeddings_csv: str,
        name: str,
        *,
        projections: Sequence[DimensionalityReductionMethod] = ALL_PROJECTIONS,
    ) -> None:
        """Uploads an embedding CSV and chooses it. The file is only read; its rows may be in any order.

        If there is an embedding of this name, rows that the file lacks are taken from it, and the new one is called
        `<name>_<time>`.

        Args:
            path_to_embeddings_csv: header `filenames,embedding_0,...,labels`; one row a sample.
            name: of the embedding.
            projections: which two-dimensional ones to ask for; a failure of that only warns.

        Raises:
            DatasetError: no embedding CSV, or it does not fit the dataset; also ValueError and RuntimeError.
        """
        dataset_id = self._get_chosen_dataset_id()
        embedding_id = workflows.embedding_upload.upload_csv(
            self.transport,
            dataset_id=dataset_id,
            path=path_to_embeddings_csv,
            name=name,
            time_suffix=_build_time_suffix(),
            projections=projections,
        )
        self._choose_embedding(dataset_id, embedding_id)

    def upload_embeddings_from_arrays(
        self,
        filenames: Iterable[str],
        embeddings: Any,
        name: str,
        labels: Iterable[int] | None = None,
        *,
        projections: Sequence[DimensionalityReductionMethod] = ALL_PROJECTIONS,
    ) -> None:
        """Uploads vectors of shape (n, d), one row a file name; see `upload_embeddings`."""
        with tempfile.TemporaryDirectory(prefix="embeddings-") as folder:
            path = Path(folder, "embeddings.csv")
            workflows.csv_files.write_embeddings_csv(path, filenames, embeddings, labels)
            self.upload_embeddings(str(path), name, projections=projections)

    def upload_embeddings_from_parquet(
        self,
        path_to_parquet: str | Path,
        name: str,
        *,
        projections: Sequence[DimensionalityReductionMethod] = ALL_PROJECTIONS,
    ) -> None:
        """Uploads a Parquet file with `filenames`, `embedding` or `embedding_<number>`, and maybe `labels`.

        Needs pyarrow. See `upload_embeddings`.
        """
        with tempfile.TemporaryDirectory(prefix="embeddings-") as folder:
            path = Path(folder, "embeddings.csv")
            workflows.embedding_upload.write_parquet_as_csv(path_to_parquet, path)
            self.upload_embeddings(str(path), name, projections=projections)

    # -- sampling --------------------------------------------------------------------------------------------

    def sampling(
        self,
        sampler_config: SamplerConfig,
        preselected_tag_id: str | None = None,
        query_tag_id: str | None = None,
        *,
        deadline_s: float = SAMPLING_DEADLINE_S,
        on_progress: Callable[[JobStatusData], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> TagData:
        """Picks samples and gives their tag, once the server's job is done.

        Uses the chosen embedding, else the newest. `RANDOM` works without embeddings as well: the picks are made
        here then.

        Args:
            sampler_config: how, how many, and the name of the new tag.
            preselected_tag_id: samples that were picked before; they are part of the new tag.
            query_tag_id: where to pick from; absent: the whole dataset.
            deadline_s: longest time in all, in seconds.
            on_progress: called with the state of the job after each poll.
            cancel: set it to stop waiting; the job goes on.

        Raises:
            DatasetError: a tag of the name is there, or there are no tags; also a RuntimeError.
            SamplingError: the job failed; also a RuntimeError.
            DeadlineExceededError, CancelledError: the wait ended before the job.
        """
        dataset_id = self._get_chosen_dataset_id()
        name = sampler_config.name or ""
        tags.check_tag_name(name)
        embedding_id = self._choice.embedding_id
        if embedding_id is None:
            try:
                embedding_id = workflows.embedding_upload.find_latest_embedding(
                    self.transport, dataset_id=dataset_id
                ).id
            except EmbeddingDoesNotExistError:
                if sampler_config.method != SamplingMethod.RANDOM:
                    raise
        if embedding_id is None:
            return workflows.picking.pick_randomly(
                self.transport,
                dataset_id=dataset_id,
                name=name,
                n_samples=sampler_config.n_samples,
                preselected_tag_id=preselected_tag_id,
                query_tag_id=query_tag_id,
            )
        present = tags.fetch_tags(self.transport, dataset_id=dataset_id)
        if not present:
            raise DatasetError("the dataset has no tags yet: they are made at the end of an upload")
        return workflows.sampling.run_sampling(
            self.transport,
            dataset_id=dataset_id,
            embedding_id=embedding_id,
            request=SamplingCreateRequest(
                new_tag_name=name,
                method=sampler_config.method.value,
                config=sampler_config.build_wire_config(),
                preselected_tag_id=preselected_tag_id,
                query_tag_id=query_tag_id,
                row_count=present[0].tot_size,
            ),
            deadline_s=deadline_s,
            cancel=cancel,
            on_progress=on_progress,
            first_wait_s=self.wait_time_till_next_poll,
            present_tags=present,
        )

    def upload_scores(
        self, al_scores: Mapping[str, Sequence[float]], query_tag_id: str | None = None
    ) -> None:
        """Stores active-learning scores: per type one number a sample of the tag, in ascending bit order.

        Args:
            al_scores: score type to numbers; arrays are welcome.
            query_tag_id: absent: the initial tag.

        Raises:
            DatasetError: a list has another length than the tag, a number is not finite, or there are no tags.
        """
        workflows.scoring.upload_scores(
            self.transport,
            dataset_id=self._get_chosen_dataset_id(),
            scores_by_type=al_scores,
            tag_id=query_tag_id,
        )

    # -- state -----------------------------------------------------------------------------------------------

    @property
    def token(self) -> str:
        """The token."""
        return self.transport.token

    def _choose_dataset(self, dataset_id: str) -> None:
        with self._lock:
            kept = self._choice.embedding_id if self._choice.dataset_id == dataset_id else None
            self._choice = _Choice(dataset_id=dataset_id, embedding_id=kept)

    def _choose_embedding(self, dataset_id: str, embedding_id: str) -> None:
        with self._lock:
            if self._choice.dataset_id == dataset_id:
                self._choice = _Choice(dataset_id, self._choice.is_guess, embedding_id)

    def _get_chosen_dataset_id(self) -> str:
        choice = self._choice
        if choice.dataset_id is None or choice.is_guess:
            raise DatasetError(
                "choose a dataset first: this changes it, and nobody chose one. Give dataset_id to the client, or "
                "call set_dataset_id_by_name or create_dataset"
            )
        return choice.dataset_id

    def _fetch_server_now_s(self, dataset_id: str) -> int:
        path = "/v1/datasets/{datasetId}/datasource/processedUntilTimestamp"
        return self.transport.fetch_server_time(path, path_params={"datasetId": dataset_id}).date_s


def _build_time_suffix() -> str:
    return f"_{datetime.now().astimezone():%Y%m%d_%Hh%Mm%Ss}"


@contextmanager
def _make_seekable(file: BinaryIO) -> Iterator[BinaryIO]:
    if file.seekable():
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        yield copy
