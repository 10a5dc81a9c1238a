"""The pages that follow from the code are as the code is now."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import certifi
import pytest

from watcher.metrics import Metrics
from watcher.ops.states import FAMILIES
from watcher.settings.root import Settings, load_settings
from watcher.settings.variables import iter_variables

ROOT = Path(__file__).parents[2]
AUTHORITY = Path(certifi.where())


def load_generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


generator = load_generator()


@pytest.mark.parametrize("page", sorted(generator.PAGES))
def test_page_is_as_the_code_is(page):
    committed = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert committed == generator.PAGES[page](), "run `make docs-generated`"


def test_metrics_are_named_by_the_rules():
    names = {family.name for family in FAMILIES} | {
        name
        for name in re.findall(r"^\| `(\w+)`", generator.render_metrics(), re.MULTILINE)
        if name.startswith("watcher_")
    }
    assert len(names) > 25
    for name in names:
        assert re.fullmatch(r"watcher_[a-z]+(_[a-z]+)*", name), name
        assert not re.search(r"_(ms|minutes|kb|mb|percent)(_|$)", name), name


def test_every_metric_tells_what_it_is():
    for collector in Metrics().registry._collector_to_names:
        assert collector._documentation.endswith("."), collector._name
    assert all(family.text.endswith(".") for family in FAMILIES)


def test_events_are_found_in_every_way_they_are_logged(tmp_path):
    (tmp_path / "part.py").write_text(
        "from watcher.logs import describe_error, get_logger\n"
        '_log = get_logger("part")\n'
        "def work(ok, error):\n"
        '    _log.info("thing.begun", watch=1)\n'
        '    (_log.info if ok else _log.warning)("thing.ended", n=2)\n'
        "    log = _log.debug if ok else _log.info\n"
        '    log("thing.told", x=1)\n'
        "    bound = _log.bind(batch=1)\n"
        '    bound_log = _log.bind(batch=1)\n    bound_log.error("thing.failed", **describe_error(error))\n'
        '    print("no.event")\n'
        '    math.log("no.event_either")\n'
    )
    found = {
        name: (sorted(event.levels), event.components, sorted(event.fields))
        for name, event in generator.find_events(tmp_path).items()
    }
    assert found == {
        "thing.begun": (["info"], {"part"}, ["watch"]),
        "thing.ended": (["info", "warning"], {"part"}, ["n"]),
        "thing.told": (["debug", "info"], {"part"}, ["x"]),
        "thing.failed": (["error"], {"part"}, ["batch", "error", "kind", "request_id"]),
    }


def test_every_event_is_noun_and_past_verb():
    events = generator.find_events()
    assert len(events) > 15
    for name in events:
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", name), name


WATCH = "WATCHER_WATCHES__GATE__"
ALL_STEPS = {f"{WATCH}STEPS": "upload,metadata,embed,sampling,deliver", f"{WATCH}METADATA__SOURCE": "sidecar"}
SCORES = {f"{WATCH}SAMPLING__METHOD": "CORAL"}
HOOK = {
    f"{WATCH}DELIVER__WEBHOOK__GATE__URL": "https://hooks.example.org",
    f"{WATCH}DELIVER__WEBHOOK__GATE__SECRET": "s3cret-s3cret-s3cret",
}
STUDIO = {
    f"{WATCH}DELIVER__LABEL_STUDIO__GATE__URL": "https://labels.example.org",
    f"{WATCH}DELIVER__LABEL_STUDIO__GATE__TOKEN": "t0ken",
    f"{WATCH}DELIVER__LABEL_STUDIO__GATE__PROJECT": "Gate",
}
ONNX = {f"{WATCH}EMBED__KIND": "onnx", f"{WATCH}EMBED__MODEL": "models/encoder.onnx"}
SERVICE = {
    f"{WATCH}EMBED__KIND": "http",
    f"{WATCH}EMBED__URL": "https://embedder.example.org",
    f"{WATCH}EMBED__VERSION": "2",
    f"{WATCH}EMBED__DIM": "512",
}
# What makes sense only beside another: the least that must be there too, by how the variable begins.
NEEDS = {
    "LIGHTLY_SERVER_LOCATION": {"LIGHTLY_TOKEN": "a-token", f"{WATCH}DATASET": "gate"},
    "LIGHTLY_TOKEN": {"LIGHTLY_SERVER_LOCATION": "https://api.example.org", f"{WATCH}DATASET": "gate"},
    "WATCHER_HTTP__TLS_CERT_FILE": {"WATCHER_HTTP__TLS_KEY_FILE": "/run/secrets/tls.key"},
    "WATCHER_HTTP__TLS_KEY_FILE": {"WATCHER_HTTP__TLS_CERT_FILE": "/run/secrets/tls.crt"},
    "WATCHER_CONTROL__HOST": {"WATCHER_CONTROL__PORT": "8090"},
    f"{WATCH}POLL__OVERLAP_MAX_S": {f"{WATCH}POLL__OVERLAP_S": "60"},
    f"{WATCH}METADATA__": ALL_STEPS,
    f"{WATCH}METADATA__VALUES": {
        f"{WATCH}METADATA__SOURCE": "static",
        f"{WATCH}METADATA__PATTERN": r"(?P<camera>[^/]+)/.*",
    },
    f"{WATCH}METADATA__PATTERN": {
        f"{WATCH}METADATA__SOURCE": "static",
        f"{WATCH}METADATA__VALUES": '{"camera": "{camera}"}',
    },
    f"{WATCH}METADATA__COMMAND": {f"{WATCH}METADATA__SOURCE": "command"},
    f"{WATCH}METADATA__TIME_LIMIT_S": {
        f"{WATCH}METADATA__SOURCE": "command",
        f"{WATCH}METADATA__COMMAND": "python describe.py",
    },
    f"{WATCH}SAMPLING__SCORES__FILE": SCORES,
    f"{WATCH}SAMPLING__SCORES__COMMAND": SCORES,
    f"{WATCH}SAMPLING__SCORES__METADATA_KEY": {
        **ALL_STEPS,
        **SCORES,
        f"{WATCH}SAMPLING__SCORES__DEFAULT": "0.5",
    },
    f"{WATCH}DELIVER__WEBHOOK__": HOOK,
    f"{WATCH}DELIVER__LABEL_STUDIO__": STUDIO,
    f"{WATCH}DELIVER__LABEL_STUDIO__GATE__IMAGE_PREFIX": {
        f"{WATCH}DELIVER__LABEL_STUDIO__GATE__IMAGE": "uri"
    },
    **{
        f"{WATCH}EMBED__{name}": ONNX
        for name in (
            "MODEL",
            "INPUT_NAME",
            "OUTPUT_NAME",
            "THREADS",
            "WIDTH_PX",
            "HEIGHT_PX",
            "RESIZE",
            "CHANNELS",
            "SCALE",
            "MEAN",
            "STD",
        )
    },
    **{
        f"{WATCH}EMBED__{name}": SERVICE for name in ("URL", "TOKEN", "CA_CERTS", "VERSION", "DIM", "SEND_PX")
    },
    f"{WATCH}EMBED__COMMAND": {
        f"{WATCH}EMBED__KIND": "command",
        f"{WATCH}EMBED__VERSION": "2",
        f"{WATCH}EMBED__DIM": "512",
    },
}
SECRETS = {
    "WATCHER_STORE__URL": "postgresql://user:s3cret@db.example.org/watcher",
    "WATCHER_PLATFORM__DATABASE_URL": "postgresql://user:s3cret@db.example.org/platform",
    "WATCHER_PLATFORM__KEY": "0123456789abcdef" * 4,
    "WATCHER_STATEMENT__KEY": "0123456789abcdef" * 4,
    f"{WATCH}DELIVER__WEBHOOK__GATE__URL": "https://hooks.example.org/T0KEN",
}


@pytest.fixture
def readers_machine(tmp_path, monkeypatch):
    """A folder with the files and programs that the examples name, and a way to put one there."""

    def put(name: str, content: str, *, mode: int = 0o600) -> Path:
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
        return path

    put("bin/python", "#!/bin/sh\n", mode=0o700)
    put("models/encoder.onnx", "a model")
    put("schemas/metadata.json", '{"type": "object"}')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    return put


@pytest.mark.parametrize("variable", list(iter_variables(Settings)), ids=lambda variable: variable.name)
def test_example_of_the_configuration_is_taken_in_the_smallest_setup(variable, readers_machine):
    example = generator.build_example(variable)
    assert example not in {"", "None"}
    name = variable.name.replace("<NAME>", "GATE")
    environ = {}
    for start, beside in NEEDS.items():
        if name.startswith(start):
            environ |= beside
    if variable.is_secret:
        environ.pop(name, None)
        name, content = f"{name}_FILE", SECRETS.get(name, "s3cret-t0ken-of-the-page")
        example = str(readers_machine(example, content))
    elif name.endswith("CA_CERTS"):
        example = str(readers_machine(example, AUTHORITY.read_text()))
    environ[name] = example
    load_settings(environ).build_watch_configs()


def test_type_of_a_command_is_told_apart_from_that_of_a_list():
    types = {variable.name: generator.describe_type(variable) for variable in iter_variables(Settings)}
    pre = "WATCHER_WATCHES__<NAME>__"
    commands = [name for name in types if name.endswith("__COMMAND")]
    assert len(commands) == 3
    assert {types[name] for name in commands} == {"command, quoted as for a shell"}
    assert types[f"{pre}SAMPLING__PRESELECTED_TAGS"] == "list, by commas"
