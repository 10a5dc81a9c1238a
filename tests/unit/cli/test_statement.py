"""`watcher statement`: what it exports it can prove, and what was changed it names."""

from __future__ import annotations

import json

from tests.builders import add_watch, open_store, run_command
from tests.unit.domain.test_statements import KEY, build_chain
from watcher.store import statements


def _prepare(tmp_path) -> dict[str, str]:
    data = tmp_path / "data"
    data.mkdir()
    (data / "statement.key").write_text(KEY + "\n")
    with open_store(f"sqlite:///{data / 'watcher.sqlite'}") as database:
        watch = add_watch(database)
        with database.write() as session:
            for number, signed in enumerate(build_chain(3)):
                statements.record_statement(session, watch_id=watch.id, day=str(number), signed=signed)
    return {"WATCHER_DATA_DIR": str(data)}


def test_exported_statements_are_proven_and_a_change_is_named(tmp_path):
    environ = _prepare(tmp_path)
    target = tmp_path / "statements.jsonl"
    done = run_command("statement", "export", "gate", "--file", str(target), **environ)
    assert (done.exit_code, done.stdout) == (0, f"3 statements in {target}\n")
    assert run_command("statement", "export", "gate", **environ).stdout == target.read_text()
    proven = run_command("statement", "verify", str(target), **environ)
    assert proven.exit_code == 0
    assert proven.stdout.startswith("3 statements of gate up to 2026-11-03 are genuine and complete")
    lines = target.read_text().splitlines(keepends=True)
    target.write_text(lines[0] + lines[2])
    refused = run_command("statement", "verify", str(target), **environ)
    assert refused.exit_code == 1
    assert "statement 2 (gate, 2026-11-03) does not follow the one before it" in refused.stderr
    changed = json.loads(lines[1])
    changed["body"] = changed["body"].replace('"n_listed":1', '"n_listed":7')
    target.write_text(lines[0] + json.dumps(changed) + "\n")
    refused = run_command("statement", "verify", str(target), **environ)
    assert (refused.exit_code, "statement 2 is not the one that was signed" in refused.stderr) == (1, True)


def test_statements_of_nobody_without_a_key_or_of_no_file_are_told(tmp_path):
    environ = _prepare(tmp_path)
    assert run_command("statement", "export", "nobody", **environ).exit_code == 2
    assert run_command("statement", "verify", str(tmp_path / "absent"), **environ).exit_code == 2
    (tmp_path / "empty").write_text("")
    assert run_command("statement", "verify", str(tmp_path / "empty"), **environ).exit_code == 1
    (tmp_path / "data" / "statement.key").unlink()
    refused = run_command("statement", "verify", str(tmp_path / "empty"), **environ)
    assert refused.exit_code == 2
    assert "statement.key cannot be read" in refused.stderr


def test_statements_of_several_keys_are_proven_by_the_one_that_is_set_and_the_files_of_the_others(tmp_path):
    environ = _prepare(tmp_path)
    target = tmp_path / "statements.jsonl"
    run_command("statement", "export", "gate", "--file", str(target), **environ)
    key_path = tmp_path / "data" / "statement.key"
    set_key = {**environ, "WATCHER_STATEMENT__KEY": "x" * 32}
    refused = run_command("statement", "verify", str(target), **set_key)
    assert (refused.exit_code, "none of those given" in refused.stderr) == (1, True)
    proven = run_command("statement", "verify", str(target), "--key-file", str(key_path), **set_key)
    assert proven.exit_code == 0
    elsewhere = key_path.rename(tmp_path / "kept.key")
    assert (
        run_command("statement", "verify", str(target), "--key-file", str(elsewhere), **environ).exit_code
        == 0
    )
    absent = run_command("statement", "verify", str(target), "--key-file", str(key_path), **environ)
    assert (absent.exit_code, "cannot be read" in absent.stderr) == (2, True)
    several = tmp_path / "several.key"
    several.write_text(f"{'x' * 32}\n{KEY}\n")
    named = run_command("statement", "verify", str(target), "--key-file", str(several), **set_key)
    assert named.exit_code == 0
    for text in ("x" * 31, f"{'x' * 32}\n{'y' * 31}"):
        short = run_command("statement", "verify", str(target), **environ, WATCHER_STATEMENT__KEY=text)
        assert (short.exit_code, "WATCHER_STATEMENT__KEY" in short.stderr) == (2, True)
        assert text[-31:] not in short.stderr
