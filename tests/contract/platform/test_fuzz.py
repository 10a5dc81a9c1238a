"""Schemathesis over the served document: whatever is sent, no answer is a 5xx, and every answer has its declared form."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from watcher.platform.app import OPERATIONS
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig

TOKEN = "token-of-the-fuzzer"


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "root" / "in").mkdir(parents=True)
    config = PlatformConfig(token=TOKEN, datasource_root=folder / "root", data_dir=folder / "data", port=0)
    server = PlatformServer(config)
    server.start()
    import requests

    def call(method, path, **arguments):
        return requests.request(
            method, server.url + path, params={"token": TOKEN}, timeout=10, **arguments
        ).json()

    dataset = call("POST", "/v1/datasets", json={"name": "fuzzed"})["id"]
    requests.put(
        f"{server.url}/v1/datasets/{dataset}/datasource",
        params={"token": TOKEN},
        json={"type": "LOCAL", "fullPath": "in"},
        timeout=10,
    )
    sample = call("POST", f"/v1/datasets/{dataset}/samples", json={"fileName": "a.jpg"})["id"]
    tag = call("POST", f"/v1/datasets/{dataset}/tags/initial", json={"imgType": "meta"})["id"]
    loaded = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    loaded.known = {"datasetId": dataset, "sampleId": sample, "tagId": tag}
    yield loaded
    server.stop()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS])
def test_no_input_makes_the_server_fail(document, name):
    operation = document.find_operation_by_id(name)

    @settings(
        max_examples=12,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],  # a machine under load draws slowly
    )
    @given(case=operation.as_strategy())
    def send(case):
        # Ids that exist, so that the checks behind them are reached too.
        for parameter, value in document.known.items():
            if parameter in (case.path_parameters or {}) and name != "deleteDatasetById":
                case.path_parameters[parameter] = value
        response = case.call(params={"token": TOKEN}, allow_redirects=False)
        case.validate_response(
            response,
            checks=[
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_schema_conformance,
            ],
        )

    send()
