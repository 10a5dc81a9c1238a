"""Tags: masks, upsizing, arithmetics, names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from sqlalchemy import event

from watcher.platform import tags

NAMES = [f"{index}.jpg" for index in range(7)]


def create_tag(api, dataset, name, mask, parent, status=201, **more):
    total = api("GET", f"{dataset}/tags")[0]["totSize"]
    body = {"name": name, "prevTagId": parent, "bitMaskData": mask, "totSize": total, **more}
    return api("POST", f"{dataset}/tags", status, json=body)


def by_name(api, dataset) -> dict:
    return {tag["name"]: tag for tag in api("GET", f"{dataset}/tags")}


@pytest.fixture
def dataset(api) -> str:
    path = api.create_dataset()
    api.create_samples(path, NAMES)
    return path


@pytest.fixture
def initial(api, dataset) -> str:
    return api.create_initial_tag(dataset)


def test_no_tags_before_the_initial_one(api, dataset):
    assert api("GET", f"{dataset}/tags") == []
    body = {"upsizeTagName": "more", "upsizeTagCreator": "USER_PIP"}
    api.refused("POST", f"{dataset}/tags/upsize", 404, "TAG_NO_TAG_IN_DATASET", json=body)


def test_list_of_many_tags_is_whole_and_in_order_though_masks_are_read_in_pieces(
    server, api, dataset, initial, monkeypatch
):
    """A tag a batch is nine thousand in ninety days: the masks of all at once took the server's memory."""
    monkeypatch.setattr(tags, "_TAGS_AT_ONCE", 3)
    names = [f"batch {number}" for number in range(7)]
    for number, name in enumerate(names):
        create_tag(api, dataset, name, hex(1 << number), initial)
    read: list[int] = []

    def note(_connection, _cursor, statement, parameters, *_more):
        if "platform_tags.mask" in statement:
            read.append(len(parameters))

    event.listen(server.platform.database.engine, "after_cursor_execute", note)
    found = api("GET", f"{dataset}/tags")
    assert [tag["name"] for tag in found] == ["initial-tag", *names]
    assert [tag["bitMaskData"] for tag in found[1:]] == [hex(1 << number) for number in range(7)]
    assert read == [3, 3, 2]


def test_initial_tag_covers_everything_and_is_made_once(api, dataset):
    body = {"imgType": "thumbnail", "creator": "USER_PIP"}
    tag_id = api("POST", f"{dataset}/tags/initial", 201, json=body)["id"]
    (tag,) = api("GET", f"{dataset}/tags")
    assert (tag["id"], tag["name"], tag["bitMaskData"], tag["totSize"]) == (tag_id, "initial-tag", "0x7f", 7)
    assert tag["prevTagId"] is None
    assert api("GET", dataset)["imgType"] == "thumbnail"
    api.refused("POST", f"{dataset}/tags/initial", 409, "TAG_INITIAL_EXISTS", json=body)


def test_upsize_widens_all_tags_and_names_the_added_samples(api, dataset, initial):
    child = create_tag(api, dataset, "child", "0x59", initial)["id"]
    api.create_samples(dataset, ["7.jpg", "8.jpg"])
    body = {"upsizeTagName": "20220301_10h00m00s", "upsizeTagCreator": "USER_PIP"}
    added = api("POST", f"{dataset}/tags/upsize", 201, json=body)["id"]
    tags = by_name(api, dataset)
    assert {tag["totSize"] for tag in tags.values()} == {9}
    assert tags["initial-tag"]["bitMaskData"] == "0x1ff"
    assert tags["child"]["bitMaskData"] == "0x59"
    assert tags["20220301_10h00m00s"]["bitMaskData"] == "0x180"
    assert tags["20220301_10h00m00s"]["prevTagId"] == initial
    assert {tags["child"]["id"], tags["20220301_10h00m00s"]["id"]} == {child, added}
    # Nothing new: the same call must not fail, and makes nothing.
    assert api("POST", f"{dataset}/tags/upsize", 201, json=body)["id"] == initial
    assert len(api("GET", f"{dataset}/tags")) == 3
    api.create_samples(dataset, ["9.jpg"])
    api.refused("POST", f"{dataset}/tags/upsize", 409, "TAG_NAME_EXISTS", json=body)
    assert {tag["totSize"] for tag in api("GET", f"{dataset}/tags")} == {9}


def test_two_upsizes_at_once_name_every_added_sample_once(api, dataset, initial):
    api.create_samples(dataset, ["7.jpg", "8.jpg"])

    def upsize(index):
        body = {"upsizeTagName": f"upsize-{index}", "upsizeTagCreator": "USER_PIP"}
        return api("POST", f"{dataset}/tags/upsize", 201, json=body)["id"]

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(upsize, range(4)))
    assert len([i for i in ids if i != initial]) == 1
    assert len(api("GET", f"{dataset}/tags")) == 2


