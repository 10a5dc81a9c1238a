"""No secret survives in a text, whoever signed it and wherever it stands."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from watcher.domain.redaction import redact

SECRET = "5ecr3tV4lue"
S3 = (
    "https://bucket.s3.eu-west-1.amazonaws.com/raw/cam%201/a+b.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    f"&X-Amz-Credential=AKIA{SECRET}%2F20260101%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z"
    f"&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Security-Token={SECRET}%2F%2B&X-Amz-Signature={SECRET}"
)
GCS = (
    "https://storage.googleapis.com/bucket/a.jpg?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential="
    f"me%40project&X-Goog-Date=20260101T000000Z&X-Goog-Expires=900&X-Goog-Signature={SECRET}"
)
AZURE = (
    "https://account.blob.core.windows.net/container/a.jpg?sv=2022-11-02&st=2026-01-01T00%3A00%3A00Z&sr=b&sp=r"
    f"&sig={SECRET}%2B%3D"
)
PLATFORM = f"http://127.0.0.1:8000/objects/read/abc?expires=1700000000&signature={SECRET}"

# What a token or a password may be made of, unlike the delimiters of the text around it.
secrets = st.text(string.ascii_letters + string.digits + "-._~+/=%", min_size=6, max_size=60)
around = st.text(string.ascii_letters + " .,:;\n", max_size=30)


@pytest.mark.scenario(number=26)
@pytest.mark.parametrize("url", [S3, GCS, AZURE, PLATFORM], ids=["s3", "gcs", "azure", "platform"])
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "GET {} failed",
        "could not read '{}': timed out",
        'could not read "{}"',
        "<Response [403] from {}>",
        "two: {} and {}.",
        "{{'read_url': '{}', 'n': 1}}",
        "see ({})",
    ],
)
def test_signed_url_in_a_text_loses_its_query_but_keeps_what_names_the_object(url, text):
    shown = redact(text.replace("{}", url).replace("{{", "{").replace("}}", "}"))
    assert SECRET not in shown
    assert url.partition("?")[0] + "?***" in shown


def test_signed_url_without_its_host_loses_the_values_that_sign():
    for url in (S3, GCS, AZURE, PLATFORM):
        path_and_query = "/" + url.split("/", 3)[3]
        text = f"HTTPSConnectionPool(host='x', port=443): Max retries exceeded with url: {path_and_query} (Caused by x)"
        assert SECRET not in redact(text)


def test_signed_url_in_capitals_is_no_exception():
    assert SECRET.upper() not in redact(S3.upper())


def test_signed_url_whose_query_holds_quotes_loses_the_rest_too():
    url = f"https://host/a.jpg?response-content-disposition=filename='a b'&X-Amz-Signature={SECRET}"
    assert SECRET not in redact(url)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "authorization: bearer {}",
        "{'Authorization': 'Bearer {}'}",
        'headers={"authorization": "BEARER {}"}',
        "/v1/datasets?pageSize=5&token={}",
        "https://host/v1/datasets?token={}&pageSize=5",
        "publicToken={}",
        "token: {}",
        '{"token": "{}"}',
        "{'access_token': '{}', 'n': 1}",
        "LIGHTLY_TOKEN={}",
        "WATCHER_PLATFORM__TOKEN={} watcher run",
        "control_token={}",
        "password={}",
        "PGPASSWORD={}",
        "client_secret={}",
        "host=db user=me password={} dbname=x",
    ],
)
def test_token_in_any_spelling_is_hidden(text):
    shown = redact(text.replace("{}", SECRET))
    assert SECRET not in shown
    assert "***" in shown


@example(before="BEARER", secret="000000", after="")
@given(before=around, secret=secrets, after=around)
def test_bearer_token_of_any_letters_is_hidden_and_the_rest_stays(before, secret, after):
    assert redact(f"{before} Bearer {secret} {after}") == f"{before} Bearer *** {after}"


@given(before=around, secret=secrets)
def test_token_parameter_of_any_letters_is_hidden(before, secret):
    shown = redact(f"{before} url: /v1/jobs?pageSize=10&token={secret}&x=1")
    assert f"token={secret}" not in shown
    assert "token=***&x=1" in shown


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "https", "s3"])
@given(password=st.text(string.ascii_letters + string.digits + "-._~!$&*+,;=:@%()", min_size=8, max_size=30))
@example(password="p@ss:w@rd")
def test_password_in_a_url_is_hidden_with_its_user(scheme, password):
    secret = f"Zq{password}qZ"
    shown = redact(f"cannot connect to {scheme}://me:{secret}@db.host:5432/watcher now")
    assert shown == f"cannot connect to {scheme}://***@db.host:5432/watcher now"


def test_password_in_the_query_of_a_database_url_is_hidden():
    assert SECRET not in redact(f"postgresql://db.host/watcher?user=me&password={SECRET}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no secrets here",
        "the mark is at 1700000000, 5 tokens a second",
        "https://host/v1/datasets/0123456789abcdef01234567/tags",
        "a+b%20c.jpg is no image",
        "mail me@example.com about s3://bucket/key.jpg",
        "is it there?",
        "set LIGHTLY_TOKEN or LIGHTLY_TOKEN_FILE",
        "the server refuses the token",
    ],
)
def test_text_without_secrets_stays_as_it_is(text):
    assert redact(text) == text


@given(st.text(max_size=300))
def test_text_redacted_twice_is_the_same_as_once(text):
    once = redact(text)
    assert redact(once) == once


@pytest.mark.timeout(20)
def test_text_that_is_long_is_redacted_in_time_linear_in_it():
    n_secrets = redact(f"GET {S3} failed\n" * 2000).count("***")
    assert n_secrets == 2000
    assert redact("a" * 200_000) == "a" * 200_000
    for piece in ("https://", "postgres://", "token", "token:", "bearer ", "?", "a@"):
        redact(piece * 40_000)
