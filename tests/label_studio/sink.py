"""The sink against a real Label Studio; the file's name keeps it out of `make test`, see `make test-label-studio`."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import postgres
from tests.label_studio.server import LabelStudio
from tests.receivers import Answer, open_receiver
from tests.unit.sinks.conftest import Batch
from watcher.domain.clock import SystemClock
from watcher.domain.delivery import (
    ImageReference,
    LabelStudioRules,
    compute_delivery_id,
    compute_picks_digest,
)
from watcher.domain.errors import (
    ApiException,
    DeliveryError,
    DeliveryRefusedError,
    NotSentError,
    UnauthorizedException,
)
from watcher.sinks.base import Handover, SinkParts
from watcher.sinks.label_studio import LabelStudioSink

_NUMBERS = iter(range(1000))
# The first test waits for the server to start.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def title() -> str:
    return f"Cameras {next(_NUMBERS)}"


@pytest.fixture
def parts(tmp_path: Path) -> SinkParts:
    return SinkParts(data_dir=tmp_path, work_dir=tmp_path, clock=SystemClock(), connect_timeout_s=5)


@pytest.fixture(params=["legacy token", "personal token"])
def token(request: pytest.FixtureRequest, label_studio: LabelStudio) -> str:
    if request.param == "legacy token":
        return label_studio.legacy_token
    return label_studio.personal_token


def build(parts: SinkParts, url: str, token: str, project: str, **changes: Any) -> LabelStudioSink:
    return LabelStudioSink(LabelStudioRules(url=url, token=token, project=project, **changes), parts)


def hand_over(names: list[str], kept: dict[int, str], *, batch: str = "gate-000001") -> Handover:
    delivery_id = compute_delivery_id(
        dataset_id="d", batch_key=batch, sink="s", picks_digest=compute_picks_digest(names)
    )
    return replace(Batch(names).handover(), id=delivery_id, batch_key=batch, record_tasks=kept.update)


def test_picks_become_tasks_each_once_however_often_they_are_delivered(
    label_studio: LabelStudio, parts: SinkParts, token: str, title: str
) -> None:
    names = [f"gate/{number} ü+%.jpg" for number in range(7)]
    kept: dict[int, str] = {}
    sink = build(parts, label_studio.url, token, title, max_tasks=3)
    receipt = sink.deliver(hand_over(names, kept))
    (project,) = label_studio.find_projects(title)
    assert receipt.location == f"{label_studio.url}/projects/{project['id']}/data"
    assert receipt.facts["n_new"] == 7
    tasks = label_studio.load_tasks(project["id"])
    assert [task["data"]["file_name"] for task in tasks] == names
    assert [task["data"]["rank"] for task in tasks] == list(range(1, 8))
    assert tasks[0]["data"]["image"] == "https://bucket.example.com/1?sig=1"
    assert tasks[0]["data"]["reason"] == '{"distance":0.5}'
    assert kept == {number: str(task["id"]) for number, task in enumerate(tasks, 1)}
    again: dict[int, str] = {}
    for repeat in (sink, build(parts, label_studio.url, token, title)):
        assert repeat.deliver(hand_over(names, again)).facts["n_new"] == 0
    assert again == kept
    assert len(label_studio.load_tasks(project["id"])) == 7


def test_repeat_adds_only_what_an_interrupted_attempt_left_out(
    label_studio: LabelStudio, parts: SinkParts, title: str
) -> None:
    names = [f"{number}.jpg" for number in range(450)]
    sink = build(parts, label_studio.url, label_studio.legacy_token, title, max_tasks=150)
    broken = Batch(names, fail_after=300)
    with pytest.raises(RuntimeError):
        sink.deliver(replace(broken.handover(), id=hand_over(names, {}).id))
    (project,) = label_studio.find_projects(title)
    assert len(label_studio.load_tasks(project["id"])) == 300
    kept: dict[int, str] = {}
    assert sink.deliver(hand_over(names, kept)).facts["n_new"] == 150
    tasks = label_studio.load_tasks(project["id"])
    assert sorted(task["data"]["file_name"] for task in tasks) == sorted(names)
    assert len(kept) == 450
    assert sorted(kept.values()) == sorted(str(task["id"]) for task in tasks)


def test_same_file_of_a_later_batch_is_another_task(
    label_studio: LabelStudio, parts: SinkParts, title: str
) -> None:
    sink = build(parts, label_studio.url, label_studio.legacy_token, title)
    for batch in ("gate-000001", "gate-000002"):
        sink.deliver(hand_over(["a.jpg"], {}, batch=batch))
    (project,) = label_studio.find_projects(title)
    tasks = label_studio.load_tasks(project["id"])
    assert [task["data"]["file_name"] for task in tasks] == ["a.jpg", "a.jpg"]
    assert len({task["data"]["watcher_key"] for task in tasks}) == 2


def test_project_may_be_named_by_its_number_and_have_an_interface_of_its_own(
    label_studio: LabelStudio, parts: SinkParts, title: str
) -> None:
    config = (
        '<View><Image name="p" value="$photo"/><Labels name="l" toName="p"><Label value="x"/></Labels></View>'
    )
    project = label_studio.call("POST", "/api/projects", json={"title": title, "label_config": config})
    sink = build(parts, label_studio.url, label_studio.legacy_token, str(project["id"]), image_field="photo")
    sink.deliver(hand_over(["a.jpg"], {}))
    (task,) = label_studio.load_tasks(project["id"])
    assert task["data"]["photo"] == "https://bucket.example.com/1?sig=1"
    wrong = build(parts, label_studio.url, label_studio.legacy_token, str(project["id"]))
    with pytest.raises(ApiException, match="photo") as refused:
        wrong.deliver(hand_over(["b.jpg"], {}))
    assert refused.value.status == 400


def test_title_that_another_one_contains_is_not_that_one(
    label_studio: LabelStudio, parts: SinkParts, title: str
) -> None:
    label_studio.call("POST", "/api/projects", json={"title": f"{title} archive"})
    build(parts, label_studio.url, label_studio.legacy_token, title).deliver(hand_over(["a.jpg"], {}))
    assert len(label_studio.find_projects(title)) == 1
    (archive,) = label_studio.find_projects(f"{title} archive")
    assert label_studio.load_tasks(archive["id"]) == []


def test_two_watches_that_need_the_same_project_at_once_make_one(
    label_studio: LabelStudio, parts: SinkParts, title: str
) -> None:
    def deliver(batch: str) -> None:
        build(parts, label_studio.url, label_studio.legacy_token, title).deliver(
            hand_over(["a.jpg"], {}, batch=batch)
        )

    threads = [threading.Thread(target=deliver, args=(f"w{number}-000001",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=100)
    (project,) = label_studio.find_projects(title)
    assert len(label_studio.load_tasks(project["id"])) == 4


def test_project_that_was_deleted_is_made_anew_by_title_and_refused_by_number(
    label_studio: LabelStudio, parts: SinkParts, title: str
) -> None:
    sink = build(parts, label_studio.url, label_studio.legacy_token, title)
    sink.deliver(hand_over(["a.jpg"], {}))
    (project,) = label_studio.find_projects(title)
    by_number = build(parts, label_studio.url, label_studio.legacy_token, str(project["id"]))
    label_studio.call("DELETE", f"/api/projects/{project['id']}")
    with pytest.raises(DeliveryRefusedError, match=rf"no project {project['id']}.*watcher replay"):
        by_number.deliver(hand_over(["b.jpg"], {}))
    sink.deliver(hand_over(["b.jpg"], {}))
    (anew,) = label_studio.find_projects(title)
    assert anew["id"] != project["id"]


def test_project_deleted_in_the_middle_is_tried_again(
    label_studio: LabelStudio, parts: SinkParts, title: str
) -> None:
    sink = build(parts, label_studio.url, label_studio.legacy_token, title, max_tasks=1)
    handover = hand_over(["a.jpg", "b.jpg"], {})

    def delete(_tasks: object) -> None:
        for project in label_studio.find_projects(title):
            label_studio.call("DELETE", f"/api/projects/{project['id']}")

    with pytest.raises(DeliveryError, match="was deleted meanwhile") as failed:
        sink.deliver(replace(handover, record_tasks=delete))
    assert failed.value.retryable


def test_project_that_must_not_be_made_is_refused(
    label_studio: LabelStudio, parts: SinkParts, title: str
) -> None:
    sink = build(parts, label_studio.url, label_studio.legacy_token, title, create=False)
    with pytest.raises(DeliveryRefusedError, match=rf"no project '{title}'.*CREATE"):
        sink.deliver(hand_over(["a.jpg"], {}))
    assert label_studio.find_projects(title) == []


@pytest.mark.parametrize("wrong", ["0" * 40, "x.y.z"], ids=["legacy token", "personal token"])
def test_wrong_token_is_told_without_showing_it(
    label_studio: LabelStudio, parts: SinkParts, title: str, wrong: str
) -> None:
    with pytest.raises(UnauthorizedException, match="the server answered 401") as failed:
        build(parts, label_studio.url, wrong, title).deliver(hand_over(["a.jpg"], {}))
    assert wrong not in str(failed.value)


def test_access_that_expired_is_renewed(label_studio: LabelStudio, parts: SinkParts, title: str) -> None:
    sink = build(parts, label_studio.url, label_studio.personal_token, title)
    sink.deliver(hand_over(["a.jpg"], {}))
    sink._api._access = "expired.expired.expired"
    assert sink.deliver(hand_over(["b.jpg"], {})).facts["n_new"] == 1


def test_server_that_is_down_or_something_else_is_named(parts: SinkParts) -> None:
    port = postgres.free_port()
    with pytest.raises(NotSentError, match=f"http://127.0.0.1:{port}"):
        build(parts, f"http://127.0.0.1:{port}", "t" * 40, "Cameras").deliver(hand_over(["a.jpg"], {}))
    with open_receiver() as receiver:
        receiver.answers = [Answer(200, body=b"<html>not Label Studio</html>")]
        with pytest.raises(Exception, match="is not Label Studio's"):
            build(parts, receiver.url, "t" * 40, "Cameras").deliver(hand_over(["a.jpg"], {}))


@pytest.mark.parametrize(
    ("source", "prefix", "expected"),
    [
        ("s3://pictures/incoming", None, "s3://pictures/incoming/a b+%.jpg"),
        ("s3://pictures/incoming/", None, "s3://pictures/incoming/a b+%.jpg"),
        (None, "s3://other/x/", "s3://other/x/a b+%.jpg"),
        ("incoming", "/data/local-files/?d=incoming/", "/data/local-files/?d=incoming/a%20b%2B%25.jpg"),
    ],
)
def test_task_may_hold_the_object_s_own_address(
    label_studio: LabelStudio,
    parts: SinkParts,
    title: str,
    source: str | None,
    prefix: str | None,
    expected: str,
) -> None:
    sink = build(
        parts,
        label_studio.url,
        label_studio.legacy_token,
        title,
        image=ImageReference.URI,
        image_prefix=prefix,
    )
    sink.deliver(replace(hand_over(["a b+%.jpg"], {}), source=source))
    (project,) = label_studio.find_projects(title)
    (task,) = label_studio.load_tasks(project["id"])
    assert task["data"]["image"] == expected


def test_folder_has_no_address_of_its_own(label_studio: LabelStudio, parts: SinkParts, title: str) -> None:
    sink = build(
        parts, label_studio.url, label_studio.legacy_token, title, image=ImageReference.URI, create=True
    )
    with pytest.raises(DeliveryRefusedError, match="IMAGE_PREFIX"):
        sink.deliver(replace(hand_over(["a.jpg"], {}), source="incoming"))
