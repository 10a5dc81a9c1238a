"""Datasets."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from watcher.lightly.wire.datasets import (
    CreateEntityResponse,
    DatasetCreateRequest,
    DatasetData,
    DatasetDataEnriched,
    DatasetUpdateRequest,
    EntityBody,
    JobStatusMeta,
)
from watcher.platform import access
from watcher.platform.calls import PAGE_OFFSET, PAGE_SIZE, Call, Operation, boolean, integer
from watcher.platform.faults import Fault, forbidden, invalid, taken, unknown
from watcher.platform.secrets import is_id, new_id
from watcher.platform.store import configurations as configuration_store
from watcher.platform.store import datasets as store
from watcher.platform.store import datasources as datasource_store
from watcher.platform.store import users as user_store

MAX_NAME = 255
MAX_COUNT = 2**53
SHARED = boolean("shared")
EXACT = boolean("exact")
TEAM = boolean("getAssetsOfTeam")
TEAM_AND_SELF = boolean("getAssetsOfTeamInclusiveSelf")
LIMIT = integer("limit")
LIST_QUERY = (SHARED, PAGE_SIZE, PAGE_OFFSET, boolean("excludePlayground"), TEAM, TEAM_AND_SELF)


def to_reply(session: Session, row: store.DatasetRow) -> DatasetData:
    """The protocol's form of a dataset."""
    sources = datasource_store.load_datasources(session, dataset_id=row.id)
    return DatasetData(
        id=row.id,
        name=row.name,
        user_id=row.user_id,
        type=row.type,
        n_samples=row.n_samples,
        size_in_bytes=row.size_in_bytes,
        created_at=row.created_at,
        last_modified_at=row.modified_at,
        img_type=row.img_type,
        meta_data_configuration_id=row.metadata_configuration_id,
        datasources=[source.id for source in sources],
        datasource_processed_until_timestamp=row.processed_until,
        parent_dataset_id=row.parent_dataset_id,
    )


def _scope(call: Call) -> store.Scope:
    if TEAM_AND_SELF.of(call):
        return "all"
    if SHARED.of(call) or TEAM.of(call):
        return "shared"
    return "own"


def _page(call: Call) -> tuple[int, int | None]:
    return PAGE_OFFSET.of(call) or 0, PAGE_SIZE.of(call)


def get_datasets(call: Call) -> list[DatasetData]:
    """All datasets of the scope; everything in one reply without a page size."""
    offset, limit = _page(call)
    with call.platform.database.read() as session:
        rows = store.load_datasets(
            session, user_id=call.caller.id, scope=_scope(call), offset=offset, limit=limit
        )
        return [to_reply(session, row) for row in rows]


def get_datasets_by_name(call: Call) -> list[DatasetData]:
    """Datasets by exact name or prefix; none is an empty list."""
    offset, limit = _page(call)
    name = call.path["datasetName"]
    if "\0" in name:
        return []
    exact = EXACT.of(call)
    with call.platform.database.read() as session:
        rows = store.load_datasets(
            session,
            user_id=call.caller.id,
            scope=_scope(call),
            name=None if exact is False else name,
            prefix=name if exact is False else None,
            offset=offset,
            limit=limit,
        )
        return [to_reply(session, row) for row in rows]


def get_datasets_enriched(call: Call) -> Iterable[DatasetDataEnriched]:
    """Datasets with counts, newest first if limited."""
    offset, limit = _page(call)
    newest = LIMIT.of(call)
    replies = []
    with call.platform.database.read() as session:
        rows = store.load_datasets(
            session,
            user_id=call.caller.id,
            scope=_scope(call),
            offset=offset,
            limit=limit if newest is None else newest,
            newest_first=newest is not None,
        )
        for row in rows:
            plain = to_reply(session, row)
            n_tags, n_embeddings = store.count_parts(session, dataset_id=row.id)
            replies.append(
                DatasetDataEnriched(
                    id=plain.id,
                    name=plain.name,
                    user_id=plain.user_id,
                    type=plain.type,
                    n_samples=plain.n_samples,
                    size_in_bytes=plain.size_in_bytes,
                    created_at=plain.created_at,
                    last_modified_at=plain.last_modified_at,
                    samples=[],
                    n_tags=n_tags,
                    n_embeddings=n_embeddings,
                    img_type=plain.img_type,
                    meta_data_configuration_id=plain.meta_data_configuration_id,
                    datasources=plain.datasources,
                    parent_dataset_id=plain.parent_dataset_id,
                )
            )
    return replies


def create_dataset(call: Call) -> CreateEntityResponse:
    """Adds a dataset; names are unique for each user."""
    request = call.read(DatasetCreateRequest)
    _check_name(request.name)
    dataset_id = new_id(call.now_s)
    limit = call.caller.max_datasets
    values = {
        "id": dataset_id,
        "user_id": call.caller.id,
        "name": request.name,
        "type": request.type,
        "img_type": request.img_type,
        "creator": request.creator,
        "parent_dataset_id": request.parent_dataset_id,
        "n_samples": 0,
        "tags_size": 0,
        "size_in_bytes": 0,
        "processed_until": 0,
        "created_at": call.now_ms,
        "modified_at": call.now_ms,
    }
    try:
        with call.platform.database.write() as session:
            if limit is not None and store.count_datasets(session, user_id=call.caller.id) >= limit:
                raise forbidden(f"this user may have {limit} datasets at the most: delete one first")
            store.insert_dataset(session, values=values)
    except IntegrityError as error:
        raise _name_exists(request.name) from error
    return CreateEntityResponse(id=dataset_id)


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME:
        raise invalid(f"the name is longer than {MAX_NAME} characters")


