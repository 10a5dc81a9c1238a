"""Which calls each method makes: the original's, save what `docs/differences.md` lists."""

from __future__ import annotations

import re
import uuid

import numpy as np
import pytest

from tests.contract.client.conftest import build_client
from watcher.lightly import SamplerConfig, SamplingMethod, format_custom_metadata, write_embeddings_csv
from watcher.lightly.workflows.embeddings import wait_until_processed

D = "/v1/datasets/D"


def _calls(man) -> list[str]:
    found = []
    for asked in man.asked:
        path = re.sub(r"/v1/datasets/[0-9a-f]{24}", D, asked.path)
        path = re.sub(r"[0-9a-f]{24}", "ID", path)
        if "/v1/" not in path:
            path = "signed URL"
        if "/v1/jobs/" in path:
            path = "/v1/jobs/ID"
        call = f"{asked.method} {path}"
        if not found or found[-1] != call or "jobs" not in call:
            found.append(call)
    return found


@pytest.fixture
def quiet(through, man):
    """Forgets what was asked to get there."""
    man.asked.clear()
    return through


def test_wire_of_reading(uploaded, quiet, man):
    tag = quiet.get_tag_by_name("initial-tag")
    quiet.get_all_tags()
    quiet.get_tag_by_id(tag.id)
    quiet.get_filenames()
    quiet.get_filenames_in_tag(tag)
    assert _calls(man) == [
        f"GET {D}/tags",
        f"GET {D}/tags",
        f"GET {D}/tags/ID",
        f"GET {D}/mappings",
        f"GET {D}/mappings",
    ]
    assert all(asked.query["token"] == quiet.token for asked in man.asked)
    assert man.asked[-1].query["field"] == "fileName"


def test_wire_of_the_datasource(objects, quiet, man):
    quiet.get_datasource()
    quiet.download_raw_samples(5, 6)
    quiet.update_processed_until_timestamp(7)
    quiet.get_processed_until_timestamp()
    mark = f"{D}/datasource/processedUntilTimestamp"
    assert _calls(man) == [f"GET {D}/datasource", f"GET {D}/datasource/list", f"PUT {mark}", f"GET {mark}"]
    assert man.asked[1].query == {"from": "5", "to": "6", "token": quiet.token}
    assert man.asked[2].json == {"processedUntilTimestamp": 7}


def test_wire_of_new_raw_samples(objects, quiet, man):
    quiet.download_new_raw_samples()
    mark = f"{D}/datasource/processedUntilTimestamp"
    # The first call is for the server's time, the one before the PUT for a mark that somebody else moved.
    assert _calls(man) == [
        f"GET {mark}",
        f"GET {mark}",
        f"GET {D}/datasource/list",
        f"GET {mark}",
        f"PUT {mark}",
    ]


def test_wire_of_datasets(man, through):
    client = build_client(man.url, through.token)
    name = f"wire {uuid.uuid4().hex[:12]}"
    client.create_dataset(name)
    client.set_dataset_id_by_name(name)
    _ = client.dataset_type
    client.delete_dataset_by_id(client.dataset_id)
    by_name = f"GET /v1/datasets/query/name/{name}"
    assert _calls(man) == [by_name, "POST /v1/datasets", by_name, f"GET {D}", f"DELETE {D}"]
    assert man.asked[0].query == {
        "shared": "False", "exact": "True", "pageSize": "5000", "pageOffset": "0", "token": through.token,
    }  # fmt: skip
    assert man.asked[1].json == {"name": name, "creator": "USER_PIP"}


def test_wire_of_an_upload(quiet, man, folder_of):
    quiet.upload_dataset(str(folder_of("a.png")), mode="full", verbose=False)
    assert _calls(man) == [
        f"GET {D}/tags",
        f"GET {D}/mappings",
        "GET /v1/quota",
        f"GET {D}/datasource",
        f"PUT {D}/registerDatasetUpload",
        f"POST {D}/samples/withWriteUrls",
        "PUT signed URL",
        "PUT signed URL",
        f"GET {D}/tags",
        f"POST {D}/tags/initial",
        f"GET {D}/tags/ID",
        f"GET {D}/mappings",
    ]
    announced = next(asked for asked in man.asked if asked.path.endswith("registerDatasetUpload"))
    assert announced.json == {"total": 1, "processed": 0, "uploadMethod": "USER_PIP", "isRegistered": True}
    created = next(asked for asked in man.asked if asked.path.endswith("withWriteUrls"))
    assert {"fileName", "thumbName", "metaData"} <= set(created.json)
    assert {"mean", "std", "sumOfValues", "sumOfSquares", "shape", "snr", "sharpness", "sizeInBytes"} <= set(
        created.json["metaData"]
    )
    assert not any("token" in asked.query for asked in man.asked if "/v1/" not in asked.path)


def test_wire_of_custom_metadata(uploaded, quiet, man):
    quiet.upload_custom_metadata(format_custom_metadata([("a.png", {"x": 1})]))
    assert _calls(man) == [f"GET {D}/samples/partial", f"PUT {D}/samples/ID"]
    assert man.asked[0].query["mode"] == "fileNames"
    assert man.asked[1].json == {"customMetaData": {"x": 1, "image_id": 0}}


def test_wire_of_embeddings_and_sampling(uploaded, quiet, man, tmp_path):
    names = uploaded.get_filenames()
    write_embeddings_csv(tmp_path / "e.csv", names, np.eye(6))
    quiet.upload_embeddings(str(tmp_path / "e.csv"), "default")
    assert _calls(man) == [
        f"GET {D}/mappings",
        f"GET {D}/embeddings",
        f"GET {D}/embeddings",
        f"GET {D}/embeddings/writeCSVUrl",
        "PUT signed URL",
        *[f"POST {D}/embeddings/ID/trigger2dEmbeddingsJob"] * 3,
    ]
    wait_until_processed(
        uploaded.transport,
        dataset_id=uploaded.dataset_id,
        embedding_id=quiet.embedding_id,
        deadline_s=30,
        poll_s=0.05,
    )
    man.asked.clear()
    quiet.embedding_id = None
    quiet.sampling(SamplerConfig(SamplingMethod.CORESET, 3, name="picked"))
    assert _calls(man) == [
        f"GET {D}/embeddings",
        f"GET {D}/tags",
        f"POST {D}/embeddings/ID/sampling",
        "GET /v1/jobs/ID",
        f"GET {D}/tags/ID",
    ]
    started = next(asked for asked in man.asked if asked.method == "POST")
    assert started.json == {
        "newTagName": "picked",
        "method": "CORESET",
        "config": {"stoppingCondition": {"nSamples": 3, "minDistance": -1}},
        "rowCount": 6,
    }


def test_wire_of_a_download(uploaded, quiet, man, tmp_path):
    uploaded.create_tag_from_filenames(["a.png"], "only a")
    quiet.download_dataset(str(tmp_path / "out"), "only a", False)
    assert _calls(man) == [
        f"GET {D}",
        f"GET {D}/tags",
        f"GET {D}/mappings",
        f"GET {D}/mappings",
        f"GET {D}/samples/ID/readurl",
        "GET signed URL",
    ]
    assert [asked.query.get("field") for asked in man.asked[2:4]] == ["_id", "fileName"]
    assert man.asked[4].query["type"] == "full"
