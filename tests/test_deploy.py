"""The team's server in deploy/: this project's MLflow version, no secret with a default, accepted by docker compose."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "deploy" / "compose.yaml"
SECRETS = {"POSTGRES_PASSWORD": "a", "S3_USER": "b", "S3_PASSWORD": "c"}


def test_the_server_has_the_projects_version_of_mlflow() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    pinned = re.search(r"^mlflow==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert services["mlflow"]["build"]["args"]["MLFLOW_VERSION"] == pinned[1]


def test_no_secret_has_a_default_and_nothing_listens_beyond_this_machine_unasked() -> None:
    text = COMPOSE.read_text()
    assert not re.search(r"\$\{(\w*PASSWORD|S3_USER):?-", text)
    published = [port for service in yaml.safe_load(text)["services"].values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in published)


@pytest.mark.parametrize("missing", [None, *SECRETS])
def test_docker_compose_accepts_it_and_asks_for_what_is_missing(missing: str | None) -> None:
    command = next((c for c in (["docker", "compose"], ["docker-compose"]) if runs([*c, "version"])), None)
    if command is None:
        pytest.skip("docker compose is not installed here")
    given = {name: value for name, value in SECRETS.items() if name != missing}
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS} | given
    answer = subprocess.run(
        [*command, "-f", str(COMPOSE), "config"], env=environment, capture_output=True, text=True, check=False
    )
    assert (answer.returncode == 0) == (missing is None), answer.stderr
    assert missing is None or missing in answer.stderr


def runs(command: list[str]) -> bool:
    return bool(shutil.which(command[0])) and subprocess.run(command, capture_output=True, check=False).returncode == 0
