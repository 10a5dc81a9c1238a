"""The Dockerfile, the compose file and what they mount, checked without a container engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from watcher.healthcheck import find_first_process, find_target
from watcher.settings.root import load_settings

ROOT = Path(__file__).parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROMETHEUS = ROOT / "deploy" / "prometheus" / "prometheus.yml"


def instructions(name: str) -> list[str]:
    joined = re.sub(r"\\\n", "", DOCKERFILE)
    return [line.removeprefix(f"{name} ") for line in joined.splitlines() if line.startswith(f"{name} ")]


def image_variables() -> dict[str, str]:
    return dict(re.findall(r"(WATCHER_\w+)=(\S+)", " ".join(instructions("ENV"))))


@pytest.fixture
def secrets(tmp_path):
    tmp_path.chmod(0o755)
    subprocess.run([ROOT / "deploy" / "make-secrets.sh", tmp_path], check=True, capture_output=True)
    return tmp_path


def test_dockerfile_passes_hadolint():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile_starts_the_daemon_as_somebody_else_and_without_a_shell():
    assert instructions("USER") == ["10001:10001"]
    assert instructions("ENTRYPOINT") == ['["watcher"]']
    assert instructions("CMD") == ['["run"]']
    assert instructions("VOLUME") == ["/data"]
    assert re.search(r"HEALTHCHECK .*CMD \[\"watcher\", \"health\"\]", re.sub(r"\\\n", "", DOCKERFILE))


def test_dockerfile_installs_only_by_hash_and_its_bases_can_be_replaced():
    assert instructions("FROM") == ["${BASE_IMAGE} AS builder", "scratch"]
    installs = re.findall(r"pip install .*?(?=&&|$)", " ".join(instructions("RUN")))
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-index dist/*.whl" in install


def test_build_context_holds_nothing_but_what_is_copied():
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for copy in instructions("COPY")
        if not copy.startswith("--from")
        for source in copy.split()[:-1]
    }
    assert {"requirements/*.lock" if source.endswith(".lock") else source for source in copied} == let_in


DAEMONS = [name for name, service in SERVICES.items() if service["image"].startswith("datasource-watcher:")]
# Daemons with the platform inside.
EMBEDDED = {"watcher", "watcher-postgres"}
PROFILES = ("default", "postgres", "workers", "monitoring")
# Do their work and end.
ONCE = {"migration", "dataset"}


def services_of(*profiles: str) -> dict[str, dict]:
    """What `docker compose --profile ...` starts."""
    return {name: service for name, service in SERVICES.items() if set(service["profiles"]) & set(profiles)}


def test_compose_starts_one_daemon_without_secrets_unless_told_otherwise():
    assert (ROOT / ".env").read_text().splitlines()[1:] == ["COMPOSE_PROFILES=default"]
    assert set(services_of("default")) == {"watcher"}
    assert "secrets" not in SERVICES["watcher"]


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_starts_all_that_its_services_wait_for_and_no_port_twice(profile):
    started = services_of(profile, "monitoring")
    assert services_of(profile)
    for service in started.values():
        assert set(service.get("depends_on", {})) <= set(started)
    ports = [port for service in started.values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports))


def test_every_service_belongs_to_a_profile_that_is_described():
    head = (ROOT / "docker-compose.yml").read_text().partition("name:")[0]
    for service in SERVICES.values():
        assert set(service["profiles"]) <= set(PROFILES)
    assert all(f"#   {profile} " in head for profile in PROFILES)


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_read_only_watched_over_pinned_and_seen_from_loopback_alone(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]
    if name in ONCE:
        assert service["healthcheck"] == {"disable": True}
        assert service["restart"] == "on-failure"
    else:
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "unless-stopped"
    assert re.fullmatch(r"[a-z/-]+:v?\d[\w.-]*", service["image"])
    assert service["cap_drop"] == ([] if name == "postgres" else ["ALL"])
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    for volume in service.get("volumes", []):
        source = volume.partition(":")[0]
        assert source in COMPOSE["volumes"] or (ROOT / source).exists()


def test_service_that_stops_gets_longer_than_the_daemon_takes_to_drain():
    settings = load_settings(image_variables())
    for name in DAEMONS:
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > settings.drain_timeout_s


def test_compose_holds_no_password_and_reads_each_from_a_file():
    variables: dict[str, str] = {}
    for service in SERVICES.values():
        variables |= service.get("environment", {})
    for name, value in variables.items():
        if name.endswith("_FILE"):
            assert value.removeprefix("/run/secrets/") in COMPOSE["secrets"]
    assert not {"POSTGRES_PASSWORD", "WATCHER_STORE__URL"} & set(variables)
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("./deploy/secrets/")
    done = subprocess.run(
        ["git", "check-ignore", *(secret["file"] for secret in COMPOSE["secrets"].values())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(done.stdout.splitlines()) == len(COMPOSE["secrets"])


def waits_for(name: str, other: str) -> bool:
    """Whether a service waits, directly or not, until another is well."""
    needs = SERVICES[name].get("depends_on", {})
    return needs.get(other) == {"condition": "service_healthy"} or any(
        waits_for(need, other) for need in needs
    )


@pytest.mark.parametrize("name", DAEMONS)
def test_variables_of_image_and_compose_are_settings_that_fit_together(name, secrets):
    service = SERVICES[name]
    variables = image_variables() | service["environment"]
    for variable in [variable for variable in variables if variable.endswith("_FILE")]:
        secret = variables[variable].removeprefix("/run/secrets/")
        assert secret in service["secrets"]
        variables[variable] = str(secrets / secret)
    settings = load_settings(variables)
    settings.build_watch_configs()
    for needed in variables.get("LIGHTLY_SERVER_LOCATION", "").removeprefix("http://").split(":")[:1]:
        assert not needed or needed in SERVICES
    if "WATCHER_STORE__URL_FILE" in variables:
        postgres = SERVICES["postgres"]["environment"]
        password = (secrets / "postgres_password").read_text()
        expected = (
            f"postgresql://{postgres['POSTGRES_USER']}:{password}@postgres:5432/{postgres['POSTGRES_DB']}"
        )
        assert settings.store_url == expected
        assert waits_for(name, "postgres")
    assert settings.http.host == "0.0.0.0"
    assert service["volumes"] == [f"watcher-data:{settings.data_dir}"]
    serves = {settings.http.port, settings.platform.port} if name in EMBEDDED else {settings.http.port}
    serves = {settings.platform.port} if name == "platform" else serves
    assert set(service.get("ports", [])) in (set(), {f"127.0.0.1:{port}:{port}" for port in serves})
    if name in EMBEDDED:  # what manifests hold is read outside, from the port that is published
        assert settings.platform.host == "0.0.0.0"
        assert settings.platform.url_base == f"http://127.0.0.1:{settings.platform.port}"
    assert instructions("EXPOSE") == [str(settings.http.port)]
    ports = {"platform": settings.platform.port, "worker": settings.worker.port}
    port = ports.get(service.get("command", ["run"])[0], settings.http.port)
    if name not in ONCE:
        assert service["healthcheck"]["test"] == ["CMD", "watcher", "health", "ready"]
        asked = ask_health(service, variables)
        assert (asked.port, asked.tls) == (port, False)
        assert asked.path in {"/health/ready", "/v1/versions/pip/minimum"}


def ask_health(service, variables):
    """Where the service's health check asks, by the command that the container starts."""
    words = ["/opt/watcher/bin/watcher", *service.get("command", ["run"])]
    started = find_first_process("".join(f"{word}\0" for word in words).encode())
    return find_target(variables, process=started.process, question="ready", arguments=started.arguments)


