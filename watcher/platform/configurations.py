"""Metadata configurations: of a user (1.2.x) or of a dataset (1.5.26)."""

from __future__ import annotations

import msgspec
from sqlalchemy.orm import Session

from watcher.lightly.wire.configurations import (
    ConfigurationData,
    ConfigurationEntry,
    ConfigurationSetRequest,
)
from watcher.lightly.wire.datasets import CreateEntityResponse
from watcher.platform import access
from watcher.platform.calls import Call, Operation
from watcher.platform.faults import invalid, unknown
from watcher.platform.secrets import is_id, new_id
from watcher.platform.store import configurations as store

_MAX_NAME = 255


def to_reply(row: store.ConfigurationRow) -> ConfigurationData:
    """The protocol's form of a configuration."""
    return ConfigurationData(
        id=row.id,
        name=row.name,
        configs=msgspec.json.decode(row.configs, type=list[ConfigurationEntry]),
        created_at=row.created_at,
        last_modified_at=row.modified_at,
    )


def _dataset_id(session: Session, call: Call) -> str | None:
    if "datasetId" not in call.path:
        return None
    found: str = access.find_dataset(session, call).id
    return found


def _find(session: Session, call: Call) -> store.ConfigurationRow:
    dataset_id = _dataset_id(session, call)
    configuration_id = call.path["configurationId"]
    row = (
        store.load_configuration(session, configuration_id=configuration_id)
        if is_id(configuration_id)
        else None
    )
    if row is None or row.dataset_id != dataset_id or (dataset_id is None and row.user_id != call.caller.id):
        raise unknown("METADATA_CONFIGURATION_UNKNOWN", "there is no such metadata configuration")
    return row


def _read(call: Call) -> dict[str, str | int]:
    request = call.read(ConfigurationSetRequest)
    if len(request.name) > _MAX_NAME or "\0" in request.name:
        raise invalid(f"the name has {_MAX_NAME} characters at the most and no NUL")
    return {
        "name": request.name,
        "configs": msgspec.json.encode(request.configs).decode(),
        "modified_at": call.now_ms,
    }


def get_configurations(call: Call) -> list[ConfigurationData]:
    """Those of the dataset, or those of the user."""
    with call.platform.database.read() as session:
        dataset_id = _dataset_id(session, call)
        rows = store.load_configurations(session, user_id=call.caller.id, dataset_id=dataset_id)
    return [to_reply(row) for row in rows]


def create_configuration(call: Call) -> CreateEntityResponse:
    """Adds a configuration."""
    values = _read(call)
    configuration_id = new_id(call.now_s)
    with call.platform.database.write() as session:
        dataset_id = _dataset_id(session, call)
        store.insert_configuration(
            session,
            values={
                **values,
                "id": configuration_id,
                "user_id": call.caller.id,
                "dataset_id": dataset_id,
                "created_at": call.now_ms,
            },
        )
    return CreateEntityResponse(id=configuration_id)


def get_configuration(call: Call) -> ConfigurationData:
    """One configuration."""
    with call.platform.database.read() as session:
        return to_reply(_find(session, call))


def update_configuration(call: Call) -> None:
    """Replaces name and fields."""
    values = _read(call)
    with call.platform.database.write() as session:
        row = _find(session, call)
        store.update_configuration(session, configuration_id=row.id, values=values)


def _build(path: str, suffix: str) -> tuple[Operation, ...]:
    one = path + "/{configurationId}"
    return (
        Operation(
            "GET",
            path,
            f"getMetaDataConfigurations{suffix}",
            get_configurations,
            "List metadata configurations",
            reply=list[ConfigurationData],
        ),
        Operation(
            "POST",
            path,
            f"createMetaDataConfiguration{suffix}",
            create_configuration,
            "Create a metadata configuration",
            reply=CreateEntityResponse,
            body=ConfigurationSetRequest,
            status=201,
        ),
        Operation(
            "GET",
            one,
            f"getMetaDataConfigurationById{suffix}",
            get_configuration,
            "Read a metadata configuration",
            reply=ConfigurationData,
        ),
        Operation(
            "PUT",
            one,
            f"updateMetaDataConfigurationById{suffix}",
            update_configuration,
            "Change a metadata configuration",
            body=ConfigurationSetRequest,
        ),
    )


OPERATIONS = (
    *_build("/v1/configuration/metadata", ""),
    *_build("/v1/datasets/{datasetId}/configuration/metadata", "ByDatasetId"),
)
