"""Attaches a watch to its dataset: finds or makes the dataset, and the watch's row in the store."""

from __future__ import annotations

import re
from collections.abc import Iterable

from watcher.database.engine import Database
from watcher.domain.crash_points import crash_point
from watcher.domain.delivery import ManifestRules
from watcher.domain.errors import ApiException, ConfigError, ProtocolError, StoreError
from watcher.domain.models import Watch, WatchConfig
from watcher.domain.own_output import build_own_output
from watcher.lightly import datasets, datasources
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import DatasetCreateRequest
from watcher.lightly.wire.datasources import DatasourceAzure, DatasourceLocal
from watcher.logs import get_logger
from watcher.store import watches

_log = get_logger("attach")


def attach_watch(
    database: Database, transport: Transport, *, config: WatchConfig, server_identity: str, now_ms: int
) -> Watch:
    """The watch's row, once the server has shown that it still has the dataset whose ledger this is.

    Args:
        database: the store.
        transport: the API.
        config: the watch; with a `folder` the dataset and its datasource are made if they are absent.
        server_identity: names the server for ever, so that ledgers of two servers are never mixed.
        now_ms: for a new row.

    Raises:
        ConfigError: the server has no such dataset.
        StoreError: the store keeps the ledger of another dataset or server under this name, or of one that is gone.
        WatcherError: the server does not answer.
    """
    with database.read() as session:
        known = watches.load_watch(session, name=config.name)
    dataset_id = _find_dataset(transport, config, known)
    if known is not None:
        # Refused before anything is changed on the server.
        watches.check_identity(known, server=server_identity, dataset_id=dataset_id)
    _set_folder(transport, config, dataset_id)
    with database.write() as session:
        watch = watches.ensure_watch(
            session, name=config.name, server=server_identity, dataset_id=dataset_id, now_ms=now_ms
        )
    crash_point("attach.watch_stored")
    _log.info("watch.attached", watch=watch.name, dataset_id=watch.dataset_id)
    return watch


def make_dataset(transport: Transport, *, name: str, folder: str) -> str:
    """A dataset over a folder of the server, made unless it is there.

    Returns:
        Its id.

    Raises:
        WatcherError: the server does not answer, or has no such folder.
    """
    config = WatchConfig(name=name, dataset=name, folder=folder)
    dataset_id = _find_dataset(transport, config, None)
    _set_folder(transport, config, dataset_id)
    return dataset_id


def _set_folder(transport: Transport, config: WatchConfig, dataset_id: str) -> None:
    if config.folder is not None:
        datasources.update_datasource(
            transport,
            dataset_id=dataset_id,
            datasource=DatasourceLocal(full_path=config.folder, purpose="INPUT_OUTPUT"),
        )
        crash_point("attach.datasource_set")


def find_own_output(
    transport: Transport, *, dataset_id: str, configs: Iterable[WatchConfig]
) -> re.Pattern[str]:
    """Which names of the datasource are manifests of ours; the server is asked only if one goes into a bucket.

    Raises:
        WatcherError: the server does not answer.
    """
    chosen = list(configs)
    rules = (sink.rules for config in chosen for sink in config.deliver.sinks)
    if not any(isinstance(each, ManifestRules) and each.is_bucket for each in rules):
        return build_own_output(None, chosen)
    try:
        datasource = datasources.fetch_datasource(transport, dataset_id=dataset_id)
    except ApiException as error:
        if error.retryable:
            raise
        return build_own_output(None, chosen)
    except ProtocolError:
        return build_own_output(None, chosen)
    source = datasource.full_path
    if isinstance(datasource, DatasourceAzure) and "://" not in source:
        source = f"az://{source}"
    return build_own_output(source, chosen)


def _find_dataset(transport: Transport, config: WatchConfig, known: Watch | None) -> str:
    found = datasets.fetch_datasets_by_name(transport, name=config.dataset, exact=True)
    if found:
        return found[0].id
    if known is not None:
        raise StoreError(
            f"the store keeps the ledger of dataset {known.dataset_id} at {known.server} for the watch "
            f"{config.name!r}, but the server has no dataset {config.dataset!r} any more: it was deleted or renamed, "
            "or the server's data were replaced. Bring it back, or give the watch another name or another store"
        )
    if config.folder is None:
        raise ConfigError(
            f"the server has no dataset {config.dataset!r}: create it there and configure its datasource, or correct "
            f"WATCHER_WATCHES__{config.name.upper()}__DATASET"
        )
    dataset_id = datasets.create_dataset(transport, request=DatasetCreateRequest(name=config.dataset))
    crash_point("attach.dataset_created")
    return dataset_id
