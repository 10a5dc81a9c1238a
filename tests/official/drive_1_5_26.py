"""Every workflow of `lightly` 1.5.26 against a platform; run by that client's own environment."""

# ruff: noqa: PT018 - a program, not a test
from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import requests
from lightly.active_learning.config.selection_config import SelectionConfig
from lightly.api import ApiWorkflowClient
from lightly.api.api_workflow_upload_embeddings import EmbeddingDoesNotExistError
from lightly.openapi_generated.swagger_client.exceptions import ApiException
from lightly.openapi_generated.swagger_client.models import (
    ConfigurationEntry,
    DatasetType,
    DatasourcePurpose,
    InitialTagCreateRequest,
    SampleCreateRequest,
    SamplingMethod,
    TagArithmeticsOperation,
    TagArithmeticsRequest,
    TagUpsizeRequest,
)
from lightly.openapi_generated.swagger_client.models.configuration_value_data_type import (
    ConfigurationValueDataType,
)
from workflows import Run, bits_of, check_farthest_first, make_folders, make_vectors, read_csv, write_csv

run = Run()
PREFIX = "incoming"


def expect(kind, function, *arguments, **more):
    try:
        function(*arguments, **more)
    except kind as error:
        return error
    raise AssertionError(f"{kind} was expected")


@run.step
def construct(c):
    c["client"] = ApiWorkflowClient(token=c["token"])
    c["names"] = sorted(
        str(p.relative_to(c["pictures"])) for p in Path(c["pictures"]).rglob("*") if p.is_file()
    )


@run.step
def wrong_token_is_401(c):
    error = expect(ApiException, ApiWorkflowClient(token="wrong-token").get_datasets)
    assert error.status == 401, error.status


@run.step
def create_datasets(c):
    client = c["client"]
    client.create_dataset("pictures")
    c["id"] = client.dataset_id
    expect(ValueError, client.create_dataset, "pictures")
    client.create_new_dataset_with_unique_name("pictures", DatasetType.IMAGES)
    assert client.get_dataset_by_id(client.dataset_id).name == "pictures_1"
    client.create_new_dataset_with_unique_name("pictures")
    second = client.dataset_id
    assert client.get_dataset_by_id(second).name == "pictures_2"
    client.delete_dataset_by_id(second)
    assert not client.dataset_exists(second)
    client.dataset_id = c["id"]
    expect(ValueError, setattr, client, "dataset_id", second)


@run.step
def find_datasets(c):
    client = c["client"]
    assert [d.name for d in client.get_datasets()] == ["pictures", "pictures_1"]
    assert [d.name for d in client.get_datasets(shared=True)] == []
    assert {d.name for d in client.get_all_datasets()} == {"pictures", "pictures_1"}
    assert client.dataset_name_exists("pictures") and not client.dataset_name_exists("picture")
    assert len(client.get_datasets_by_name("pictures")) == 1
    client.set_dataset_id_by_name("pictures_1")
    assert client.dataset_id != c["id"]
    client.set_dataset_id_by_name("pictures")
    assert client.dataset_id == c["id"]
    expect(ValueError, client.set_dataset_id_by_name, "nobody")
    assert client.dataset_type == "Images"
    # Without an id the dataset changed last is taken.
    client._dataset_id = None
    assert ApiWorkflowClient(token=c["token"]).dataset_id in {d.id for d in client.get_datasets()}
    client.dataset_id = c["id"]


@run.step
def share_with_a_colleague(c):
    client = c["client"]
    assert client.get_shared_users(c["id"]) == []
    client.share_dataset_only_with(c["id"], ["colleague"])
    assert client.get_shared_users(c["id"]) == ["colleague"]
    error = expect(ApiException, client.share_dataset_only_with, c["id"], ["colleague", "nobody@example.org"])
    assert error.status == 422 and "nobody@example.org" in str(error), error
    assert client.get_shared_users(c["id"]) == ["colleague"]
    client.share_dataset_only_with(c["id"], [])
    assert client.get_shared_users(c["id"]) == []


