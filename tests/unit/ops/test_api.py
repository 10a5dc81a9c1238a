"""The control API: who may, what is told, one form of refusal, each change once in the audit log."""

from __future__ import annotations

import socket

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.builders import NOW_MS, NOW_S, add_batch, add_watch, claim, deliver, list_names, load
from tests.unit.ops.conftest import API_TOKEN, CONFIGURED_TOKEN, CONTROL_TOKEN
from watcher.domain.delivery import DeliveryState
from watcher.domain.models import RunState
from watcher.ops.openapi import build_document
from watcher.ops.operations import OPERATIONS
from watcher.store import control, reconciles, runs, samples, watches
from watcher.store.duty_requests import load_open_requests
from watcher.store.leadership import take_lead
from watcher.store.reconciles import ReconcileReport

BODIES = {"rewind": {"to_s": NOW_S - 500}, "drop": {"sink": "gone"}}
CHANGES = [operation for operation in OPERATIONS if operation.changes]
READERS = [operation for operation in OPERATIONS if not operation.changes]


def read_log(ops):
    with ops.database.read() as session:
        return control.load_audit_log(session, limit=100)


def is_refusal(answer, status, code):
    told = answer.json()
    return answer.status_code == status and set(told) == {"error", "code"} and told["code"] == code


def set_mark(ops, watch, mark_s):
    with ops.database.write() as session:
        watches.update_mark(session, watch_id=watch.id, mark_s=mark_s, now_ms=NOW_MS)


def give_up_delivery(ops, watch):
    batch = add_batch(ops.database, watch, ["picked"])
    deliver(ops.database, batch, sink="gone", state=DeliveryState.DEAD, location=None, error="410")


def body_of(operation):
    return BODIES.get(operation.verb)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {CONTROL_TOKEN}x"},
        {"Authorization": f"Bearer {API_TOKEN}"},
        {"Authorization": f"Basic {CONTROL_TOKEN}"},
        {"Authorization": CONTROL_TOKEN},
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": f"token={CONTROL_TOKEN}"},
    ],
)
@pytest.mark.parametrize("operation", CHANGES, ids=lambda operation: operation.verb)
def test_change_without_the_token_is_refused_and_not_made(sqlite_ops, operation, headers):
    watch = add_watch(sqlite_ops.database)
    set_mark(sqlite_ops, watch, NOW_S)
    encoded = {name: text.encode("latin-1") for name, text in headers.items()}
    path = operation.path.format(watch="gate")
    answer = sqlite_ops.post(f"{path}?token={CONTROL_TOKEN}", headers=encoded, json=body_of(operation))
    assert is_refusal(answer, 401, "TOKEN_NEEDED")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert sqlite_ops.asked == []
    assert read_log(sqlite_ops) == []


@pytest.mark.parametrize(
    ("token", "who"), [(CONTROL_TOKEN, "local (ann)"), (CONFIGURED_TOKEN, "ops-team (ann)")]
)
@pytest.mark.parametrize("operation", CHANGES, ids=lambda operation: operation.verb)
def test_change_is_made_and_is_in_the_log_with_who_when_and_what(sqlite_ops, operation, token, who):
    watch = add_watch(sqlite_ops.database)
    give_up_delivery(sqlite_ops, watch)
    list_names(sqlite_ops.database, watch, ["a"])
    set_mark(sqlite_ops, watch, NOW_S)
    with sqlite_ops.database.write() as session:
        sample = load(sqlite_ops.database, watch, "a")
        samples.record_quarantined(session, sample_id=sample.id, reason="no image", now_ms=NOW_MS)
        if operation.verb == "resume":
            control.pause(session, watch=watch, actor="before", now_ms=1)
    sqlite_ops.clock.advance(5)
    answer = sqlite_ops.change(
        "gate", operation.verb, {**(body_of(operation) or {}), "actor": "ann"}, token=token
    )
    assert answer.status_code == operation.status
    told = answer.json()
    assert (told["watch"], told["verb"], told["changed"]) == ("gate", operation.verb, True)
    entry = read_log(sqlite_ops)[0]
    assert (entry.actor, entry.verb, entry.watch) == (who, operation.verb, "gate")
    assert entry.at_ms == NOW_MS + 5000
    assert sqlite_ops.asked == ([f"{operation.verb} gate"] if operation.status == 202 else [])


