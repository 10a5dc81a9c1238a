"""Logging in to the status page, and what a form may change: only with the cookie, the form's token and the site's own."""

from __future__ import annotations

import re
import secrets
from contextlib import ExitStack

import pytest

from tests.builders import NOW_MS, ManualClock, add_batch, add_watch, deliver, list_names, load
from tests.unit.ops.conftest import CONFIGURED_TOKEN, CONTROL_TOKEN, Ops, Pages
from watcher.domain.delivery import DeliveryState
from watcher.domain.models import SampleState
from watcher.ops.sessions import LIFE_S, Sessions
from watcher.ops.tokens import ControlTokens
from watcher.store import control, samples


def log_in(ops, token=CONTROL_TOKEN, **options):
    return ops.post("/login", data={"token": token}, allow_redirects=False, **options)


def find_form_token(ops, path="/"):
    return re.search(r'name="form_token" value="([^"]+)"', ops.get(path).text).group(1)


def send(ops, verb, *, watch="gate", **changes):
    form = {"watch": watch, "back": "/", **changes}
    if "form_token" not in form:
        form["form_token"] = find_form_token(ops)
    return ops.post(f"/do/{verb}", data=form, allow_redirects=False)


def read_log(ops):
    with ops.database.read() as session:
        return [(e.verb, e.actor) for e in control.load_audit_log(session, limit=100)]


def test_login_with_the_token_gives_a_cookie_that_scripts_and_other_sites_do_not_get(sqlite_ops):
    answer = log_in(sqlite_ops)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    assert CONTROL_TOKEN not in cookie


@pytest.mark.parametrize("token", ["", "wrong", CONTROL_TOKEN + "x", "\x00", "x" * 9000])
def test_login_with_a_wrong_token_is_401_and_gives_no_cookie(sqlite_ops, token):
    answer = log_in(sqlite_ops, token)
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
    assert "This is not the token." in answer.text


def test_page_has_buttons_only_for_whom_is_logged_in(sqlite_ops):
    add_watch(sqlite_ops.database)
    assert 'action="/do/' not in sqlite_ops.get("/").text
    log_in(sqlite_ops)
    text = sqlite_ops.get("/").text
    for verb in ("poll", "pause", "replay", "audit"):
        assert f'action="/do/{verb}"' in text
    assert CONTROL_TOKEN not in text


@pytest.mark.parametrize(("token", "who"), [(CONTROL_TOKEN, "local"), (CONFIGURED_TOKEN, "ops-team")])
def test_button_changes_what_it_says_once_and_tells_it_once(ops, token, who):
    add_watch(ops.database)
    log_in(ops, token)
    answer = send(ops, "pause", back="/watches/gate")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/watches/gate")
    assert "gate: paused" in ops.get("/").text
    assert "gate: paused" not in ops.get("/").text
    send(ops, "pause")
    assert "gate: it was paused already" in ops.get("/").text
    assert read_log(ops) == [("pause", who)]
    send(ops, "resume")
    assert read_log(ops) == [("resume", who), ("pause", who)]


def test_replay_button_gives_a_sample_another_chance(ops):
    watch = add_watch(ops.database)
    list_names(ops.database, watch, ["a"])
    with ops.database.write() as session:
        sample = load(ops.database, watch, "a")
        samples.record_quarantined(session, sample_id=sample.id, reason="no image", now_ms=NOW_MS)
    log_in(ops)
    send(ops, "replay")
    assert load(ops.database, watch, "a").state is SampleState.WAITING


def test_drop_button_lets_a_dead_delivery_be(ops):
    batch = add_batch(ops.database, add_watch(ops.database), ["a"])
    deliver(ops.database, batch, sink="gone", state=DeliveryState.DEAD, location=None, error="410")
    log_in(ops)
    assert ops.get("/").text.count('action="/do/drop"') == 1
    send(ops, "drop", delivery="gate-000001/gone")
    text = ops.get("/").text
    assert "gate: 1 dead deliveries dropped" in text
    assert "gone: dropped" in text
    assert 'action="/do/drop"' not in text


def test_form_without_a_login_leads_to_the_login_and_changes_nothing(sqlite_ops):
    add_watch(sqlite_ops.database)
    answer = send(sqlite_ops, "pause", form_token="guessed")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    assert read_log(sqlite_ops) == []


@pytest.mark.parametrize("form_token", ["", "guessed", "\udcff"])
@pytest.mark.parametrize("path", ["/do/pause", "/logout"])
def test_form_without_its_token_is_refused(sqlite_ops, path, form_token):
    add_watch(sqlite_ops.database)
    log_in(sqlite_ops)
    data = {"watch": "gate", "form_token": form_token.encode("utf-8", "surrogateescape")}
    assert sqlite_ops.post(path, data=data, allow_redirects=False).status_code == 403
    assert read_log(sqlite_ops) == []
    assert "log out" in sqlite_ops.get("/").text


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_form_of_another_site_is_refused(sqlite_ops, site):
    add_watch(sqlite_ops.database)
    log_in(sqlite_ops)
    form = {"watch": "gate", "form_token": find_form_token(sqlite_ops)}
    answer = sqlite_ops.post("/do/pause", data=form, headers={"Sec-Fetch-Site": site}, allow_redirects=False)
    assert answer.status_code == 403
    assert log_in(sqlite_ops, headers={"Sec-Fetch-Site": site}).status_code == 403
    assert read_log(sqlite_ops) == []


