"""The Kubernetes manifests as kustomize builds them: valid, closed, and of settings that fit together."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from watcher.domain.delivery import ManifestRules
from watcher.healthcheck import find_target
from watcher.settings.root import Settings, load_settings

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("sqlite", "postgres-ha")
# The operator's kinds have their schemas in the cluster alone; their parts are checked below.
OF_THE_OPERATOR = {"ServiceMonitor", "PrometheusRule"}
SCHEMA_VERSIONS = ("1.30", "1.35")
WORKLOADS = {"Deployment", "StatefulSet"}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

Resource = dict[str, Any]


def build(overlay: str | Path) -> list[Resource]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        if os.environ.get("CI"):
            pytest.fail("kubectl is missing: continuous integration must install it")
        pytest.skip("kubectl is missing: apt-get install kubernetes-client")
    done = subprocess.run(
        [kubectl, "kustomize", FOLDER / overlay], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


@pytest.fixture(scope="module", params=OVERLAYS)
def resources(request) -> list[Resource]:
    return build(request.param)


def workloads(resources: list[Resource]) -> list[Resource]:
    found = [resource for resource in resources if resource["kind"] in WORKLOADS]
    assert found
    return found


def containers(resources: list[Resource]) -> list[Resource]:
    return [
        container
        for workload in workloads(resources)
        for kind in ("containers", "initContainers")
        for container in workload["spec"]["template"]["spec"].get(kind, [])
    ]


def variables_of(container: Resource, resources: list[Resource]) -> dict[str, str]:
    maps = {r["metadata"]["name"]: r["data"] for r in resources if r["kind"] == "ConfigMap"}
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    for variable in container.get("env", []):
        assert "value" in variable, f"{variable['name']}: secrets are files, not variables"
        found[variable["name"]] = variable["value"]
    return found


def load_container_settings(container: Resource, resources: list[Resource], folder: Path) -> Settings:
    """What a container understands of its variables, its secrets replaced."""
    variables = variables_of(container, resources)
    for name in [name for name in variables if name.endswith("_FILE")]:
        assert variables[name].startswith("/run/secrets/")
        secret = folder / name
        secret.write_text("postgresql://u:p@db/x" if "URL" in name else "ab" * 32)
        variables[name] = str(secret)
    return load_settings(variables)


@pytest.mark.parametrize("version", SCHEMA_VERSIONS)
def test_manifests_fit_the_schemas_of_kubernetes(resources, version):
    for resource in resources:
        if resource["kind"] not in OF_THE_OPERATOR:
            kubernetes_validate.validate(resource, version, strict=True)


def test_containers_have_no_rights_and_a_root_that_cannot_be_written(resources):
    for workload in workloads(resources):
        pod = workload["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(resources):
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_containers_have_limits_probes_and_the_version_of_the_project(resources):
    for container in containers(resources):
        assert container["image"] == f"datasource-watcher:{VERSION}"
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    for workload in workloads(resources):
        for container in workload["spec"]["template"]["spec"]["containers"]:
            paths = {
                name: container[f"{name}Probe"]["httpGet"]["path"]
                for name in ("liveness", "readiness", "startup")
            }
            if container["args"][0] == "platform":  # the one path of the protocol that wants no token
                assert set(paths.values()) == {"/v1/versions/pip/minimum"}
            else:
                assert paths == {
                    "liveness": "/health/live",
                    "readiness": "/health/ready",
                    "startup": "/health/live",
                }


def test_pods_get_longer_to_stop_than_the_daemon_takes_to_drain(resources):
    drain_s = load_settings({}).drain_timeout_s
    for workload in workloads(resources):
        assert workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain_s


def test_variables_are_settings_that_fit_together(resources, tmp_path):
    for container in containers(resources):
        settings = load_container_settings(container, resources, tmp_path)
        settings.build_watch_configs()
        ports = {"platform": settings.platform.port, "worker": settings.worker.port}
        for port in container.get("ports", []):
            assert port["containerPort"] == ports.get(container["args"][0], settings.http.port)
        server = settings.lightly_server_location
        if server is not None:
            assert server in {
                f"http://{r['metadata']['name']}:{r['spec']['ports'][0]['port']}"
                for r in resources
                if r["kind"] == "Service"
            }


def test_what_is_delivered_lies_where_it_outlives_the_pod(resources, tmp_path):
    n_manifests = 0
    for workload in workloads(resources):
        pod = workload["spec"]["template"]["spec"]
        kept = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        kept |= {volume["name"] for volume in pod.get("volumes", []) if "persistentVolumeClaim" in volume}
        for container in pod["containers"]:
            if container["args"][0] not in {"run", "worker"}:
                continue
            settings = load_container_settings(container, resources, tmp_path)
            stays = {Path(mount["mountPath"]) for mount in container["volumeMounts"] if mount["name"] in kept}
            for config in settings.build_watch_configs():
                for sink in config.deliver.sinks:
                    assert isinstance(sink.rules, ManifestRules)
                    n_manifests += 1
                    folder = Path("/data") / sink.rules.location
                    assert sink.rules.is_bucket or stays & set(folder.parents), f"{folder} goes with the pod"
    assert n_manifests


def test_autoscaling_follows_a_metric_of_the_daemon(resources):
    for rule in [resource for resource in resources if resource["kind"] == "HorizontalPodAutoscaler"]:
        (metric,) = rule["spec"]["metrics"]
        name = metric["external"]["metric"]["name"]
        assert any(f'"{name}"' in path.read_text() for path in (ROOT / "watcher" / "ops").glob("*.py"))
        target = rule["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in {
            (r["kind"], r["metadata"]["name"]) for r in resources if r["kind"] in WORKLOADS
        }


def test_services_find_their_pods_and_ports(resources):
    pods = [workload["spec"]["template"] for workload in workloads(resources)]
    services = [resource for resource in resources if resource["kind"] == "Service"]
    assert services
    for service in services:
        chosen = [
            pod for pod in pods if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ]
        assert chosen, service["metadata"]["name"]
        ports = {port["name"] for pod in chosen for c in pod["spec"]["containers"] for port in c["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_every_pod_is_watched_guarded_and_shielded(resources):
    labels = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads(resources)]
    for kind, selector_of in (
        ("PodDisruptionBudget", lambda spec: spec["selector"]["matchLabels"]),
        ("NetworkPolicy", lambda spec: spec["podSelector"]["matchLabels"]),
    ):
        selectors = [selector_of(r["spec"]) for r in resources if r["kind"] == kind]
        for pod in labels:
            assert any(selector.items() <= pod.items() for selector in selectors), (kind, pod)
    (monitor,) = [r for r in resources if r["kind"] == "ServiceMonitor"]
    named = {port["name"] for r in resources if r["kind"] == "Service" for port in r["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= named


def test_alert_rules_of_the_cluster_are_those_of_the_project(resources):
    (rule,) = [r for r in resources if r["kind"] == "PrometheusRule"]
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    assert rule["spec"] == alerts


def test_no_manifest_holds_a_secret(resources):
    assert [r for r in resources if r["kind"] == "Secret"] == []
    for path in FOLDER.rglob("*"):
        if path.is_file():
            assert not re.search(r"(?i)(password|token|secret[_-]?key)\s*[:=]\s*\S{12,}", path.read_text()), (
                path
            )


@pytest.fixture(scope="module", params=OVERLAYS)
def tls_resources(request, tmp_path_factory) -> list[Resource]:
    """An overlay of one's own with the component for HTTPS, as docs/container.md shows it."""
    folder = tmp_path_factory.mktemp("overlay").resolve()
    own = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "datasource-watcher",
        "resources": [os.path.relpath(FOLDER / request.param, folder)],
        "components": [os.path.relpath(FOLDER / "tls", folder)],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(own))
    return build(folder)


