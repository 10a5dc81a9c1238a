"""Finding and making datasets by name, safely when several clients do so at once."""

from __future__ import annotations

import itertools

from watcher.domain.errors import (
    ApiException,
    DatasetDoesNotExistError,
    DatasetError,
    UnknownOutcomeError,
)
from watcher.lightly import datasets
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import DatasetCreateRequest, DatasetData, DatasetType

_MAX_NAMES = 10_000
_MAX_TRIES = 3


def find_dataset(transport: Transport, *, name: str, shared: bool | None = False) -> DatasetData:
    """The dataset of exactly this name; of several the first.

    Args:
        transport: the way.
        name: case-sensitive.
        shared: False: own ones; True: those that others share and the team's; None: own ones first, then those.

    Raises:
        DatasetDoesNotExistError: there is none.
    """
    found: list[DatasetData] = []
    if not shared:
        found = datasets.fetch_datasets_by_name(transport, name=name)
    if not found and shared is not False:
        found = datasets.fetch_datasets_by_name(transport, name=name, shared=True)
        found = found or datasets.fetch_datasets_by_name(transport, name=name, shared=False, team=True)
    if not found:
        raise DatasetDoesNotExistError(f"there is no dataset {name[:200]!r}")
    return found[0]


def find_latest_dataset(transport: Transport) -> DatasetData:
    """The dataset that was changed last; DatasetDoesNotExistError if there is none."""
    found = datasets.fetch_datasets(transport)
    if not found:
        raise DatasetDoesNotExistError("there are no datasets yet: make one with create_dataset")
    return max(found, key=lambda dataset: dataset.last_modified_at)


def ensure_dataset(
    transport: Transport, *, name: str, dataset_type: DatasetType = "Images"
) -> tuple[str, DatasetData | None]:
    """The id of the dataset of this name, made if there is none.

    Returns:
        The id, and the dataset if it was there before.

    Raises:
        DatasetError: no dataset may bear this name.
        UnknownOutcomeError: the outcome stayed unknown, after three tries.
    """
    check_dataset_name(name)
    failure: Exception | None = None
    for _ in range(_MAX_TRIES):
        found = datasets.fetch_datasets_by_name(transport, name=name)
        if found:
            return found[0].id, (found[0] if failure is None else None)
        try:
            return _create(transport, name, dataset_type), None
        except UnknownOutcomeError as error:
            failure = error
        except ApiException as error:
            if error.code != "DATASET_NAME_EXISTS":
                raise
            failure = error
    raise failure or DatasetError(f"the dataset {name[:200]!r} could not be made")


def create_uniquely(
    transport: Transport, *, base_name: str, dataset_type: DatasetType = "Images"
) -> tuple[str, str]:
    """Makes a dataset called `base_name`, or the first free of `base_name_1`, `base_name_2`, ...

    Returns:
        Its id and its name.

    Raises:
        DatasetError: no dataset may bear this name.
        UnknownOutcomeError: the dataset may have been made; look.
    """
    check_dataset_name(base_name)
    taken = {
        dataset.name for dataset in datasets.fetch_datasets_by_name(transport, name=base_name, exact=False)
    }
    names = itertools.chain([base_name], (f"{base_name}_{number}" for number in range(1, _MAX_NAMES)))
    for name in names:
        if name in taken:
            continue
        try:
            return _create(transport, name, dataset_type), name
        except ApiException as error:
            # Somebody else was quicker.
            if error.code != "DATASET_NAME_EXISTS":
                raise
    raise DatasetError(f"no free name found for {base_name[:200]!r}")


def check_dataset_name(name: str) -> None:
    """Raises DatasetError unless a dataset may bear this name."""
    allowed = all(char.isascii() and (char.isalnum() or char in " _-") for char in name)
    if len(name) < 3 or not allowed or not name[0].isalnum():
        raise DatasetError(
            f"{name[:100]!r} cannot be the name of a dataset: at least 3 characters, a letter or digit first, then "
            "letters, digits, blanks, _ and -"
        )


def _create(transport: Transport, name: str, dataset_type: DatasetType) -> str:
    request = DatasetCreateRequest(
        name=name,
        type=dataset_type,
        creator=transport.creator,
    )
    return datasets.create_dataset(transport, request=request)