@pytest.mark.parametrize(
    "back",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "\\\\evil", ""],
)
def test_form_leads_back_to_no_other_site(sqlite_ops, back):
    add_watch(sqlite_ops.database)
    log_in(sqlite_ops)
    assert send(sqlite_ops, "pause", back=back).headers["Location"] == "/"


def test_form_of_an_unknown_watch_or_change_is_told(sqlite_ops):
    add_watch(sqlite_ops.database)
    log_in(sqlite_ops)
    send(sqlite_ops, "pause", watch="door")
    assert "there is no watch &#39;door&#39;; known are: gate" in sqlite_ops.get("/").text
    assert send(sqlite_ops, "rewind").status_code == 404
    assert read_log(sqlite_ops) == []


def test_login_ends_by_logging_out_after_its_time_and_with_its_token(sqlite_ops):
    add_watch(sqlite_ops.database)
    log_in(sqlite_ops)
    sqlite_ops.post("/logout", data={"form_token": find_form_token(sqlite_ops)})
    assert "log in" in sqlite_ops.get("/").text
    log_in(sqlite_ops)
    sqlite_ops.clock.advance(LIFE_S + 1)
    assert "log in" in sqlite_ops.get("/").text
    log_in(sqlite_ops, CONFIGURED_TOKEN)
    assert "log out" in sqlite_ops.get("/").text
    sqlite_ops.configured_token = "an0ther-t0ken"
    assert "log in" in sqlite_ops.get("/").text


@pytest.mark.parametrize("path", ["/", "/watches/gate", "/files?name=a", "/log"])
def test_page_wants_a_login_where_reading_wants_a_token(build_ops, sqlite_store_url, path):
    ops = build_ops(sqlite_store_url, read_needs_token=True)
    add_watch(ops.database)
    answer = ops.get(path, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    assert "gate" not in answer.text
    assert ops.get("/thumbnails/1").status_code == 401
    log_in(ops)
    assert ops.get(path, allow_redirects=False).status_code in {200, 404}


@pytest.fixture
def replicas(ops, lightly):
    """Two processes over one store behind one address, each with a local token of its own."""
    with ExitStack() as stack:
        others = []
        for _ in range(2):
            pages = Pages()
            stack.callback(pages.close)
            others.append(Ops(ops.database, lightly, pages, stack, local_token=secrets.token_urlsafe(16)))
        others[1].session = others[0].session  # one browser; cookies do not know ports
        yield others


def test_login_and_its_forms_hold_on_every_replica(replicas):
    one, other = replicas
    add_watch(one.database)
    assert log_in(one, CONFIGURED_TOKEN).status_code == 303
    assert 'action="/do/pause"' in other.get("/").text
    assert find_form_token(one) == find_form_token(other)
    send(other, "pause", form_token=find_form_token(one))
    assert "gate: paused" in one.get("/").text
    assert "gate: paused" not in other.get("/").text
    assert read_log(one) == [("pause", "ops-team")]
    other.configured_token = "an0ther-t0ken"
    assert "log in" in other.get("/").text
    assert "log out" in one.get("/").text


def test_login_by_the_local_token_holds_on_its_own_process_alone(replicas):
    one, other = replicas
    add_watch(one.database)
    assert log_in(one, one.local_token).status_code == 303
    assert "log out" in one.get("/").text
    assert "log in" in other.get("/").text


def change_at(cookie: str, index: int) -> str:
    parts = cookie.split(".")
    parts[index] = {"0": "1"}.get(parts[index][0], "0") + parts[index][1:]
    return ".".join(parts)


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda cookie: change_at(cookie, 0), id="another end"),
        pytest.param(
            lambda cookie: f"{int(cookie.split('.')[0]) + 5}.{cookie.partition('.')[2]}", id="later"
        ),
        pytest.param(lambda cookie: change_at(cookie, 1), id="another number"),
        pytest.param(lambda cookie: change_at(cookie, 2), id="another signature"),
        pytest.param(lambda cookie: cookie.rpartition(".")[0] + ".", id="no signature"),
        pytest.param(lambda cookie: "9" * 5000 + cookie, id="too long"),
        pytest.param(lambda _cookie: "..", id="nothing"),
    ],
)
def test_cookie_that_was_changed_is_no_login(forge):
    clock = ManualClock()
    sessions = Sessions(ControlTokens(local="l0cal-t0ken"), clock)
    cookie = sessions.open("l0cal-t0ken")
    assert sessions.find(cookie).caller == "local"
    assert sessions.find(forge(cookie)) is None


def test_notice_is_of_its_login_and_fits_into_a_cookie():
    sessions = Sessions(ControlTokens(local="l0cal-t0ken"), ManualClock())
    one, other = sessions.open("l0cal-t0ken"), sessions.open("l0cal-t0ken")
    sealed = sessions.find(one).seal_notice("tor: angehalten, für immer" + "\N{SNOWMAN}" * 5000)
    assert len(sealed) < 3500
    assert sessions.find(one, sealed).notice.startswith("tor: angehalten, für immer\N{SNOWMAN}")
    assert sessions.find(other, sealed).notice is None
    assert sessions.find(one, sealed[:-3] + "abc").notice is None
    assert sessions.find(one, "x").notice is None
    assert sessions.find(one).form_token != sessions.find(other).form_token
