"""What is written for containers: each file is what its own checker takes, naming commands and settings that exist."""

import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from stream.settings import Settings
from tests.deploy.debian import program

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.suffix in {".yaml", ".service"} or path.name == "Dockerfile")


def test_the_compose_file_is_one():
    done = subprocess.run(
        [program("docker-compose"), "-f", str(DEPLOY / "compose.yaml"), "config"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert {"kafka", "worker", "linker", "watch", "prometheus", "grafana"} <= yaml.safe_load(done.stdout)[
        "services"
    ].keys()


def test_the_kubernetes_manifests_are_valid():
    manifests = list(yaml.safe_load_all((DEPLOY / "kubernetes/workers.yaml").read_text()))
    assert [manifest["kind"] for manifest in manifests] == ["ConfigMap", "Deployment", "Deployment"]
    for manifest in manifests:
        kubernetes_validate.validate(manifest, "1.31", strict=True)
    manifests[1]["spec"]["replicas"] = "two"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifests[1], "1.31", strict=True)


def test_keda_scales_what_there_is():
    scaled = yaml.safe_load((DEPLOY / "kubernetes/scaledobject.yaml").read_text())
    workers = list(yaml.safe_load_all((DEPLOY / "kubernetes/workers.yaml").read_text()))[1]
    assert scaled["spec"]["scaleTargetRef"]["name"] == workers["metadata"]["name"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["consumerGroup"] == Settings().group_id
    assert scaled["spec"]["maxReplicaCount"] == Settings().partitions


def test_every_setting_that_is_given_exists():
    given = {name for path in FILES for name in re.findall(r"NEEDLESTREAM_([A-Z_]+)", path.read_text())}
    assert "BOOTSTRAP_SERVERS" in given
    assert {name.lower() for name in given} <= Settings.model_fields.keys()