@pytest.mark.parametrize("verb", ["pause", "resume", "rewind", "replay", "drop", "replay file"])
def test_change_made_twice_leaves_the_same_state_and_one_entry(ops, verb):
    watch = add_watch(ops.database)
    give_up_delivery(ops, watch)
    list_names(ops.database, watch, ["a"])
    set_mark(ops, watch, NOW_S)
    with ops.database.write() as session:
        sample = load(ops.database, watch, "a")
        samples.record_quarantined(session, sample_id=sample.id, reason="no image", now_ms=NOW_MS)
        if verb == "resume":
            watches.update_pause(session, watch_id=watch.id, paused_ms=1)
    verb, _, which = verb.partition(" ")
    body = {"file": "a"} if which else BODIES.get(verb)
    first, second, third = (ops.change("gate", verb, body) for _ in range(3))
    assert [answer.status_code for answer in (first, second, third)] == [200, 200, 200]
    assert [answer.json()["changed"] for answer in (first, second, third)] == [True, False, False]
    assert second.json() == third.json()
    assert [entry.verb for entry in read_log(ops)] == [verb]


@pytest.mark.parametrize("operation", CHANGES, ids=lambda operation: operation.verb)
def test_change_of_an_unknown_watch_is_404_with_the_known_ones(sqlite_ops, operation):
    add_watch(sqlite_ops.database)
    sqlite_ops.expect_poll("shed", in_s=5)
    answer = sqlite_ops.change("door", operation.verb, body_of(operation))
    assert is_refusal(answer, 404, "WATCH_UNKNOWN")
    assert "there is no watch 'door'; known are: gate" in answer.json()["error"]


@pytest.mark.parametrize("verb", ["poll", "audit"])
def test_poll_and_audit_of_a_watch_that_is_not_polled_here_are_409(sqlite_ops, verb):
    add_watch(sqlite_ops.database, "left")
    answer = sqlite_ops.change("left", verb)
    assert is_refusal(answer, 409, "NOT_POLLED_HERE")
    assert "no longer configured" in answer.json()["error"]
    assert (read_log(sqlite_ops), sqlite_ops.asked) == ([], [])


@pytest.mark.parametrize("verb", ["poll", "audit"])
def test_poll_and_audit_on_a_standby_wait_for_the_leader_who_is_named(ops, verb):
    add_watch(ops.database, "roof")
    ops.role = "standby"
    answer = ops.change("roof", verb)
    assert answer.status_code == 202
    assert "nobody leads at present, so the next leader does it" in answer.json()["status"]
    with ops.database.write() as session:
        take_lead(session, holder="watcher pod-b:1:0f", lease_ms=60_000, work_version=1)
    answer = ops.change("roof", verb)
    assert answer.status_code == 202
    assert "watcher pod-b:1:0f leads and begins within seconds" in answer.json()["status"]
    with ops.database.read() as session:
        (request,) = load_open_requests(session)
    assert (request.watch, request.duty, request.number) == ("roof", verb, 2)
    assert [entry.verb for entry in read_log(ops)] == [verb, verb]


def test_watch_that_never_reached_its_server_can_be_polled(sqlite_ops):
    sqlite_ops.expect_poll("gate", in_s=5)
    answer = sqlite_ops.change("gate", "poll")
    assert (answer.status_code, sqlite_ops.asked) == (202, ["poll gate"])


@pytest.mark.parametrize(
    ("verb", "body", "named"),
    [
        ("rewind", None, "to_s"),
        ("rewind", {"to_s": "yesterday"}, "to_s"),
        ("rewind", {"to_s": -1}, "to_s"),
        ("rewind", {"to_s": 10**30}, "body"),
        ("rewind", {"to_s": NOW_S + 10}, "only go back"),
        ("pause", {"to_s": 1}, "to_s"),
        ("pause", {"actor": 5}, "actor"),
        ("pause", {"actor": "a\x00b"}, "actor"),
        ("pause", {"actor": "x" * 101}, "actor"),
        ("pause", [], "body"),
    ],
)
def test_change_with_a_bad_value_is_422_and_names_it(ops, verb, body, named):
    set_mark(ops, add_watch(ops.database), NOW_S)
    answer = ops.change("gate", verb, body)
    code = "REFUSED" if named == "only go back" else "BODY_WRONG"
    assert is_refusal(answer, 422, code)
    assert named in answer.json()["error"]
    assert read_log(ops) == []


def test_client_that_goes_in_the_middle_of_its_request_is_no_fault_of_the_program(sqlite_ops, caplog):
    port = int(sqlite_ops.url.rpartition(":")[2])
    for path in ("/api/v1/watches/gate/pause", "/login"):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CONTROL_TOKEN}\r\n"
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 50\r\n\r\nto".encode()
            )
        # Behind it in the one loop of the server, so what it did was done.
        assert sqlite_ops.get("/health/live").status_code == 200
        assert sqlite_ops.get("/health/live").status_code == 200
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(("body", "status", "code"), [(b"{", 422, "BODY_WRONG"), (b"\xff", 422, "BODY_WRONG"),
                                                     (b"[" * 9000, 422, "BODY_WRONG"),
                                                     (b" " * 10_001, 413, "BODY_TOO_LARGE")])  # fmt: skip
