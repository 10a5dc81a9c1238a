"""With whom a dataset is shared: its owner says so by the names of users; the operator may by command."""

from __future__ import annotations

from watcher.lightly.wire.collaboration import SharedAccessData, SharedAccessRequest
from watcher.lightly.wire.datasets import CreateEntityResponse
from watcher.platform import access, datasets
from watcher.platform.calls import Call, Operation
from watcher.platform.faults import invalid, unknown
from watcher.platform.store import users as store

_MAX_USERS = 1000


def get_accesses(call: Call) -> list[SharedAccessData]:
    """The one list of those whom the dataset is shared with; it has the dataset's id."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        names = store.load_names_of_shares(session, dataset_id=dataset.id)
    if not names:
        return []
    return [
        SharedAccessData(
            id=dataset.id,
            owner=dataset.user_id,
            access_type="WRITE",
            users=names,
            teams=[],
            created_at=dataset.created_at,
            last_modified_at=dataset.modified_at,
        )
    ]


def set_access(call: Call) -> CreateEntityResponse:
    """Shares the dataset with these users and no others."""
    request = call.read(SharedAccessRequest)
    if request.teams:
        raise invalid("this server has no teams: name users")
    names = set(request.users or ())
    if len(names) > _MAX_USERS:
        raise invalid(f"a dataset is shared with {_MAX_USERS} users at the most")
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        datasets.must_own(call, dataset)
        # No name holds a NUL, and Postgres takes none.
        found = store.load_ids_by_names(session, names=[name for name in names if "\0" not in name])
        missing = min(names - found.keys(), default=None)
        if missing is not None:
            raise invalid(f"there is no user {missing[:100]!r}: share by the names that the operator gave")
        store.replace_shares(session, dataset_id=dataset.id, user_ids=set(found.values()) - {dataset.user_id})
    return CreateEntityResponse(id=dataset.id)


def delete_access(call: Call) -> None:
    """Ends all sharing of the dataset."""
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        datasets.must_own(call, dataset)
        if call.path["accessConfigId"] != dataset.id:
            raise unknown("NOT_FOUND", "the dataset is not shared by that list")
        store.replace_shares(session, dataset_id=dataset.id, user_ids=set())


_ALL = "/v1/datasets/{datasetId}/collaboration/access"
OPERATIONS = (
    Operation(
        "GET",
        _ALL,
        "getSharedAccessConfigsByDatasetId",
        get_accesses,
        "With whom a dataset is shared",
        reply=list[SharedAccessData],
    ),
    Operation(
        "POST",
        _ALL,
        "createOrUpdateSharedAccessConfigByDatasetId",
        set_access,
        "Share a dataset with these users alone",
        reply=CreateEntityResponse,
        body=SharedAccessRequest,
        status=201,
    ),
    Operation(
        "DELETE",
        _ALL + "/{accessConfigId}",
        "deleteSharedAccessConfigById",
        delete_access,
        "End the sharing of a dataset",
    ),
)
