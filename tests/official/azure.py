"""AZURE datasources and manifests over Azure's own protocol, spoken by azurite; not collected by `make test`, since npm brings it."""

from __future__ import annotations

import base64
import datetime as dt
import hmac
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
import requests
from obstore.store import AzureStore

from tests.unit.sinks.conftest import Batch
from watcher.domain.clock import SystemClock
from watcher.domain.delivery import ManifestRules
from watcher.domain.errors import StoreUnavailableError
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
from watcher.sinks.base import SinkParts
from watcher.sinks.manifest import ManifestSink

AZURITE = Path(__file__).parents[2] / ".official-azurite/node_modules/azurite/dist/src/blob/main.js"
ACCOUNT = "devstoreaccount1"
# The public key of every azurite.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
TOKEN = "token-of-the-azure-test"
NAMES = [
    "a b.jpg",
    "a+b%20.jpg",
    "ünï/日本.png",
    ".dot.jpg",
    "q?x=1&y#z.jpg",
    "plain/deep/c.jpg",
    "tilde~'(1).png",
]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory) -> Iterator[str]:
    if not AZURITE.exists():
        pytest.skip("azurite is not installed: run tests/official/build_environments.sh where there is npm")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [
        "node",
        str(AZURITE),
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--inMemoryPersistence",
    ]
    command += ["--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    process = subprocess.Popen(command, cwd=tmp_path_factory.mktemp("azurite"), stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                requests.get(url, timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        create_container(url)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def create_container(url: str) -> None:
    date = dt.datetime.now(dt.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
    text += f"/{ACCOUNT}/{ACCOUNT}/pictures\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")).decode()
    headers = {
        "x-ms-date": date,
        "x-ms-version": "2021-08-06",
        "Authorization": f"SharedKey {ACCOUNT}:{signature}",
    }
    answer = requests.put(f"{url}/{ACCOUNT}/pictures?restype=container", headers=headers, timeout=10)
    assert answer.status_code == 201, answer.text
    store = open_container(url)
    for name in NAMES:
        obstore.put(store, f"incoming/{name}", name.encode())


def open_container(url: str) -> AzureStore:
    config = {
        "account_name": ACCOUNT,
        "account_key": KEY,
        "container_name": "pictures",
        "endpoint": f"{url}/{ACCOUNT}",
    }
    return AzureStore(config=config, client_options={"allow_http": True})


def test_manifest_appears_in_a_container(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{endpoint}/{ACCOUNT}")
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    parts = SinkParts(data_dir=tmp_path, work_dir=tmp_path, clock=SystemClock())
    sink = ManifestSink(ManifestRules(location="az://pictures/for labelling"), parts)
    first = "for labelling/gate-000001.jsonl"
    for _repeat in range(2):
        location = sink.deliver(Batch(["a+b %25.jpg", "b"]).handover()).location
        assert location == f"az://pictures/{first}"
    other = sink.deliver(Batch(["others"]).handover()).location
    assert other == f"az://pictures/{first.replace('.jsonl', '-2.jsonl')}"
    body = bytes(obstore.get(open_container(endpoint), first).bytes())
    assert [json.loads(text)["file_name"] for text in body.splitlines()] == ["a+b %25.jpg", "b"]
    absent = ManifestSink(ManifestRules(location="az://absent/x"), parts)
    with pytest.raises(StoreUnavailableError, match=r"az://absent/x/gate-000001.jsonl cannot be written"):
        absent.deliver(Batch(["a"]).handover())
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"wrong").decode())
    with pytest.raises(
        StoreUnavailableError, match=r"the credentials are refused; check .*AZURE_STORAGE_ACCOUNT_NAME"
    ):
        sink.deliver(Batch(["a"]).handover())
    assert list(tmp_path.iterdir()) == []


def test_objects_of_a_container_are_listed_and_read(endpoint, tmp_path):
    (tmp_path / "root").mkdir()
    config = PlatformConfig(
        token=TOKEN,
        datasource_root=tmp_path / "root",
        data_dir=tmp_path / "data",
        port=0,
        page_size=3,
        azure_endpoint=endpoint,
    )
    server = PlatformServer(config)
    server.start()
    try:
        session = requests.Session()
        session.params = {"token": TOKEN}
        dataset_id = session.post(f"{server.url}/v1/datasets", json={"name": "pictures"}, timeout=10).json()[
            "id"
        ]
        path = f"{server.url}/v1/datasets/{dataset_id}/datasource"
        settings = {
            "type": "AZURE",
            "fullPath": "pictures/incoming",
            "accountName": ACCOUNT,
            "accountKey": KEY,
            "purpose": "INPUT_OUTPUT",
        }
        assert session.put(path, json=settings, timeout=10).status_code == 200
        assert session.get(path, timeout=10).json()["accountKey"] == "***"
        rights = session.get(f"{path}/verify", timeout=10).json()
        assert rights == {"canRead": True, "canWrite": True, "canList": True, "canOverwrite": True}
        rows, cursor = [], ""
        while True:
            page = session.get(f"{path}/list", params={"cursor": cursor} if cursor else {}, timeout=10).json()
            rows, cursor = rows + page["data"], page["cursor"]
            if not page["hasMore"]:
                break
        assert sorted(row["fileName"] for row in rows) == sorted(NAMES)
        for row in rows:
            assert requests.get(row["readUrl"], timeout=10).content == row["fileName"].encode(), row
        assert any(row["readUrl"].startswith(endpoint) for row in rows)
        wrong = {**settings, "accountKey": base64.b64encode(b"wrong").decode()}
        session.put(path, json=wrong, timeout=10)
        answer = session.get(f"{path}/list", timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (422, "DATASET_DATASOURCE_CREDENTIALS_ERROR")
    finally:
        server.stop()
