"""`watcher check-config`: what was understood, with secrets masked, or every problem by name."""

from __future__ import annotations

import pytest

from tests.certificates import write_pair
from watcher.settings.root import Settings
from watcher.settings.variables import iter_variables

SECRET = "5ecr3t-t0ken"


def row_of(output: str, variable: str) -> list[str]:
    (line,) = (line for line in output.splitlines() if line.startswith(variable + " "))
    return line.split()


def test_settings_of_the_default_are_shown_with_where_they_come_from(command):
    done = command(
        "check-config", WATCHER_HTTP__PORT="9090", WATCHER_WATCHES__INCOMING__SCHEDULE__INTERVAL_S="12.5"
    )
    assert (done.exit_code, done.stderr) == (0, "")
    assert row_of(done.stdout, "WATCHER_HTTP__PORT") == ["WATCHER_HTTP__PORT", "9090", "environment"]
    assert row_of(done.stdout, "WATCHER_HTTP__HOST") == ["WATCHER_HTTP__HOST", "127.0.0.1", "default"]
    assert "1 watch(es) at the embedded platform" in done.stdout
    assert "incoming: dataset incoming, every 12.5 s" in done.stdout
    assert "steps upload -> embed -> sampling -> deliver" in done.stdout


def test_settings_with_secrets_are_shown_masked(command, tmp_path):
    (tmp_path / "token").write_text(SECRET)
    done = command(
        "check-config",
        LIGHTLY_TOKEN_FILE=str(tmp_path / "token"),
        LIGHTLY_SERVER_LOCATION="https://api.example.com",
        WATCHER_STORE__URL=f"postgresql://me:{SECRET}@db/watcher",
        WATCHER_PLATFORM__TOKEN=SECRET,
        WATCHER_WATCHES__GATE__DATASET="gate",
    )
    assert done.exit_code == 0
    assert SECRET not in done.output
    assert row_of(done.stdout, "LIGHTLY_TOKEN") == ["LIGHTLY_TOKEN", "********", "LIGHTLY_TOKEN_FILE"]
    assert row_of(done.stdout, "WATCHER_STORE__URL") == ["WATCHER_STORE__URL", "********", "environment"]
    assert "1 watch(es) at https://api.example.com:" in done.stdout


@pytest.mark.parametrize("location", ["nonsense", "ftp://x", f"https://me:{SECRET}@x/?token={SECRET}"])
def test_address_of_the_server_that_run_would_refuse_is_refused_without_its_secrets(command, location):
    done = command(
        "check-config",
        LIGHTLY_TOKEN="a-token",
        LIGHTLY_SERVER_LOCATION=location,
        WATCHER_WATCHES__GATE__DATASET="gate",
    )
    assert done.exit_code == 2
    assert "LIGHTLY_SERVER_LOCATION is not a usable address" in done.stderr
    assert SECRET not in done.output


@pytest.mark.parametrize("name", ["check-config", "run"])
def test_files_of_certificates_that_are_none_are_all_told_before_anything_is_made(
    command, data_dir, tmp_path, name
):
    (tmp_path / "no.pem").write_text("no PEM")
    tls = {
        "WATCHER_HTTP__TLS_CERT_FILE": str(tmp_path / "no.pem"),
        "WATCHER_HTTP__TLS_KEY_FILE": str(tmp_path / "no.pem"),
    }
    for ca, told in (
        ("no.pem", "no certificate in it"),
        ("absent.pem", "no such file of trusted certificates"),
    ):
        done = command(name, LIGHTLY_CA_CERTS=str(tmp_path / ca), **tls)
        assert done.exit_code == 2, done.output
        words = " ".join(done.stderr.split())
        assert told in words
        assert "cannot be used" in words
        assert "both are PEM files" in words
        assert not data_dir.exists()


def test_files_of_certificates_that_are_some_are_taken(command, tmp_path):
    cert, key = write_pair(tmp_path)
    files = {
        "WATCHER_HTTP__TLS_CERT_FILE": str(cert),
        "WATCHER_HTTP__TLS_KEY_FILE": str(key),
        "LIGHTLY_CA_CERTS": str(cert),
    }
    assert command("check-config", **files).exit_code == 0
    assert command("check-config", **{**files, "LIGHTLY_CA_CERTS": str(tmp_path)}).exit_code == 0


def test_faults_of_the_process_and_of_watches_are_told_in_one_round(command):
    done = command(
        "check-config",
        WATCHER_HTTP__PORT="x",
        WATCHER_TRACES__ENDPOINT="ftp://x",
        WATCHER_MISSPELT="1",
        WATCHER_WATCHES__GATE__SCHEDULE__CRON="61 * * * *",
        WATCHER_WATCHES__ROOF__BATCH__MIN_SAMPLES="-1",
        WATCHER_WATCHES__DOOR__FOLDER="x",
        WATCHER_WATCHES__door__FOLDER="y",
    )
    assert done.exit_code == 2
    words = " ".join(done.stderr.split())
    for part in (
        "WATCHER_HTTP__PORT='x'",
        "WATCHER_TRACES__ENDPOINT='ftp://x': not an http or https address",
        "WATCHER_MISSPELT is not a setting",
        "watch 'gate': ",
        "61 * * * *",
        "WATCHER_WATCHES__ROOF__BATCH__MIN_SAMPLES",
        "WATCHER_WATCHES__DOOR__FOLDER and WATCHER_WATCHES__door__FOLDER are one setting",
    ):
        assert part in words