def test_change_with_a_body_that_is_none_is_refused(sqlite_ops, body, status, code):
    add_watch(sqlite_ops.database)
    answer = sqlite_ops.post(
        "/api/v1/watches/gate/pause", headers={"Authorization": f"Bearer {CONTROL_TOKEN}"}, data=body
    )
    assert is_refusal(answer, status, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "PATH_UNKNOWN"),
        ("POST", "/api/v1/watches/gate/dance", 404, "PATH_UNKNOWN"),
        ("GET", "/api/v1/watches/gate/pause", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/api/v1/status", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/v1/watches/door", 404, "WATCH_UNKNOWN"),
        ("GET", "/api/v1/watches/a%00b", 404, "WATCH_UNKNOWN"),
        ("GET", "/api/v1/watches/gate/audit", 404, "AUDIT_UNKNOWN"),
        ("GET", "/api/v1/files?name=never.jpg", 404, "FILE_UNKNOWN"),
        ("GET", "/api/v1/files", 422, "VALUE_WRONG"),
        ("GET", "/api/v1/files?name=a%00b", 422, "VALUE_WRONG"),
        ("GET", "/api/v1/log?watch=door", 404, "WATCH_UNKNOWN"),
        ("GET", "/api/v1/log?limit=0", 422, "VALUE_WRONG"),
        ("GET", "/api/v1/log?limit=1001", 422, "VALUE_WRONG"),
        ("GET", "/api/v1/log?before=x", 422, "VALUE_WRONG"),
        ("GET", "/api/v1/failures?limit=%C2%B2", 422, "VALUE_WRONG"),
    ],
)
def test_api_refuses_everything_in_the_same_form(ops, method, path, status, code):
    add_watch(ops.database)
    answer = ops.session.request(method, f"{ops.url}{path}", timeout=20)
    assert is_refusal(answer, status, code)


@pytest.mark.parametrize(
    "path", ["/api/v1/status", "/api/v1/log", "/api/v1/files?name=a", "/api/v1/failures"]
)
def test_api_without_a_store_is_503_without_its_password(ops_without_store, path):
    answer = ops_without_store.get(path)
    assert is_refusal(answer, 503, "STORE_UNAVAILABLE")
    assert "5ecr3t" not in answer.text


def test_change_without_a_store_is_503(ops_without_store):
    assert is_refusal(ops_without_store.change("gate", "pause"), 503, "STORE_UNAVAILABLE")


def test_log_is_read_in_pages_of_one_watch_or_all(ops):
    for name in ("gate", "roof"):
        add_watch(ops.database, name)
    for verb in ("pause", "resume"):
        for name in ("gate", "roof"):
            ops.change(name, verb)
    entries = ops.get("/api/v1/log").json()
    assert [(e["verb"], e["watch"]) for e in entries] == [
        ("resume", "roof"), ("resume", "gate"), ("pause", "roof"), ("pause", "gate"),
    ]  # fmt: skip
    page = ops.get("/api/v1/log", params={"limit": 2, "before": entries[1]["id"]}).json()
    assert page == entries[2:]
    assert ops.get("/api/v1/log?watch=gate").json() == [entries[1], entries[3]]


def test_failures_tell_dead_runs_and_samples_with_their_reasons(ops):
    watch = add_watch(ops.database)
    batch = add_batch(ops.database, watch, ["a", "b"])
    run = claim(ops.database)
    with ops.database.write() as session:
        runs.end_run(
            session, run_id=run.id, owner="me", state=RunState.DEAD, now_ms=NOW_MS, result={}, error="gave up"
        )
        sample = load(ops.database, watch, "a")
        samples.record_quarantined(session, sample_id=sample.id, reason="no image", now_ms=NOW_MS)
    deliver(ops.database, batch, sink="gone", state=DeliveryState.DEAD, location=None, error="410")
    told = ops.get("/api/v1/failures?watch=gate").json()
    assert told["deliveries"] == [
        {
            "watch": "gate",
            "delivery": "gate-000001/gone",
            "attempts": 1,
            "reason": "410",
            "finished_ms": NOW_MS,
        }
    ]
    assert [(run["batch_id"], run["step"], run["reason"]) for run in told["runs"]] == [
        (batch.id, "upload", "gave up")
    ]
    assert [(s["file_name"], s["state"], s["reason"]) for s in told["samples"]] == [
        ("a", "quarantined", "no image")
    ]
    assert ops.get("/api/v1/failures").json() == told
    add_watch(ops.database, "roof")
    assert ops.get("/api/v1/failures?watch=roof").json() == {
        "runs": [],
        "deliveries": [],
        "samples": [],
    }