def test_tag_is_refused_with_foreign_parent_taken_name_or_bad_mask(api, dataset, initial):
    create_tag(api, dataset, "child", "0x1", initial)
    assert create_tag(api, dataset, "child", "0x2", initial, 409)["code"] == "TAG_NAME_EXISTS"
    other = api.create_dataset("other")
    api.create_samples(other, ["a.jpg"])
    foreign = api.create_initial_tag(other)
    assert create_tag(api, dataset, "new", "0x1", foreign, 404)["code"] == "TAG_PREVTAG_NOT_IN_DATASET"
    for mask in ("0x80", "0xffffffffffff"):
        assert create_tag(api, dataset, "new", mask, initial, 422)["code"] == "DATASET_TAG_INVALID"
    for mask in ("", "0x", "80", "0xg", "-0x1", "0x1\n"):
        assert create_tag(api, dataset, "new", mask, initial, 422)["code"] == "MALFORMED_REQUEST"
    for name in ("ab", "new\n", "-new", "a/b"):
        assert create_tag(api, dataset, name, "0x1", initial, 422)["code"] == "MALFORMED_REQUEST"
    body = {"name": "new", "prevTagId": initial, "bitMaskData": "0x1", "totSize": 8}
    api.refused("POST", f"{dataset}/tags", 422, "DATASET_TAG_INVALID", json=body)
    assert set(by_name(api, dataset)) == {"initial-tag", "child"}


@pytest.mark.parametrize(
    ("operation", "expected"), [("UNION", "0x7"), ("INTERSECTION", "0x2"), ("DIFFERENCE", "0x1")]
)
def test_arithmetics(api, dataset, initial, operation, expected):
    first = create_tag(api, dataset, "first", "0x3", initial)["id"]
    second = create_tag(api, dataset, "second", "0x6", initial)["id"]
    body = {"tagId1": first, "tagId2": second, "operation": operation}
    assert api("POST", f"{dataset}/tags/arithmetics", json=body) == {"bitMaskData": expected}
    bitmask = f"{dataset}/tags/arithmetics/bitmask"
    assert api("POST", bitmask, json={**body, "newTagName": "made"}) == {"bitMaskData": expected}
    assert "made" not in by_name(api, dataset)
    made = api("POST", f"{dataset}/tags/arithmetics", json={**body, "newTagName": "made"})
    assert api("GET", f"{dataset}/tags/{made['id']}")["bitMaskData"] == expected


def test_rename_and_new_mask(api, dataset, initial):
    tag = create_tag(api, dataset, "child", "0x1", initial)["id"]
    path = f"{dataset}/tags/{tag}"
    api("PUT", path, json={"name": "renamed"})
    api("PUT", path, json={"name": "renamed", "bitMaskData": "0x5", "updateCreator": "USER_PIP"})
    found = api("GET", path)
    assert (found["name"], found["bitMaskData"]) == ("renamed", "0x5")
    api.refused("PUT", path, 409, "TAG_NAME_EXISTS", json={"name": "initial-tag"})
    api.refused("PUT", f"{dataset}/tags/{initial}", 422, "DATASET_TAG_INVALID", json={"name": "another"})
    body = {"name": "initial-tag", "bitMaskData": "0x1"}
    api.refused("PUT", f"{dataset}/tags/{initial}", 422, "DATASET_TAG_INVALID", json=body)


def test_only_leaves_are_deleted(api, dataset, initial):
    child = create_tag(api, dataset, "child", "0x3", initial)["id"]
    leaf = create_tag(api, dataset, "leaf", "0x1", child)["id"]
    api.refused("DELETE", f"{dataset}/tags/{child}", 409, "TAG_UNDELETABLE_NOT_A_LEAF")
    api.refused("DELETE", f"{dataset}/tags/{initial}", 409, "TAG_UNDELETABLE_IS_INITIAL", json={})
    api("DELETE", f"{dataset}/tags/{leaf}")
    api("DELETE", f"{dataset}/tags/{child}")
    api.refused("GET", f"{dataset}/tags/{child}", 404, "TAG_UNKNOWN")


def test_names_in_a_tag_as_list_and_as_text(api, dataset, initial):
    tag = create_tag(api, dataset, "child", "0x59", initial)["id"]
    path = f"{dataset}/tags/{tag}"
    expected = ["0.jpg", "3.jpg", "4.jpg", "6.jpg"]
    assert api("GET", f"{path}/filenames") == expected
    export = f"{path}/export/basic/filenames"
    assert api("GET", export) == "\n".join(expected)
    assert api("GET", export, params={"pageSize": 2, "pageOffset": 2}) == ""
    api.set_local(dataset)
    full = api("GET", export, params={"fileNameFormat": "DATASOURCE_FULL"})
    assert full.split("\n") == [f"in/{name}" for name in expected]
    urls = api("GET", export, params={"fileNameFormat": "REDIRECTED_READ_URL"}).split("\n")
    assert all("readurlRedirect" in url for url in urls)
    empty = create_tag(api, dataset, "nothing", "0x0", initial)["id"]
    assert api("GET", f"{dataset}/tags/{empty}/filenames") == []
    assert api("GET", f"{dataset}/tags/{empty}/export/basic/filenames") == ""