@run.step
def set_and_read_datasource(c):
    client = c["client"]
    expect(ApiException, client.get_datasource)
    client.set_local_config(relative_path=PREFIX, purpose=DatasourcePurpose.INPUT)
    client.set_local_config(relative_path=PREFIX, purpose=DatasourcePurpose.INPUT_OUTPUT)
    found = client.get_datasource()
    assert (found.actual_instance.type, found.actual_instance.full_path) == ("LOCAL", PREFIX)
    rights = client.list_datasource_permissions()
    assert rights["can_read"] and rights["can_list"] and rights["can_write"] and rights["can_overwrite"], (
        rights
    )


@run.step
def credentials_are_never_given_back(c):
    other = ApiWorkflowClient(token=c["token"])
    other.set_dataset_id_by_name("pictures_1")
    other.set_s3_config("s3://bucket/folder", "eu-central-1", "the-access-key", "the-secret-key")
    found = other.get_datasource().actual_instance
    assert found.type == "S3" and "the-secret-key" not in found.to_str()
    other.set_azure_config("container", "account", "sv=2024-01-01&sig=the-sas-token")
    assert "sv=2024-01-01&sig=the-sas-token" not in other.get_datasource().actual_instance.to_str()
    other.set_s3_delegated_access_config(
        "s3://bucket", "eu-central-1", "arn:aws:iam::123456789012:role/name", "external-id-1"
    )
    assert other.get_datasource().actual_instance.type == "S3DelegatedAccess"
    # The operator of this server allows no endpoint of one's own.
    error = expect(
        ApiException, other.set_obs_config, "bucket", "https://obs.example.com", "the-key-id", "secret"
    )
    assert error.status == 422


@run.step
def list_raw_samples(c):
    client = c["client"]
    listed = client.download_raw_samples(progress_bar=None)
    assert sorted(name for name, _ in listed) == c["names"]
    for name, url in listed:
        assert requests.get(url, timeout=10).content == (Path(c["pictures"]) / name).read_bytes()
    sharded = client.download_raw_samples(divide_and_conquer_shards=4)
    assert sorted(name for name, _ in sharded) == c["names"]
    redirected = client.download_raw_samples(use_redirected_read_url=True)
    name, url = redirected[0]
    assert requests.get(url, timeout=10).content == (Path(c["pictures"]) / name).read_bytes()
    assert client.download_raw_samples(from_=0, to=5) == []
    assert client.download_raw_samples(from_=10, to=5) == []


@run.step
def new_raw_samples_and_the_mark(c):
    client = c["client"]
    assert client.get_processed_until_timestamp() == 0
    before = int(time.time())
    assert len(client.download_new_raw_samples()) == len(c["names"])
    assert before <= client.get_processed_until_timestamp() <= int(time.time())
    assert client.download_new_raw_samples() == []
    client.update_processed_until_timestamp(77)
    assert client.get_processed_until_timestamp() == 77


@run.step
def register_samples(c):
    client = c["client"]
    c["sample_ids"] = []
    for name in c["names"]:
        content = (Path(c["pictures"]) / name).read_bytes()
        body = SampleCreateRequest(file_name=name, thumb_name=name.rpartition(".")[0] + "_thumb.webp")
        created = client._samples_api.create_sample_with_write_urls_by_dataset_id(
            dataset_id=client.dataset_id, sample_create_request=body
        )
        again = client._samples_api.create_sample_by_dataset_id(
            dataset_id=client.dataset_id, sample_create_request=body
        )
        assert created.id == again.id
        c["sample_ids"].append(created.id)
        with (Path(c["pictures"]) / name).open("rb") as file:
            client.upload_file_with_signed_url(file=file, signed_write_url=created.sample_write_urls.full)
        url = client._samples_api.get_sample_image_read_url_by_id(
            dataset_id=client.dataset_id, sample_id=created.id, type="full"
        )
        assert requests.get(url, timeout=10).content == content
    assert client.get_filenames() == c["names"]
    found = client._samples_api.get_samples_by_dataset_id(dataset_id=client.dataset_id)
    assert [s.id for s in found] == c["sample_ids"] and [s.index for s in found] == list(range(len(found)))


