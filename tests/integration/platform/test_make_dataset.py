"""A dataset over a folder, made by command on a platform that runs elsewhere."""

from __future__ import annotations

import pytest

from tests.builders import run_command
from watcher.lightly import datasets, datasources
from watcher.lightly.transport import Transport
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig

TOKEN = "a-token-of-the-tests"


@pytest.fixture
def server(tmp_path):
    (tmp_path / "root" / "gate").mkdir(parents=True)
    started = PlatformServer(
        PlatformConfig(token=TOKEN, datasource_root=tmp_path / "root", data_dir=tmp_path / "platform", port=0)
    )
    started.start()
    yield started
    started.stop()


def command(server, *arguments: str, token: str = TOKEN):
    return run_command("make-dataset", *arguments, LIGHTLY_SERVER_LOCATION=server.url, LIGHTLY_TOKEN=token)


def test_dataset_made_by_command_has_its_folder_and_is_made_once(server):
    told = [command(server, "gate", "--folder", "gate") for _ in range(2)]
    assert [result.exit_code for result in told] == [0, 0]
    assert told[0].output == told[1].output
    transport = Transport(server=server.url, token=TOKEN)
    (dataset,) = datasets.fetch_datasets_by_name(transport, name="gate", exact=True)
    source = datasources.fetch_datasource(transport, dataset_id=dataset.id)
    transport.close()
    assert (type(source).__name__, source.full_path) == ("DatasourceLocal", "gate")


@pytest.mark.parametrize("folder", ["../out", "/etc", ""])
def test_dataset_over_a_folder_outside_is_refused(server, folder):
    refused = command(server, "gate", "--folder", folder)
    assert refused.exit_code == 2
    assert "--folder" in refused.output


def test_dataset_without_a_server_names_the_variables(tmp_path):
    refused = run_command("make-dataset", "gate", "--folder", "gate", WATCHER_DATA_DIR=str(tmp_path))
    assert refused.exit_code == 2
    assert "LIGHTLY_SERVER_LOCATION" in refused.output
