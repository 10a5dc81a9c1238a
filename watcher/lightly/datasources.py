"""Datasources: configuration, listing, the processed-until mark. Times are whole unix seconds."""

from __future__ import annotations

from typing import Any

import msgspec

from watcher.domain.errors import ProtocolError
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasources import (
    Datasource,
    DatasourceVerifyData,
    DivideAndConquerCursors,
    ProcessedUntilTimestamp,
    RawSamplesPage,
)

_DATASOURCE = "/v1/datasets/{datasetId}/datasource"
LIST_ENDPOINT = f"{_DATASOURCE}/list"
SHARDS_ENDPOINT = f"{_DATASOURCE}/list/dnc"
MARK_ENDPOINT = f"{_DATASOURCE}/processedUntilTimestamp"


def fetch_datasource_fields(
    transport: Transport, *, dataset_id: str, purpose: str | None = None
) -> dict[str, Any]:
    """The configuration as it stands on the wire, JSON names included; ApiException if there is none."""
    return transport.get_json(
        _DATASOURCE, type=dict[str, Any], path_params={"datasetId": dataset_id}, query={"purpose": purpose}
    )


def fetch_datasource(transport: Transport, *, dataset_id: str, purpose: str | None = None) -> Datasource:
    """The configuration by kind.

    Raises:
        ApiException: none is configured.
        ProtocolError: the kind is unknown here, or a field is missing.
    """
    fields = fetch_datasource_fields(transport, dataset_id=dataset_id, purpose=purpose)
    try:
        datasource: Datasource = msgspec.convert(fields, Datasource)
    except msgspec.ValidationError as error:
        reason = str(error)
    else:
        return datasource
    raise ProtocolError(f"GET {_DATASOURCE}: not a datasource known here: {reason[:300]}")


def update_datasource(transport: Transport, *, dataset_id: str, datasource: Datasource) -> None:
    """Sets the configuration, secrets included."""
    transport.send("PUT", _DATASOURCE, path_params={"datasetId": dataset_id}, body=datasource)


def fetch_datasource_rights(transport: Transport, *, dataset_id: str) -> DatasourceVerifyData:
    """What the server may do in the datasource."""
    return transport.get_json(
        f"{_DATASOURCE}/verify", type=DatasourceVerifyData, path_params={"datasetId": dataset_id}
    )


def fetch_raw_samples_page(
    transport: Transport,
    *,
    dataset_id: str,
    from_s: int | None = None,
    to_s: int | None = None,
    cursor: str | None = None,
    relevant_filenames_file_name: str | None = None,
    use_redirected_read_url: bool | None = None,
) -> RawSamplesPage:
    """One page of the listing: the first one by `from_s` and `to_s`, both included, the others by cursor alone."""
    return transport.get_json(
        LIST_ENDPOINT,
        type=RawSamplesPage,
        path_params={"datasetId": dataset_id},
        query={
            "from": from_s,
            "to": to_s,
            "cursor": cursor,
            "relevantFilenamesFileName": relevant_filenames_file_name,
            "useRedirectedReadUrl": use_redirected_read_url,
        },
    )


def fetch_shard_cursors(
    transport: Transport,
    *,
    dataset_id: str,
    from_s: int,
    to_s: int,
    n_shards: int,
    relevant_filenames_file_name: str | None = None,
) -> list[str]:
    """Cuts a listing into at most `n_shards` listings, which together hold each object once.

    Raises:
        ApiException: for servers without this endpoint see `answers.is_missing_endpoint`.
    """
    return transport.get_json(
        SHARDS_ENDPOINT,
        type=DivideAndConquerCursors,
        path_params={"datasetId": dataset_id},
        query={
            "from": from_s,
            "to": to_s,
            "dncShards": n_shards,
            "relevantFilenamesFileName": relevant_filenames_file_name,
        },
    ).cursors


def fetch_processed_until(transport: Transport, *, dataset_id: str) -> int:
    """The mark; 0 if nothing was processed yet."""
    return transport.get_json(
        MARK_ENDPOINT, type=ProcessedUntilTimestamp, path_params={"datasetId": dataset_id}
    ).processed_until_timestamp


def update_processed_until(transport: Transport, *, dataset_id: str, timestamp_s: int) -> None:
    """Sets the mark; it may go back."""
    transport.send(
        "PUT",
        MARK_ENDPOINT,
        path_params={"datasetId": dataset_id},
        body=ProcessedUntilTimestamp(processed_until_timestamp=timestamp_s),
    )