@run.step
def initial_tag_and_upsize(c):
    client = c["client"]
    assert client.get_all_tags() == []
    body = InitialTagCreateRequest(img_type="full", creator="USER_PIP")
    client._tags_api.create_initial_tag_by_dataset_id(
        dataset_id=client.dataset_id, initial_tag_create_request=body
    )
    (tag,) = client.get_all_tags()
    assert tag.name == "initial-tag" and bits_of(tag.bit_mask_data) == list(range(len(c["names"])))
    upsize = TagUpsizeRequest(upsize_tag_name="nothing-new", upsize_tag_creator="USER_PIP")
    reply = client._tags_api.upsize_tags_by_dataset_id(
        dataset_id=client.dataset_id, tag_upsize_request=upsize
    )
    assert reply.id == tag.id and len(client.get_all_tags()) == 1
    assert client.get_filenames_in_tag(tag) == c["names"]


@run.step
def tags_from_names(c):
    client = c["client"]
    chosen = c["names"][2:5]
    reply = client.create_tag_from_filenames(chosen, "chosen")
    tag = client.get_tag_by_name("chosen")
    assert reply.id == tag.id and bits_of(tag.bit_mask_data) == [2, 3, 4]
    assert client.get_filenames_in_tag(tag) == chosen
    assert client.get_filenames_in_tag(tag, exclude_parent_tag=True) == []
    expect(RuntimeError, client.create_tag_from_filenames, chosen, "chosen")
    expect(RuntimeError, client.create_tag_from_filenames, ["nothing.jpg"], "another")
    assert client.export_filenames_by_tag_id(tag.id).splitlines() == chosen
    assert client.export_filenames_by_tag_name("chosen").splitlines() == chosen
    tasks = client.export_label_studio_tasks_by_tag_name("chosen")
    assert [task.data.lightly_file_name for task in tasks] == chosen, tasks
    rows = client.export_label_box_v4_data_rows_by_tag_name("chosen")
    assert [(row["global_key"], row["media_type"]) for row in rows] == [(name, "IMAGE") for name in chosen]
    older = client.export_label_box_data_rows_by_tag_name("chosen")
    assert [row["externalId"] for row in older] == chosen
    for task, row, old in zip(tasks, rows, older, strict=True):
        assert task.data.image == row["row_data"] == old["imageUrl"]
        picture = requests.get(row["row_data"], timeout=10).content
        assert picture == (Path(c["pictures"]) / row["global_key"]).read_bytes()
    pairs = client.export_filenames_and_read_urls_by_tag_name("chosen")
    assert [pair["fileName"] for pair in pairs] == chosen
    for pair in pairs:
        expected = (Path(c["pictures"]) / pair["fileName"]).read_bytes()
        assert requests.get(pair["readUrl"], timeout=10).content == expected
    arithmetic = TagArithmeticsRequest(
        tag_id1=client.get_tag_by_name("initial-tag").id,
        tag_id2=tag.id,
        operation=TagArithmeticsOperation.DIFFERENCE,
        new_tag_name="the rest",
        creator="USER_PIP",
    )
    client._tags_api.perform_tag_arithmetics(dataset_id=client.dataset_id, tag_arithmetics_request=arithmetic)
    rest = client.get_tag_by_name("the rest")
    assert client.get_filenames_in_tag(rest) == c["names"][:2] + c["names"][5:]
    client.delete_tag_by_name("the rest")
    client.delete_tag_by_id(tag.id)
    expect(ValueError, client.get_tag_by_name, "chosen")


