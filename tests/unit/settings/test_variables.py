"""Every variable is known or refused by name, and a secret may lie in a file but never in a message."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr, ValidationError

from watcher.domain.errors import ConfigError
from watcher.settings.groups import check_control_token
from watcher.settings.root import Settings, load_settings
from watcher.settings.variables import explain_validation, iter_variables

SECRET = "5ec3e7" + 29 * "c0"  # every secret may be of this form
NAMES_OF_SECRETS = [
    "LIGHTLY_TOKEN",
    "WATCHER_STORE__URL",
    "WATCHER_CONTROL__TOKEN",
    "WATCHER_PLATFORM__TOKEN",
    "WATCHER_PLATFORM__KEY",
    "WATCHER_PLATFORM__DATABASE_URL",
    "WATCHER_PLATFORM__ROLE_ACCESS_KEY_ID",
    "WATCHER_PLATFORM__ROLE_SECRET_ACCESS_KEY",
    "WATCHER_STATEMENT__KEY",
    "WATCHER_WATCHES__<NAME>__EMBED__TOKEN",
    "WATCHER_WATCHES__<NAME>__DELIVER__WEBHOOK__<NAME>__URL",
    "WATCHER_WATCHES__<NAME>__DELIVER__WEBHOOK__<NAME>__SECRET",
    "WATCHER_WATCHES__<NAME>__DELIVER__LABEL_STUDIO__<NAME>__TOKEN",
]
SECRETS = [name.replace("<NAME>", "CAMERAS") for name in NAMES_OF_SECRETS]


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ).build_watch_configs()
    return str(caught.value)


def with_server(environ: dict[str, str]) -> dict[str, str]:
    """A token of another server needs its address beside it."""
    if any(name.startswith("LIGHTLY_TOKEN") for name in environ):
        return {**environ, "LIGHTLY_SERVER_LOCATION": "https://api.example.com"}
    return environ


def read_secret(settings: Settings, variable: str) -> str | None:
    if variable.startswith("LIGHTLY_"):
        value = settings.lightly_token
    else:
        value = settings
        for part in variable.removeprefix("WATCHER_").lower().split("__"):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
    return None if value is None else value.get_secret_value()


def test_environment_that_is_empty_gives_the_embedded_default():
    settings = load_settings({})
    assert settings.is_embedded
    assert settings.store_url == "sqlite:///data/watcher.sqlite"
    assert settings.http.port == 8080
    assert settings.platform.port == 8000


def test_environment_of_others_is_ignored():
    assert load_settings({"PATH": "/bin", "LIGHTLY_WORKER": "x", "WATCH": "y"}) == load_settings({})


def test_secrets_are_exactly_the_ones_that_may_lie_in_files():
    assert [v.name for v in iter_variables(Settings) if v.is_secret] == NAMES_OF_SECRETS


@pytest.mark.parametrize(
    ("misspelt", "right"),
    [
        ("WATCHER_HTTP__PROT", "WATCHER_HTTP__PORT"),
        ("WATCHER_HTTP_PORT", "WATCHER_HTTP__PORT"),
        ("WATCHER_DATADIR", "WATCHER_DATA_DIR"),
        ("WATCHER_STORE_URL", "WATCHER_STORE__URL"),
        ("WATCHER_RUNS__WORKER", "WATCHER_RUNS__WORKERS"),
        ("WATCHER_LOG__LEVLE", "WATCHER_LOG__LEVEL"),
        ("WATCHER_WATCHES__CAMERAS__BATCH__MIN_SAMPLE", "WATCHER_WATCHES__CAMERAS__BATCH__MIN_SAMPLES"),
        ("WATCHER_WATCHES__GATE_2__SCHEDULE__CORN", "WATCHER_WATCHES__GATE_2__SCHEDULE__CRON"),
        (
            "WATCHER_WATCHES__GATE_2__DELIVER__WEBHOOK__QA_TEAM__TIMEOUT",
            "WATCHER_WATCHES__GATE_2__DELIVER__WEBHOOK__QA_TEAM__TIMEOUT_S",
        ),
    ],
)
def test_variable_misspelt_is_refused_with_the_nearest_right_name(misspelt, right):
    assert refusal({misspelt: "1"}) == f"{misspelt} is not a setting: did you mean {right}?"


def test_variable_like_no_other_is_refused_with_where_to_look():
    assert refusal({"WATCHER_ZZZZ": "1"}) == (
        "WATCHER_ZZZZ is not a setting; `watcher check-config --all` lists the known ones"
    )


def test_variables_misspelt_are_all_named_at_once():
    text = refusal({"WATCHER_HTTP__PROT": "1", "WATCHER_DATADIR": "x"})
    assert "WATCHER_HTTP__PROT" in text
    assert "WATCHER_DATADIR" in text


@pytest.mark.parametrize("variable", [v.name.replace("<NAME>", "CAMERAS") for v in iter_variables(Settings)])
def test_variable_with_one_letter_left_out_is_refused_with_its_name(variable):
    if variable.startswith("LIGHTLY_"):
        return  # other programs have variables of that prefix
    misspelt = variable[:-2] + variable[-1]
    text = refusal({misspelt: SECRET})
    assert f"{misspelt} is not a setting" in text
    assert SECRET not in text


def test_variable_that_is_empty_counts_as_unset():
    assert load_settings({"WATCHER_HTTP__PORT": "", "LIGHTLY_TOKEN": ""}) == load_settings({})


@pytest.mark.parametrize("variable", SECRETS)
def test_secret_in_a_file_is_read_without_its_line_end(variable, tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    settings = load_settings(with_server({f"{variable}_FILE": str(tmp_path / "secret")}))
    assert read_secret(settings, variable) == SECRET


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("watcher_http__port", "did you mean WATCHER_HTTP__PORT?"),
        ("Watcher_Watches__gate__Folder", "did you mean WATCHER_WATCHES__GATE__FOLDER?"),
        ("lightly_token", "did you mean LIGHTLY_TOKEN?"),
        ("LIGHTLY_SERVER_LOCATION_FILE", "did you mean LIGHTLY_SERVER_LOCATION?"),
        ("WATCHER_HTTP", "each of its parts is a variable, such as WATCHER_HTTP__HOST"),
        ("WATCHER_WATCHES", "each of its parts is a variable, such as WATCHER_WATCHES__<NAME>__DATASET"),
        ("WATCHER_WATCHES__GATE", "each of its parts is a variable, such as WATCHER_WATCHES__GATE__DATASET"),
        (
            "WATCHER_WATCHES__GATE__DELIVER__WEBHOOK",
            "each of its parts is a variable, such as WATCHER_WATCHES__GATE__DELIVER__WEBHOOK__<NAME>__URL",
        ),
    ],
)
def test_variable_in_small_letters_or_of_a_whole_group_is_refused_with_the_right_one(name, told):
    assert refusal({name: "1"}) == f"{name} is not a setting: {told}"


def test_byte_order_mark_in_the_file_of_a_secret_is_no_part_of_it(tmp_path):
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbf" + SECRET.encode() + b"\r\n")
    settings = load_settings({"WATCHER_CONTROL__TOKEN_FILE": str(tmp_path / "secret")})
    assert read_secret(settings, "WATCHER_CONTROL__TOKEN") == SECRET


@pytest.mark.parametrize(
    "token",
    ["one-line-of-it\nanother", "t\u00f6ken-t\u00f6ken-t\u00f6ken", " blank-before-it", "tab\tin-the-middle"],
)
def test_control_token_that_no_header_carries_is_refused_without_showing_it(token):
    text = refusal({"WATCHER_CONTROL__TOKEN": token})
    assert text.startswith("WATCHER_CONTROL__TOKEN: must be one line of printable ASCII characters")
    assert token not in text
    with pytest.raises(ConfigError, match="one line of printable ASCII"):
        check_control_token(token)


def test_secret_of_a_watch_in_a_file_is_read(tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    settings = load_settings({"WATCHER_WATCHES__GATE__EMBED__TOKEN_FILE": str(tmp_path / "secret")})
    token = settings.watches["gate"].embed.token
    assert token is not None
    assert token.get_secret_value() == SECRET


@pytest.mark.parametrize("variable", SECRETS)
def test_secret_in_an_absent_file_is_refused_by_variable_and_path(variable, tmp_path):
    text = refusal({f"{variable}_FILE": str(tmp_path / "nowhere")})
    assert (
        text
        == f"{variable}_FILE names {tmp_path / 'nowhere'}, which cannot be read: No such file or directory"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "it is not text"), (b"x" * 70_000, "too large")],
)
def test_secret_in_a_file_of_the_wrong_kind_is_refused_with_the_reason(content, reason, tmp_path):
    (tmp_path / "secret").write_bytes(content)
    text = refusal({"LIGHTLY_TOKEN_FILE": str(tmp_path / "secret")})
    assert text.startswith(f"LIGHTLY_TOKEN_FILE names {tmp_path / 'secret'}, which")
    assert reason in text


def test_secret_whose_file_is_a_folder_is_refused(tmp_path):
    assert "Is a directory" in refusal({"LIGHTLY_TOKEN_FILE": str(tmp_path)})


@pytest.mark.parametrize("variable", SECRETS)
def test_secret_given_both_ways_is_refused_without_showing_it(variable, tmp_path):
    (tmp_path / "secret").write_text("another")
    text = refusal({variable: SECRET, f"{variable}_FILE": str(tmp_path / "secret")})
    assert text == f"both {variable} and {variable}_FILE are set: unset one of them"


@pytest.mark.parametrize("variable", SECRETS)
def test_secret_beside_an_empty_variable_of_the_other_kind_is_taken(variable, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    by_file = load_settings(with_server({variable: "", f"{variable}_FILE": str(tmp_path / "secret")}))
    by_value = load_settings(with_server({variable: SECRET, f"{variable}_FILE": ""}))
    assert read_secret(by_file, variable) == read_secret(by_value, variable) == SECRET


def test_secret_is_not_in_the_text_of_the_settings():
    environ = with_server(dict.fromkeys(SECRETS, SECRET))
    settings = load_settings(environ)
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.model_dump())
    assert SECRET not in settings.model_dump_json()


def test_file_of_a_variable_that_is_no_secret_is_refused(tmp_path):
    assert "WATCHER_HTTP__PORT_FILE is not a setting" in refusal({"WATCHER_HTTP__PORT_FILE": str(tmp_path)})


def test_token_without_its_server_is_refused_with_both_ways_out():
    text = refusal({"LIGHTLY_TOKEN": SECRET})
    assert "name the server the token belongs to" in text
    assert "unset the token" in text
    assert SECRET not in text


def test_server_without_its_token_is_refused_with_both_ways_out():
    text = refusal({"LIGHTLY_SERVER_LOCATION": "https://api.example.com"})
    assert "LIGHTLY_TOKEN_FILE" in text
    assert "unset the location" in text


@given(
    st.dictionaries(
        st.text(st.characters(categories=["Lu", "Ll", "Nd", "Pd", "Pc"]), max_size=30).map(
            "WATCHER_".__add__
        ),
        st.just(SECRET),
        min_size=1,
        max_size=3,
    )
)
def test_variables_of_any_name_are_read_or_refused_by_name_but_never_crash(environ):
    text = ""
    try:
        load_settings(environ)
    except ConfigError as error:
        text = str(error)
    assert not text or any(name in text for name in environ)


class Vault(BaseModel):
    key: Annotated[SecretStr, Field(min_length=100)]
    size: Annotated[int, Field(le=5)]


def test_secret_that_is_itself_wrong_is_named_but_not_shown():
    with pytest.raises(ValidationError) as caught:
        Vault.model_validate({"key": SECRET, "size": "6"})
    text = explain_validation(caught.value, Vault)
    assert "WATCHER_KEY: must have at least 100 characters, not 64" in text
    assert "WATCHER_SIZE='6': " in text
    assert SECRET not in text


def test_problem_is_told_in_the_words_of_this_program():
    environ = {
        "WATCHER_CONTROL__TOKEN": "short",
        "WATCHER_PLATFORM__KEY": "0a" * 31,
        "WATCHER_STATEMENT__KEY": f"{'x' * 32}\nshort",
        "WATCHER_HTTP__TLS_CERT_FILE": "/certificate",
    }
    assert refusal(environ).splitlines() == [
        "WATCHER_HTTP: TLS needs both TLS_CERT_FILE and TLS_KEY_FILE: set the other one too",
        "WATCHER_CONTROL__TOKEN: must have at least 12 characters, not 5",
        "WATCHER_PLATFORM__KEY: a key has 64 hexadecimal digits; of several each has a line",
        "WATCHER_STATEMENT__KEY: each key, a line each, must have at least 32 characters",
    ]