def _name_exists(name: str) -> Fault:
    return taken("DATASET_NAME_EXISTS", f"there is a dataset {name!r} already: choose another name")


def get_dataset(call: Call) -> DatasetData:
    """One dataset."""
    with call.platform.database.read() as session:
        return to_reply(session, access.find_dataset(session, call))


def update_dataset(call: Call) -> None:
    """Renames a dataset; only its owner may."""
    request = call.read(DatasetUpdateRequest)
    _check_name(request.name)
    try:
        with call.platform.database.write() as session:
            dataset = access.find_dataset(session, call, lock=True)
            must_own(call, dataset)
            store.update_dataset(
                session, dataset_id=dataset.id, values={"name": request.name, "modified_at": call.now_ms}
            )
    except IntegrityError as error:
        raise _name_exists(request.name) from error


def must_own(call: Call, dataset: store.DatasetRow) -> None:
    """Raises 403 unless the dataset is the caller's own."""
    if dataset.user_id != call.caller.id:
        raise forbidden("only the owner of a dataset may do this")


def delete_dataset(call: Call) -> None:
    """Removes a dataset at once for all who ask, its rows and uploads soon; the datasource's objects stay."""
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        must_own(call, dataset)
        store.hide_dataset(session, dataset_id=dataset.id, now_ms=call.now_ms)
    call.platform.sources.clear()
    call.platform.cleaning_due.set()


def register_upload(call: Call) -> None:
    """Notes an announced upload; refuses one that would not fit."""
    request = call.read(JobStatusMeta)
    if not 0 <= request.processed <= MAX_COUNT or not 0 <= request.total <= MAX_COUNT:
        raise invalid("total and processed must be counts")
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        own = user_store.load_max_samples(session, user_id=dataset.user_id)
        limit = call.platform.config.max_samples if own is None else own
        if request.total > limit:
            raise forbidden(f"a dataset holds {limit} samples at the most", "DATASET_AT_MAX_CAPACITY")
        values = {
            "upload_total": request.total,
            "upload_processed": request.processed,
            "modified_at": call.now_ms,
        }
        store.update_dataset(session, dataset_id=dataset.id, values=values)


def set_metadata_configuration(call: Call) -> None:
    """Attaches a metadata configuration of the user (1.2.x)."""
    request = call.read(EntityBody)
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        row = (
            configuration_store.load_configuration(session, configuration_id=request.id)
            if is_id(request.id)
            else None
        )
        if row is None or (row.user_id != call.caller.id and row.dataset_id != dataset.id):
            raise unknown("METADATA_CONFIGURATION_UNKNOWN", "there is no such metadata configuration")
        values = {"metadata_configuration_id": row.id, "modified_at": call.now_ms}
        store.update_dataset(session, dataset_id=dataset.id, values=values)


_ONE = "/v1/datasets/{datasetId}"
OPERATIONS = (
    Operation(
        "GET",
        "/v1/datasets",
        "getDatasets",
        get_datasets,
        "List datasets",
        reply=list[DatasetData],
        query=LIST_QUERY,
    ),
    Operation(
        "POST",
        "/v1/datasets",
        "createDataset",
        create_dataset,
        "Create a dataset",
        reply=CreateEntityResponse,
        body=DatasetCreateRequest,
        status=201,
    ),
    Operation(
        "GET",
        "/v1/datasets/enriched",
        "getDatasetsEnriched",
        get_datasets_enriched,
        "List datasets with counts",
        reply=list[DatasetDataEnriched],
        query=(LIMIT, *LIST_QUERY),
    ),
    Operation(
        "GET",
        "/v1/datasets/query/name/{datasetName:anything}",
        "getDatasetsQueryByName",
        get_datasets_by_name,
        "Find datasets by name",
        reply=list[DatasetData],
        query=(EXACT, *LIST_QUERY),
    ),
    Operation("GET", _ONE, "getDatasetById", get_dataset, "Read a dataset", reply=DatasetData),
    Operation(
        "PUT", _ONE, "updateDatasetById", update_dataset, "Rename a dataset", body=DatasetUpdateRequest
    ),
    Operation(
        "DELETE",
        _ONE,
        "deleteDatasetById",
        delete_dataset,
        "Delete a dataset",
        query=(boolean("force"),),
    ),
    Operation(
        "PUT",
        f"{_ONE}/registerDatasetUpload",
        "registerDatasetUploadById",
        register_upload,
        "Announce an upload",
        body=JobStatusMeta,
    ),
    Operation(
        "PUT",
        f"{_ONE}/setMetaDataConfiguration",
        "updateMetaDataConfigurationIdByDatasetId",
        set_metadata_configuration,
        "Attach a metadata configuration",
        body=EntityBody,
    ),
)