def test_faults_of_watches_are_told_beside_a_misspelling_and_beside_certificates(command, tmp_path):
    cron = {"WATCHER_WATCHES__GATE__SCHEDULE__CRON": "61 * * * *"}
    for other in ({"WATCHER_MISSPELT": "1"}, {"LIGHTLY_CA_CERTS": str(tmp_path / "absent.pem")}):
        done = command("check-config", **cron, **other)
        assert done.exit_code == 2
        assert "61 * * * *" in done.stderr
        assert "MISSPELT" in done.stderr or "absent.pem" in done.stderr.replace("\n", "")


@pytest.mark.scenario(number=40)
def test_watches_are_shown_with_their_rules_and_their_next_poll(command):
    done = command(
        "check-config",
        WATCHER_WATCHES__GATE__SCHEDULE__CRON="0 6 * * 0",
        WATCHER_WATCHES__GATE__SAMPLING__BUDGET="7",
        WATCHER_WATCHES__ROOF__STEPS="upload",
    )
    assert "gate: dataset gate, cron 0 6 * * 0 (next 20" in done.stdout
    assert " 06:00:00 UTC)" in done.stdout
    assert "budget=7" in done.stdout
    assert "steps upload\n" in done.stdout


def refuse(command, data_dir, name, variable, value, message):
    done = command(name, **{variable: value})
    assert done.exit_code == 2
    assert message in done.stderr
    assert all(line.startswith("watcher: ") for line in done.stderr.splitlines())
    assert SECRET not in done.output
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WATCHER_HTTP__PROT", "1", "WATCHER_HTTP__PROT is not a setting: did you mean WATCHER_HTTP__PORT?"),
        (
            "WATCHER_HTTP__PORT",
            "99999",
            "WATCHER_HTTP__PORT='99999': input should be less than or equal to 65535",
        ),
        ("LIGHTLY_TOKEN", SECRET, "LIGHTLY_TOKEN is set, but not LIGHTLY_SERVER_LOCATION"),
    ],
)
@pytest.mark.parametrize("name", ["check-config", "status", "migrate", "poll", "run", "platform"])
def test_setting_that_is_wrong_is_refused_by_every_command_with_exit_code_two(
    command, data_dir, name, variable, value, message
):
    refuse(command, data_dir, name, variable, value, message)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WATCHER_WATCHES__GATE__SCHEDULE__CRON", "0 0 31 2 *", "never fires"),
        (
            "WATCHER_WATCHES__GATE__STEPS",
            "sampling",
            "the step sampling (method CORESET) needs the step embed",
        ),
    ],
)
@pytest.mark.parametrize("name", ["check-config", "poll", "run"])
def test_watch_that_is_wrong_is_refused_by_every_command_that_needs_it(
    command, data_dir, name, variable, value, message
):
    refuse(command, data_dir, name, variable, value, message)


def test_queue_without_postgres_is_refused_before_anything_is_made(command, data_dir):
    done = command("check-config", WATCHER_DISPATCH="procrastinate")
    assert done.exit_code == 2
    assert "WATCHER_DISPATCH=procrastinate needs Postgres, but the store is an SQLite file" in done.stderr
    assert not data_dir.exists()
    url = "postgresql://user:s3cret@db.example.com/watcher"
    assert command("check-config", WATCHER_DISPATCH="procrastinate", WATCHER_STORE__URL=url).exit_code == 0


def test_all_variables_are_listed_with_default_and_meaning(command):
    done = command("check-config", "--all", WATCHER_MISSPELT="1")
    assert done.exit_code == 0
    for variable in iter_variables(Settings):
        assert variable.name in done.stdout
    assert "(or in a file named by LIGHTLY_TOKEN_FILE)" in done.stdout


def check_scores(command, file):
    return command(
        "check-config",
        WATCHER_WATCHES__GATE__SAMPLING__METHOD="CORAL",
        WATCHER_WATCHES__GATE__SAMPLING__SCORES__FILE=str(file),
    )


def test_file_of_scores_that_is_not_there_or_no_such_file_is_told(command, data_dir, tmp_path):
    file = tmp_path / "scores.csv"
    done = check_scores(command, file)
    assert done.exit_code == 2
    assert f"watch 'gate': sampling.scores.file: the file {file} cannot be read" in done.stderr
    assert "`watcher run` starts without it, but each sampling waits for it" in done.stderr
    for content in ("name,value\n", "file_name,score\na.jpg,7\n"):
        file.write_text(content)
        assert check_scores(command, file).exit_code == 2, content
    for content in ("file_name,score\n", "file_name,score\na.jpg,0.7\n"):
        file.write_text(content)
        assert check_scores(command, file).exit_code == 0, content
    assert not data_dir.exists()


def test_model_that_run_would_refuse_is_refused_with_all_others(command, data_dir, tmp_path):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"the package {package} is not installed")
    from tests.unit.embedders.models import make_model

    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"no model at all")
    models = {
        "good": make_model(tmp_path / "good.onnx"),
        "junk": junk,
        "grey": make_model(tmp_path / "grey.onnx", shape=("n", 1, 32, 32)),
        "open": make_model(tmp_path / "open.onnx", shape=("n", 3, "h", "w")),
    }
    environ = {}
    for name, path in models.items():
        environ[f"WATCHER_WATCHES__{name.upper()}__EMBED__KIND"] = "onnx"
        environ[f"WATCHER_WATCHES__{name.upper()}__EMBED__MODEL"] = str(path)
    done = command("check-config", **environ)
    assert done.exit_code == 2
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
        "watch 'grey'",
        "watch 'junk'",
        "watch 'open'",
    ]
    assert "has shape ('n', 1, 32, 32): pictures need" in done.stderr
    assert "is no model that ONNX Runtime can load" in done.stderr
    assert "set WATCHER_WATCHES__OPEN__EMBED__HEIGHT_PX" in done.stderr
    good = {name: value for name, value in environ.items() if "GOOD" in name}
    assert command("check-config", **good).exit_code == 0
    assert not data_dir.exists()