def test_file_is_found_by_its_whole_name_and_never_by_a_walk_through_the_ledger(ops):
    watch = add_watch(ops.database)
    list_names(ops.database, watch, ["cam/a.jpg"])
    (life,) = ops.get("/api/v1/files?name=cam/a.jpg&watch=gate").json()
    assert (life["file_name"], life["state"]) == ("cam/a.jpg", "waiting")
    assert ops.get("/api/v1/files?name=a.jpg").status_code == 404


def test_one_watch_and_its_last_audit_are_told(ops):
    watch = add_watch(ops.database)
    add_watch(ops.database, "roof")
    assert ops.get("/api/v1/watches/gate").json()["name"] == "gate"
    report = ReconcileReport(
        watch="gate", started_ms=1, finished_ms=2, to_s=3, n_listed=4, n_missing=0, n_gone=0,
        n_no_longer_listed=0, samples={"done": 4}, n_remote=4, n_unexplained=0, missing=[], done_but_not_remote=[],
    )  # fmt: skip
    with ops.database.write() as session:
        reconciles.record_report(session, watch_id=watch.id, report=report)
    assert ops.get("/api/v1/watches/gate/audit").json() == msgspec.to_builtins(report)


def test_plan_of_a_watch_tells_what_waits_and_changes_nothing(ops):
    watch = add_watch(ops.database)
    list_names(ops.database, watch, ["a.jpg", "b.jpg"])
    plan = ops.get("/api/v1/watches/gate/plan").json()
    assert (plan["watch"], plan["n_waiting"]) == ("gate", 2)
    assert "does not follow the protocol" in plan["listing"]
    assert (plan["n_new"], plan["batch_sizes"], plan["n_picks"]) == (None, None, None)
    assert load(ops.database, watch, "a.jpg").state == "waiting"
    assert is_refusal(ops.get("/api/v1/watches/gat/plan"), 404, "WATCH_UNKNOWN")
    add_watch(ops.database, "left")
    assert is_refusal(ops.get("/api/v1/watches/left/plan"), 409, "NOT_POLLED_HERE")


@pytest.mark.parametrize("operation", READERS, ids=lambda operation: operation.name)
def test_reading_wants_a_token_where_that_is_set(build_ops, sqlite_store_url, operation):
    ops = build_ops(sqlite_store_url, read_needs_token=True)
    add_watch(ops.database)
    path = operation.path.format(watch="gate") + "?name=a"
    assert is_refusal(ops.get(path), 401, "TOKEN_NEEDED")
    for token in (CONTROL_TOKEN, CONFIGURED_TOKEN):
        assert ops.get(path, headers={"Authorization": f"Bearer {token}"}).status_code in {200, 404}
    assert ops.get("/metrics").status_code == 200
    assert ops.get("/health/live").status_code == 200


def test_configured_token_that_was_changed_or_taken_away_counts_no_more(sqlite_ops):
    add_watch(sqlite_ops.database)
    sqlite_ops.configured_token = "an0ther-t0ken"
    assert sqlite_ops.change("gate", "pause", token=CONFIGURED_TOKEN).status_code == 401
    assert sqlite_ops.change("gate", "pause", token="an0ther-t0ken").status_code == 200
    sqlite_ops.configured_token = None
    assert sqlite_ops.change("gate", "pause", token="").status_code == 401


@pytest.mark.parametrize("reading_needs_token", [False, True])
def test_document_is_valid_and_has_every_operation(reading_needs_token):
    document = msgspec.json.decode(
        build_document(OPERATIONS, version="1", reading_needs_token=reading_needs_token)
    )
    validate(document)
    described = {o["operationId"]: o for path in document["paths"].values() for o in path.values()}
    assert set(described) == {operation.name for operation in OPERATIONS}
    for operation in OPERATIONS:
        wants_token = described[operation.name].get("security") is None
        assert wants_token == (operation.changes or reading_needs_token)
        assert ("401" in described[operation.name]["responses"]) == wants_token


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS])
def test_api_answers_whatever_is_sent_as_it_is_described(ops, name):
    watch = add_watch(ops.database)
    set_mark(ops, watch, NOW_S)
    list_names(ops.database, watch, ["a"])
    document = schemathesis.openapi.from_url(f"{ops.url}/api/v1/openapi.json")
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
        if "watch" in (case.path_parameters or {}) and len(case.path_parameters["watch"]) % 2:
            case.path_parameters["watch"] = "gate"
        response = case.call(headers={"Authorization": f"Bearer {CONTROL_TOKEN}"}, allow_redirects=False)
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