@run.step
def embeddings(c):
    client = c["client"]
    expect(EmbeddingDoesNotExistError, client.get_embedding_by_name, "default")
    expect(RuntimeError, client.set_embedding_id_to_latest)
    c["vectors"] = make_vectors(len(c["names"]))
    path = Path(c["work"]) / "embeddings.csv"
    order = np.random.default_rng(1).permutation(len(c["names"]))
    write_csv(path, [c["names"][i] for i in order], c["vectors"][order])
    client.upload_embeddings(str(path), "default")
    first = client.embedding_id
    assert client.get_embedding_by_name("default").is_processed
    # A second time: appended to the first under another name.
    write_csv(path, c["names"][:3], c["vectors"][:3])
    client.upload_embeddings(str(path), "default")
    assert client.embedding_id != first
    all_data = client.get_all_embedding_data()
    assert all_data[0].id == client.embedding_id and all_data[1].id == first
    assert client.get_embedding_by_name("default", ignore_suffix=False).id == first
    client.set_embedding_id_to_latest()
    assert client.embedding_id == all_data[0].id
    target = Path(c["work"]) / "downloaded.csv"
    client.download_embeddings_csv(str(target))
    header, rows = read_csv(target.read_text())
    assert header[0] == "filenames" and header[-1] == "labels"
    assert [row[0] for row in rows] == c["names"]
    assert np.allclose([[float(v) for v in row[1:-1]] for row in rows], c["vectors"])


@run.step
def selections(c):
    client = c["client"]
    config = SelectionConfig(method=SamplingMethod.CORESET, n_samples=4, name="first picks")
    first = client.selection(config)
    assert first.name == "first picks" and first.tot_size == len(c["names"])
    assert first.prev_tag_id == client.get_tag_by_name("initial-tag").id
    picked = bits_of(first.bit_mask_data)
    assert len(picked) == 4
    check_farthest_first(c["vectors"], picked, [])
    config = SelectionConfig(method=SamplingMethod.CORESET, n_samples=7, name="second picks")
    second = client.selection(config, preselected_tag_id=first.id)
    both = bits_of(second.bit_mask_data)
    assert len(both) == 7 and set(picked) <= set(both) and second.prev_tag_id == first.id
    check_farthest_first(c["vectors"], both, picked)
    new = client.get_filenames_in_tag(second, exclude_parent_tag=True)
    assert new == [c["names"][i] for i in both if i not in picked]
    config = SelectionConfig(method=SamplingMethod.RANDOM, n_samples=2, name="random picks")
    assert set(bits_of(client.selection(config, query_tag_id=first.id).bit_mask_data)) <= set(picked)
    expect(RuntimeError, client.selection, config)
    scores = np.linspace(0, 1, len(c["names"]))
    client.upload_scores({"uncertainty_margin": scores}, client.get_tag_by_name("initial-tag").id)
    config = SelectionConfig(method=SamplingMethod.ACTIVE_LEARNING, n_samples=3, name="by score")
    assert bits_of(client.selection(config).bit_mask_data) == list(range(len(scores) - 3, len(scores)))
    config = SelectionConfig(method=SamplingMethod.CORAL, n_samples=3, name="by both")
    assert len(bits_of(client.selection(config).bit_mask_data)) == 3
    config = SelectionConfig(method=SamplingMethod.CORESET, n_samples=-1, min_distance=2.5, name="far apart")
    far = c["vectors"][bits_of(client.selection(config).bit_mask_data)]
    gaps = np.linalg.norm(far[:, None] - far[None], axis=2)[np.triu_indices(len(far), 1)]
    assert gaps.min() >= 2.5


@run.step
def custom_metadata(c):
    client = c["client"]
    metadata = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(c["names"])],
        "metadata": [{"image_id": i, "weather": {"kind": f"kind {i}"}} for i in range(len(c["names"]))],
    }
    client.upload_custom_metadata(metadata, max_workers=4)
    found = client._samples_api.get_samples_by_dataset_id(dataset_id=client.dataset_id)
    assert [s.custom_meta_data["weather"]["kind"] for s in found] == [f"kind {i}" for i in range(len(found))]
    entry = ConfigurationEntry(
        name="Weather",
        path="weather.kind",
        default_value="unknown",
        value_data_type=ConfigurationValueDataType.CATEGORICAL_STRING,
    )
    assert client.create_custom_metadata_config("mine", [entry]).id


@run.step
def download_dataset(c):
    client = c["client"]
    target = Path(c["work"]) / "downloaded"
    names = sorted(client.get_filenames_in_tag(client.get_tag_by_name("first picks")))
    make_folders(target, names)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        client.download_dataset(str(target), tag_name="first picks", max_workers=2)
    got = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
    assert got == names, (got, [str(warning.message) for warning in told])


if __name__ == "__main__":
    run.main()