def test_rule_files_of_prometheus_are_mounted_beside_its_configuration():
    wanted = yaml.safe_load(PROMETHEUS.read_text())["rule_files"]
    mounted = dict(volume.split(":")[:2] for volume in SERVICES["prometheus"]["volumes"])
    for name in wanted:
        assert mounted[f"./deploy/prometheus/{name}"] == f"/etc/prometheus/{name}"


def test_grafana_is_given_the_dashboards_where_it_looks_for_them():
    mounted = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    (provider,) = yaml.safe_load(
        (ROOT / "deploy" / "grafana" / "provisioning" / "dashboards" / "watcher.yml").read_text()
    )["providers"]
    assert mounted["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    (source,) = yaml.safe_load(
        (ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_secrets_are_long_random_and_behind_a_closed_folder(secrets, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    subprocess.run([ROOT / "deploy" / "make-secrets.sh", other], check=True, capture_output=True)
    passwords = {(folder / "postgres_password").read_text() for folder in (secrets, other)}
    assert len(passwords) == 2
    assert all(re.fullmatch(r"[0-9a-f]{48}", password) for password in passwords)
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_secrets_made_a_second_time_stay_as_they_are(secrets):
    before = (secrets / "store_url").read_text()
    done = subprocess.run(
        [ROOT / "deploy" / "make-secrets.sh", secrets], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "already holds secrets" in done.stderr
    assert (secrets / "store_url").read_text() == before


def test_secret_that_a_later_version_wants_is_added_and_the_others_stay(secrets):
    before = (secrets / "store_url").read_text()
    (secrets / "control_token").unlink()
    subprocess.run([ROOT / "deploy" / "make-secrets.sh", secrets], check=True, capture_output=True)
    assert re.fullmatch(r"[0-9a-f]{48}", (secrets / "control_token").read_text())
    assert (secrets / "store_url").read_text() == before


def test_prometheus_configuration_passes_promtool(promtool_bin):
    done = subprocess.run(
        [promtool_bin, "check", "config", PROMETHEUS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_the_service_at_its_port():
    jobs = {job["job_name"]: job for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]}
    port = load_settings(image_variables()).http.port
    assert jobs["watcher"]["static_configs"] == [{"targets": [f"watcher:{port}"]}]
    (workers,) = jobs["watcher"]["dns_sd_configs"]
    assert set(workers["names"]) <= set(services_of("workers"))
    assert (workers["type"], workers["port"]) == ("A", load_settings(image_variables()).worker.port)
    assert jobs["watcher"]["metrics_path"] == "/metrics"