@pytest.mark.parametrize("uploaded", ["full", "thumbnail", None])
def test_tag_is_exported_for_labelling_tools_with_pictures_that_can_be_read(light_api, root, uploaded):
    api, names = light_api, [f"{number} ü.jpg" for number in range(5)]
    dataset = api.create_dataset()
    ids = api.create_samples(dataset, names)
    if uploaded is None:
        api.set_local(dataset)
        for name in names:
            (root / "in" / name).write_bytes(b"picture of " + name.encode())
    else:
        for sample, name in zip(ids, names, strict=True):
            urls = api("GET", f"{dataset}/samples/{sample}/writeurls")
            url = urls["full" if uploaded == "full" else "thumb"]
            requests.put(url, data=b"picture of " + name.encode(), timeout=10).raise_for_status()
    initial = api("POST", f"{dataset}/tags/initial", 201, json={"imgType": uploaded or "meta"})["id"]
    tag = create_tag(api, dataset, "odd", "0x1d", initial)["id"]
    chosen = [names[0], *names[2:]]
    export = f"{dataset}/tags/{tag}/export"
    tasks = api("GET", f"{export}/LabelStudio/tasks")
    assert [task["data"]["lightlyFileName"] for task in tasks] == chosen
    assert [task["id"] for task in tasks] == [0, 2, 3, 4]
    pages = [
        api("GET", f"{export}/LabelStudio/tasks", params={"pageSize": 3, "pageOffset": first})
        for first in (0, 3, 6)
    ]
    assert pages == [tasks[:3], tasks[3:], []]
    described = api("GET", f"{export}/LabelStudio/tasks", params={"includeMetaData": True})
    assert [task["data"]["lightlyMetaInfo"]["id"] for task in described] == [ids[0], *ids[2:]]
    rows = api("GET", f"{export}/LabelBoxV4/datarows")
    assert [row["global_key"] for row in rows] == chosen
    ending = api("GET", f"{export}/LabelBox/datarows", params={"expiresIn": 100})
    assert [row["externalId"] for row in ending] == chosen
    for name, task, row, other in zip(chosen, tasks, rows, ending, strict=True):
        assert task["data"]["image"] == row["row_data"] != other["imageUrl"]
        for url in (row["row_data"], other["imageUrl"]):
            assert requests.get(url, timeout=10).content == b"picture of " + name.encode()


def test_scores_of_a_tag_have_its_length_and_replace_earlier_ones(api, dataset, initial):
    tag = create_tag(api, dataset, "child", "0x3", initial)["id"]
    path = f"{dataset}/tags/{tag}/scores"
    body = {"scoreType": "uncertainty_entropy", "scores": [0.5, 1]}
    api("POST", path, 201, json=body)
    score = api("POST", path, 201, json={**body, "scores": [0.25, 0]})["id"]
    assert [s["scoreType"] for s in api("GET", path)] == ["uncertainty_entropy"]
    assert api("GET", f"{path}/{score}")["scores"] == [0.25, 0.0]
    api.refused("POST", path, 422, "SCORES_CANNOT_BE_SET", json={**body, "scores": [1]})
    api.refused("POST", path, 422, "MALFORMED_REQUEST", data='{"scoreType": "a", "scores": [1e999, 1]}')
    api.refused("GET", f"{dataset}/tags/{initial}/scores/{score}", 404, "SCORE_UNKNOWN")
    query = {"taskName": "task", "predictionUUIDTimestamp": 5}
    path = f"{dataset}/predictions/scores"
    v2 = api("POST", path, 201, params=query, json={**body, "scores": [0.0] * 7})["id"]
    assert api("GET", f"{path}/{v2}")["scores"] == [0.0] * 7
    assert len(api("GET", path, params={"predictionUUIDTimestamp": 5})) == 1
    assert api("GET", path, params={"predictionUUIDTimestamp": 6}) == []


def test_new_mask_takes_the_scores_of_the_old_one_away(api, dataset, initial):
    tag = create_tag(api, dataset, "child", "0x3", initial)["id"]
    other = create_tag(api, dataset, "other", "0x3", initial)["id"]
    body = {"scoreType": "uncertainty_entropy", "scores": [0.5, 1]}
    for tag_id in (tag, other):
        api("POST", f"{dataset}/tags/{tag_id}/scores", 201, json=body)
    path = f"{dataset}/tags/{tag}"
    # Neither another name nor the mask that it has already makes a difference.
    api("PUT", path, json={"name": "renamed", "bitMaskData": "0x03"})
    assert len(api("GET", f"{path}/scores")) == 1
    # As many samples as before, so that the scores would still fit by their number.
    api("PUT", path, json={"name": "renamed", "bitMaskData": "0x60"})
    assert api("GET", f"{path}/scores") == []
    assert len(api("GET", f"{dataset}/tags/{other}/scores")) == 1