def test_component_for_https_turns_probes_scrapes_and_pages_to_it_together(tls_resources, tmp_path):
    for resource in tls_resources:
        if resource["kind"] not in OF_THE_OPERATOR:
            kubernetes_validate.validate(resource, SCHEMA_VERSIONS[-1], strict=True)
    (monitor,) = [r for r in tls_resources if r["kind"] == "ServiceMonitor"]
    assert [endpoint["scheme"] for endpoint in monitor["spec"]["endpoints"]] == ["https"]
    for workload in workloads(tls_resources):
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        schemes = {
            container[f"{name}Probe"]["httpGet"].get("scheme", "HTTP")
            for name in ("liveness", "readiness", "startup")
        }
        variables = variables_of(container, tls_resources)
        asked = find_target(variables, process=container["args"][0], question="live")
        assert schemes == {"HTTPS" if asked.tls else "HTTP"}
        assert asked.tls == (container["args"][0] != "platform")
        if asked.tls:
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "tls"]
            assert volumes["tls"]["secret"]["secretName"] == "watcher-tls"
            for name in ("CERT", "KEY"):
                assert variables[f"WATCHER_HTTP__TLS_{name}_FILE"].startswith(mount["mountPath"] + "/")


def test_scrapes_leave_out_the_platform_which_has_no_metrics(resources):
    (monitor,) = [r for r in resources if r["kind"] == "ServiceMonitor"]
    (rule,) = monitor["spec"]["selector"]["matchExpressions"]
    chosen = {
        r["metadata"]["name"]
        for r in resources
        if r["kind"] == "Service" and r["metadata"]["labels"][rule["key"]] in rule["values"]
    }
    assert chosen
    assert chosen <= {"watcher", "worker"}


def test_daemons_and_workers_are_one_job_for_the_alerts(resources):
    (monitor,) = [r for r in resources if r["kind"] == "ServiceMonitor"]
    for endpoint in monitor["spec"]["endpoints"]:
        assert {"targetLabel": "job", "replacement": "watcher"} in endpoint["relabelings"]
