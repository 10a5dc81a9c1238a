"""A server for the contract suite: the platform of this package, or whatever `WATCHER_CONTRACT_SERVER` names.

With `WATCHER_CONTRACT_SERVER` and `WATCHER_CONTRACT_TOKEN` the suite runs against another server. Tests of listings
need a folder that this server reads as a LOCAL datasource: `WATCHER_CONTRACT_DATASOURCE_ROOT`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.contract.client.middleman import Middleman, stand_between
from watcher.domain.backoff import Backoff
from watcher.lightly import ApiWorkflowClient, Transport, datasources
from watcher.lightly.wire.datasources import DatasourceLocal

TOKEN = "contract-token-0123"


@dataclass(frozen=True)
class Target:
    url: str
    token: str
    datasource_root: Path | None
    page_size: int | None = None


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    url = os.environ.get("WATCHER_CONTRACT_SERVER")
    if url:
        root = os.environ.get("WATCHER_CONTRACT_DATASOURCE_ROOT")
        yield Target(url, os.environ["WATCHER_CONTRACT_TOKEN"], Path(root) if root else None)
        return
    from watcher.platform.server import PlatformServer
    from watcher.platform.settings import PlatformConfig

    folder = tmp_path_factory.mktemp("platform")
    root = folder / "objects"
    root.mkdir()
    server = PlatformServer(
        PlatformConfig(token=TOKEN, datasource_root=root, data_dir=folder / "data", port=0, page_size=10)
    )
    server.start()
    try:
        yield Target(server.url, TOKEN, root, page_size=10)
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIGHTLY_TOKEN", "LIGHTLY_SERVER_LOCATION", "LIGHTLY_CA_CERTS", "LIGHTLY_S3_SSE_KMS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def man(target: Target) -> Iterator[Middleman]:
    """A server between the client and the real one, for what only goes wrong in between."""
    with stand_between(target.url) as between:
        yield between


@pytest.fixture
def through(client: ApiWorkflowClient, man: Middleman) -> Iterator[ApiWorkflowClient]:
    """A client of the same dataset, by way of the middleman."""
    made = build_client(man.url, client.token)
    made.wait_time_till_next_poll = 0.05
    made.dataset_id = client.dataset_id
    yield made
    made.transport.close()


def build_client(url: str, token: str) -> ApiWorkflowClient:
    """A client with quick retries."""
    return ApiWorkflowClient(
        transport=Transport(server=url, token=token, retry=Backoff(base_s=0.02, cap_s=0.1, max_attempts=4))
    )


@pytest.fixture
def client(target: Target) -> Iterator[ApiWorkflowClient]:
    """A client with an empty dataset of its own, deleted afterwards."""
    made = build_client(target.url, target.token)
    made.wait_time_till_next_poll = 0.05
    made.create_dataset(f"contract {uuid.uuid4().hex}")
    dataset_id = made.dataset_id
    yield made
    try:
        made.delete_dataset_by_id(dataset_id)
    except Exception as error:
        if getattr(error, "status", None) != 404:
            raise
    made.transport.close()


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with photographs of noise under the given names."""

    def make(*names: str, folder: str = "images", size: tuple[int, int] = (80, 60)) -> Path:
        root = tmp_path / folder
        for number, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        root.mkdir(exist_ok=True)
        return root

    return make


@pytest.fixture
def uploaded(client: ApiWorkflowClient, folder_of: Callable[..., Path]) -> ApiWorkflowClient:
    """The client's dataset with six images, uploaded in full."""
    client.upload_dataset(
        str(folder_of("a.png", "b.png", "c.jpg", "sub/d.png", "sub/e f+%.png", "ü.png")),
        mode="full",
        verbose=False,
    )
    return client


@pytest.fixture
def objects(client: ApiWorkflowClient, target: Target) -> Path:
    """A folder that is the LOCAL datasource of the client's dataset."""
    if target.datasource_root is None:
        pytest.skip(
            "WATCHER_CONTRACT_DATASOURCE_ROOT is not set: a folder that the other server reads as LOCAL"
        )
    name = f"source-{uuid.uuid4().hex}"
    folder = target.datasource_root / name
    folder.mkdir()
    datasources.update_datasource(
        client.transport, dataset_id=client.dataset_id, datasource=DatasourceLocal(full_path=name)
    )
    return folder
