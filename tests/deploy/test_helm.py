"""The chart: rendered by Helm, accepted by the schemas of Kubernetes, and hostile values refused.

Write the golden files again with: python -m tests.deploy.test_helm
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from io import StringIO
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.config.loader import load_config
from pipeline.config.push import PushSourceConfig
from tools.monitoring.__main__ import CHART_DASHBOARDS, CHART_RULES, ROOT

CHART = ROOT / "deploy" / "helm" / "forewatch"
VALUES = sorted((CHART / "ci").glob("*.yaml"))
GOLDEN = Path(__file__).parent / "golden"
KUBERNETES = "1.33"
#: Custom resources, which the schemas of Kubernetes do not have.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
#: Address of the daemon's port.
PORT = 9464
#: Kinds of objects that hold pods of processes.
CONTROLLERS = ("Deployment", "StatefulSet")
SECRETS = "/run/secrets/forewatch/"


def find_helm() -> str | None:
    return shutil.which("helm", path=f"{os.environ['PATH']}{os.pathsep}{Path.home() / 'go/bin'}")


@pytest.fixture(scope="module")
def helm() -> str:
    found = find_helm()
    if found is None:
        pytest.skip("helm is not installed (go install helm.sh/helm/v3/cmd/helm@v3.22.0)")
    return found


def run(helm: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([helm, *arguments], capture_output=True, text=True, check=False, timeout=60)


def render(helm: str, values: Path, *arguments: str) -> list[dict]:
    command = ("template", "forewatch", str(CHART), "--kube-version", KUBERNETES, "--namespace", "plant")
    done = run(helm, *command, "--values", str(values), *arguments)
    assert done.returncode == 0, done.stderr
    return [one for one in YAML(typ="safe").load_all(done.stdout) if one]


def find(objects: list[dict], kind: str, name: str = "forewatch") -> dict:
    (found,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pods(objects: list[dict]) -> list[dict]:
    return [one["spec"]["template"]["spec"] for one in objects if one["kind"] in (*CONTROLLERS, "Job")]


def daemon(objects: list[dict]) -> dict:
    """Return the specification of the daemons."""
    (found,) = [
        one for one in objects if one["kind"] in CONTROLLERS and one["metadata"]["name"] == "forewatch"
    ]
    return found["spec"]


@pytest.fixture(scope="module", params=VALUES, ids=lambda path: path.stem)
def rendered(request: pytest.FixtureRequest, helm: str) -> list[dict]:
    return render(helm, request.param)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_helm_lints_the_chart(helm: str, values: Path):
    done = run(helm, "lint", "--strict", "--kube-version", KUBERNETES, "--values", str(values), str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def golden(helm: str, values: Path) -> str:
    """Return the objects as text, without what a generator writes and without the version of the chart."""
    objects, chart = render(helm, values), YAML(typ="safe").load(CHART / "Chart.yaml")
    for one in objects:
        if one["kind"] == "PrometheusRule":
            one["spec"] = "generated"
        if one["metadata"]["name"] == "forewatch-dashboards":
            one["data"] = dict.fromkeys(one["data"], "generated")
    text, yaml = StringIO(), YAML()
    yaml.width = 110
    yaml.dump_all(objects, text)
    rendered = re.sub(r"(?<=checksum/config: )\w+", "CHECKSUM", text.getvalue())  # it depends on the version
    return re.sub(rf"'?(?<![\d.]){re.escape(chart['version'])}(?![\d.])'?", "VERSION", rendered)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_objects_are_those_of_the_golden_file(helm: str, values: Path):
    assert golden(helm, values) == (GOLDEN / f"helm-{values.name}").read_text()


def test_kubernetes_accepts_every_object(rendered: list[dict]):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    assert len(rendered) >= 3
    for one in rendered:
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_names_are_unique(rendered: list[dict]):
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered]
    assert len(set(names)) == len(names)


def test_the_config_is_accepted_by_forewatch(rendered: list[dict], tmp_path: Path):
    file = tmp_path / "forewatch.yaml"
    file.write_text(find(rendered, "ConfigMap")["data"]["forewatch.yaml"])
    config = load_config(file)
    assert config.http is not None
    assert (config.http.host, config.http.port) == ("0.0.0.0", PORT)


def test_pods_have_no_rights(rendered: list[dict]):
    for pod in pods(rendered):
        assert pod["automountServiceAccountToken"] is False
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert not container.get("env"), "secrets are files, so that no process list shows them"


def test_mounted_volumes_exist(rendered: list[dict]):
    claimed = {one["metadata"]["name"] for one in daemon(rendered).get("volumeClaimTemplates", ())}
    for pod in pods(rendered):
        volumes = {volume["name"] for volume in pod["volumes"]} | claimed
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_selectors_match_their_pods(rendered: list[dict]):
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in rendered
        if one["kind"] in CONTROLLERS
    }
    for one in rendered:
        if one["kind"] in (*CONTROLLERS, "PodDisruptionBudget"):
            wanted = one["spec"]["selector"]["matchLabels"]
            matching = [name for name, found in labels.items() if wanted.items() <= found.items()]
            assert matching == [one["metadata"]["name"]]


def test_probes_of_the_daemon(rendered: list[dict]):
    (container,) = daemon(rendered)["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["ports"][0] == {"name": "http", "containerPort": PORT}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120


def test_a_stop_leaves_time_for_the_last_commit(rendered: list[dict]):
    pod = daemon(rendered)["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_the_migration_runs_before_everything_else(helm: str):
    objects = render(helm, CHART / "ci" / "minimal.yaml")
    job = find(objects, "Job", "forewatch-migration")
    config = find(objects, "ConfigMap", "forewatch-migration")
    for one in (job, config):
        assert one["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    weights = [int(one["metadata"]["annotations"]["helm.sh/hook-weight"]) for one in (config, job)]
    assert weights == sorted(set(weights))
    assert config["data"] == find(objects, "ConfigMap")["data"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["db", "upgrade", "-c", "/etc/forewatch/forewatch.yaml"]
    # Objects of the release do not exist before it.
    claims = [one for one in job["spec"]["template"]["spec"]["volumes"] if "persistentVolumeClaim" in one]
    assert claims == []


def test_secrets_are_mounted_where_the_config_names_them(helm: str):
    objects = render(helm, CHART / "ci" / "production.yaml")
    text = find(objects, "ConfigMap")["data"]["forewatch.yaml"]
    pod = find(objects, "Deployment")["spec"]["template"]["spec"]
    (volume,) = [one for one in pod["volumes"] if one["name"] == "secrets"]
    items = [item for source in volume["projected"]["sources"] for item in source["secret"]["items"]]
    named = {word.rstrip("}\"'") for word in text.replace("=", " ").split() if word.startswith(SECRETS)}
    assert named == {SECRETS + item["path"] for item in items}
    assert {"name": "secrets", "mountPath": SECRETS.rstrip("/"), "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]


def test_workers_of_a_pod_are_in_its_config(helm: str, tmp_path: Path):
    for values, workers in (("production", 2), ("minimal", 1)):
        file = tmp_path / "forewatch.yaml"
        objects = render(helm, CHART / "ci" / f"{values}.yaml")
        file.write_text(find(objects, "ConfigMap")["data"]["forewatch.yaml"])
        assert load_config(file).workers == workers


def test_the_config_names_the_scheduler_of_the_workers(helm: str, tmp_path: Path):
    for values in ("gpu", "production"):
        file = tmp_path / "forewatch.yaml"
        objects = render(helm, CHART / "ci" / f"{values}.yaml")
        file.write_text(find(objects, "ConfigMap")["data"]["forewatch.yaml"])
        cluster = load_config(file).cluster
        assert cluster is not None
        assert cluster.scheduler == "tcp://forewatch-scheduler:8786"
        assert find(objects, "Service", "forewatch-scheduler")["spec"]["ports"][0]["port"] == 8786


def test_workers_have_secrets_only_for_backfills(helm: str):
    for values, mounted in (("gpu", False), ("production", True)):
        objects = render(helm, CHART / "ci" / f"{values}.yaml")
        pod = find(objects, "Deployment", "forewatch-worker")["spec"]["template"]["spec"]
        assert any(mount["name"] == "secrets" for mount in pod["containers"][0]["volumeMounts"]) is mounted
        assert any(volume["name"] == "secrets" for volume in pod["volumes"]) is mounted


def test_a_digest_takes_precedence(helm: str):
    (container,) = find(render(helm, CHART / "ci" / "production.yaml"), "Deployment")["spec"]["template"][
        "spec"
    ]["containers"]
    assert container["image"].startswith("registry.example.org/forewatch@sha256:")


def test_gpus_are_requested(helm: str):
    (container,) = find(render(helm, CHART / "ci" / "gpu.yaml"), "Deployment", "forewatch-worker")["spec"][
        "template"
    ]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["args"][-1] == "--gpu"
    assert container["args"][2] == "tcp://forewatch-scheduler:8786"


def test_a_volume_of_one_node_is_not_mounted_twice(helm: str):
    spec = find(render(helm, CHART / "ci" / "single.yaml"), "Deployment")["spec"]
    assert spec["strategy"] == {"type": "Recreate"}


def test_the_rules_and_dashboards_are_those_of_the_generator(helm: str):
    objects = render(helm, CHART / "ci" / "production.yaml")
    rules = YAML(typ="safe").load((ROOT / CHART_RULES).read_text(encoding="utf-8"))
    assert find(objects, "PrometheusRule")["spec"] == rules
    monitor = find(objects, "ServiceMonitor")
    assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/name"
    service = find(objects, "Service")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    files = {file.name: json.loads(file.read_text()) for file in (ROOT / CHART_DASHBOARDS).glob("*.json")}
    shown = find(objects, "ConfigMap", "forewatch-dashboards")["data"]
    assert {name: json.loads(text) for name, text in shown.items()} == files


def test_only_metrics_and_the_scheduler_are_reachable(helm: str):
    objects = render(helm, CHART / "ci" / "production.yaml")
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    assert find(policies, "NetworkPolicy")["spec"]["ingress"] == []
    metrics = find(policies, "NetworkPolicy", "forewatch-metrics")["spec"]["ingress"]
    assert [port["port"] for rule in metrics for port in rule["ports"]] == ["http"]
    egress = find(policies, "NetworkPolicy")["spec"]["egress"]
    assert len(egress) == 5
    # Also from the scheduler to the workers: it asks them all for their versions.
    (expression,) = egress[1]["to"][0]["podSelector"]["matchExpressions"]
    assert sorted(expression["values"]) == ["scheduler", "worker"]


def test_pushed_data_have_a_spool_a_pod(helm: str, tmp_path: Path):
    objects = render(helm, CHART / "ci" / "push.yaml")
    spec = daemon(objects)
    file = tmp_path / "forewatch.yaml"
    file.write_text(find(objects, "ConfigMap")["data"]["forewatch.yaml"])
    config = load_config(file)
    (container,) = spec["template"]["spec"]["containers"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "spool"]
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"
    for name, stream in config.streams.items():
        push = stream.source.chosen
        assert isinstance(push, PushSourceConfig)
        assert (push.host, str(push.spool)) == ("0.0.0.0", f"{mount['mountPath']}/{name}")
        assert {"name": "push", "containerPort": push.port} in container["ports"]
    services = [one for one in objects if one["kind"] == "Service" and "-push-" in one["metadata"]["name"]]
    assert [one["spec"]["selector"]["statefulset.kubernetes.io/pod-name"] for one in services] == [
        "forewatch-0",
        "forewatch-1",
    ]
    (rule,) = find(objects, "NetworkPolicy", "forewatch-push")["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "push"}]
    assert rule["from"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "monitoring"
    }


def test_nothing_is_received_without_pushed_streams(helm: str):
    objects = render(helm, CHART / "ci" / "minimal.yaml")
    names = [one["metadata"]["name"] for one in objects]
    assert [name for name in names if "push" in name] == []
    assert find(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"] == [
        {"name": "http", "containerPort": PORT}
    ]


def test_keda_owns_the_number_of_members(helm: str):
    objects = render(helm, CHART / "ci" / "autoscaled.yaml")
    assert "replicas" not in find(objects, "Deployment")["spec"]
    trigger = find(objects, "ScaledObject")["spec"]["triggers"][0]["metadata"]
    assert trigger["query"] == 'sum(forewatch_lag_records{namespace="plant"})'


PUSHED = {
    "push": {"enabled": True},
    "config": {"streams": {"a": {"source": {"push": {"key": {"env": "K"}}}}}},
}
HOSTILE = [
    ({"unknown": 1}, "unknown"),
    ({"replicas": -1}, "replicas"),
    ({"replicas": "2"}, "replicas"),
    ({"image": {"tag": "1\n        command: [sh]"}}, "tag"),
    ({"image": {"repository": "x y"}}, "repository"),
    ({"image": {"digest": "sha256:12"}}, "digest"),
    ({"resources": {"limits": {"memory": "lots"}}}, "memory"),
    ({"terminationGracePeriodSeconds": 1}, "terminationGracePeriodSeconds"),
    ({"podLabels": {"a": "b\nc: d"}}, "podLabels"),
    ({"nodeSelector": {"a: b": "c"}}, "a: b"),
    ({"priorityClassName": "a\nhostNetwork: true"}, "priorityClassName"),
    ({"secretFiles": [{"file": "../../etc/passwd", "secret": "a", "key": "b"}]}, "file"),
    ({"secretFiles": [{"file": "a", "secret": "B_", "key": "b"}]}, "secret"),
    ({"monitoring": {"interval": '15s", "x": "'}}, "interval"),
    ({"keda": {"prometheus": 'http://a"\n'}}, "prometheus"),
    ({"config": {"http": {"port": 1}}}, "http"),
    ({"config": {"workers": 4}}, "workers"),
    ({"config": {"database": "sqlite:///forewatch.db"}}, "database"),
    ({"config": {"database": "postgresql+psycopg://forewatch:secret@postgres/forewatch"}}, "database"),
    ({"config": {"streams": None}}, "streams"),
    ({"data": {"accessMode": "ReadWriteOnce"}}, "ReadWriteMany"),
    ({"data": {"accessMode": "ReadWriteOnce"}, "replicas": 1, "keda": {"enabled": True}}, "ReadWriteMany"),
    ({"push": {"enabled": True}}, "no stream has source.push"),
    ({"push": {"port": 80}}, "port"),
    ({"config": {"streams": {"a": {"source": {"push": {"key": {"env": "K"}}}}}}}, "push.enabled"),
    ({"push": {"enabled": True}, "config": {"streams": {"a": {"source": {"push": {}}}}}}, "key"),
    (
        {"push": {"enabled": True}, "config": {"streams": {"a": {"source": {"push": {"port": 1}}}}}},
        "push.port",
    ),
    (PUSHED | {"workers": 2}, "workers"),
    (PUSHED | {"keda": {"enabled": True}}, "spool"),
    ({"data": {"enabled": False}, "worker": {"replicas": 1}}, "recorded history"),
]


@pytest.mark.parametrize(("values", "named"), HOSTILE, ids=[json.dumps(one[0])[:60] for one in HOSTILE])
def test_hostile_values_are_refused(helm: str, tmp_path: Path, values: dict, named: str):
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    arguments = ("--values", str(CHART / "ci" / "minimal.yaml"), "--values", str(file))
    done = run(helm, "template", "x", str(CHART), "--kube-version", KUBERNETES, *arguments)
    assert done.returncode != 0
    assert named in done.stderr
    assert "secret@" not in done.stderr


def test_the_config_is_required(helm: str):
    done = run(helm, "template", "x", str(CHART), "--kube-version", KUBERNETES)
    assert done.returncode != 0
    assert "config" in done.stderr


@pytest.mark.parametrize("release", ["forewatch", "plant", "a" * 53])
def test_names_stay_short(helm: str, release: str):
    values = ("--values", str(CHART / "ci" / "production.yaml"))
    done = run(helm, "template", release, str(CHART), "--kube-version", KUBERNETES, *values)
    assert done.returncode == 0, done.stderr
    for one in YAML(typ="safe").load_all(done.stdout):
        assert len(one["metadata"]["name"]) <= 63


def main() -> None:
    """Write the golden files."""
    found = find_helm()
    assert found is not None, "helm is not installed"
    for values in VALUES:
        (GOLDEN / f"helm-{values.name}").write_text(golden(found, values))


if __name__ == "__main__":
    main()
