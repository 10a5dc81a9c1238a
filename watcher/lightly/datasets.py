"""Datasets and the quota."""

from __future__ import annotations

from watcher.domain.errors import ApiException, ProtocolError
from watcher.lightly.answers import is_missing_endpoint
from watcher.lightly.paging import fetch_all_pages
from watcher.lightly.transport import QueryValue, Transport
from watcher.lightly.wire.datasets import (
    CreateEntityResponse,
    DatasetCreateRequest,
    DatasetData,
    JobStatusMeta,
)

_DATASETS = "/v1/datasets"
_DATASET = "/v1/datasets/{datasetId}"
_BY_NAME = "/v1/datasets/query/name/{datasetName}"
_PAGE_SIZE = 5000


def fetch_datasets(transport: Transport, *, shared: bool | None = False) -> list[DatasetData]:
    """All datasets, in pages of 5000 where the server pages.

    Args:
        transport: the way.
        shared: False: own ones; True: those that others share; None: the server's choice.
    """
    return fetch_all_pages(
        transport,
        _DATASETS,
        page_type=list[DatasetData],
        key=lambda dataset: dataset.id,
        page_size=_PAGE_SIZE,
        query={"shared": shared},
    )


def fetch_dataset(transport: Transport, *, dataset_id: str) -> DatasetData:
    """One dataset; NotFoundException if there is none."""
    return transport.get_json(_DATASET, type=DatasetData, path_params={"datasetId": dataset_id})


def fetch_datasets_by_name(
    transport: Transport, *, name: str, exact: bool = True, shared: bool = False, team: bool = False
) -> list[DatasetData]:
    """The datasets of a name, or with `exact=False` those whose names begin with it; case-sensitive.

    Servers of the older generation cannot be asked so; there the list of all datasets is filtered here.

    Args:
        transport: the way.
        name: whole name or beginning.
        exact: whether the whole name must agree.
        shared: datasets that others share instead of own ones.
        team: with `shared`, datasets of the own team, whoever owns them.
    """
    endpoint = f"GET {_BY_NAME}"
    query: dict[str, QueryValue] = {"shared": shared, "exact": exact}
    if team:
        query["getAssetsOfTeam"] = True
    found: list[DatasetData] | None = None
    if name not in ("", ".", "..") and not transport.lacks(endpoint):
        try:
            found = fetch_all_pages(
                transport,
                _BY_NAME,
                page_type=list[DatasetData],
                key=lambda dataset: dataset.id,
                page_size=_PAGE_SIZE,
                path_params={"datasetName": name},
                query=query,
            )
        except ApiException as error:
            if not is_missing_endpoint(error):
                raise
            transport.remember_missing(endpoint)
    if found is None:
        found = fetch_datasets(transport, shared=shared)
    return [
        dataset for dataset in found if (dataset.name == name if exact else dataset.name.startswith(name))
    ]


def create_dataset(transport: Transport, *, request: DatasetCreateRequest) -> str:
    """Makes a dataset and gives its id.

    Raises:
        ApiException: with code DATASET_NAME_EXISTS if the name is taken.
        UnknownOutcomeError: look the name up before repeating.
    """
    return transport.send_json("POST", _DATASETS, type=CreateEntityResponse, body=request).id


def delete_dataset(transport: Transport, *, dataset_id: str) -> None:
    """Deletes a dataset with all that belongs to it."""
    transport.send("DELETE", _DATASET, path_params={"datasetId": dataset_id})


def register_dataset_upload(transport: Transport, *, dataset_id: str, n_total: int, n_processed: int) -> None:
    """Announces an upload: `n_total` samples in the end, of which `n_processed` are there already."""
    transport.send(
        "PUT",
        f"{_DATASET}/registerDatasetUpload",
        path_params={"datasetId": dataset_id},
        body=JobStatusMeta(
            total=n_total, processed=n_processed, upload_method="USER_PIP", is_registered=True
        ),
    )


def fetch_quota(transport: Transport) -> int:
    """The largest number of samples a dataset may have.

    Raises:
        ProtocolError: the answer is no number.
    """
    answer = transport.get_json("/v1/quota", type=str | int)  # type: ignore[arg-type] # a union is no type[T] to mypy
    try:
        return int(answer)
    except ValueError:
        raise ProtocolError("GET /v1/quota: the answer is no number") from None
