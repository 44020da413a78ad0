"""The model registry as commands and servers use it: versions by name, and their files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from tailorset.messages import first_line
from tailorset.project.tracking import registry
from tailorset.project.versions import REGISTER, earlier_champion

CHAMPION, CHALLENGER = "champion", "challenger"  # aliases: the version in use, and that of the project's last run
TRAINING = "training"  # tag of a version: where training did not help
ANSWER_TIMEOUT_S = 300
DECLARED_ENVIRONMENT = Path(__file__).with_name("declared_environment.py")
NO_SHARES = ("novelty", "decision/")  # columns of an answer with other values than those in [0, 1]
URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def find_version(uri: str) -> ModelVersion:
    """Return the version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` stands for at this moment.

    Raises:
        ValueError: the URI is of another form, there is no registry, or it has no such version.
    """
    match = URI.fullmatch(uri)
    if not match:
        raise ValueError(
            f"{uri!r} is not the name of a registered version: write models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    client = registry(Path.cwd())
    try:
        if match["alias"]:
            return client.get_model_version_by_alias(match["name"], match["alias"])
        return client.get_model_version(match["name"], match["version"])
    except MlflowException as error:
        hint = earlier_champion(client, match["name"])
        raise ValueError(
            f"{uri} is not in the registry ({error.error_code}): `tailorset status` shows what is,"
            f" `{REGISTER}` registers a challenger, `tailorset promote` a champion{f'; {hint}' if hint else ''}"
        ) from error


def download(version: ModelVersion, folder: Path, path: str = "artifacts") -> Path:
    """Copy a file or folder of a version; `artifacts` holds the classifier and all its files side by side.

    Raises:
        ValueError: it is missing from the place that the registry records.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        return Path(mlflow.artifacts.download_artifacts(f"{uri_of(version)}/{path}", dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise ValueError(
            f"{path} of {uri_of(version)} is not where the registry has it ({first_line(error)}): restore its files,"
            f" or name another version; `{REGISTER}` registers what is in models/"
        ) from error


def uri_of(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"


def request_problem(version: ModelVersion) -> str:
    """Let a version answer its own example by MLflow in a new process; return the problem, "" if there is none.

    The process can import the closure of the version's requirements.txt, and nothing else that is installed here.
    """
    with tempfile.TemporaryDirectory() as folder:
        request, requirements = (
            download(version, Path(folder), name) for name in ("serving_input_example.json", "requirements.txt")
        )
        answer = Path(folder, "answer.json")
        command = [sys.executable, "-P", str(DECLARED_ENVIRONMENT), str(requirements)]
        command += ["mlflow", "models", "predict", "--env-manager", "local", "-t", "json"]
        command += ["-m", uri_of(version), "-i", str(request), "-o", str(answer)]
        strict = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
        try:
            subprocess.run(
                command, env=os.environ | strict, capture_output=True, text=True, check=True, timeout=ANSWER_TIMEOUT_S
            )
        except subprocess.CalledProcessError as error:
            reason = (error.stderr.strip().splitlines() or ["no message"])[-1]
            return f"with what its requirements.txt declares it does not answer a request: {reason}"
        except subprocess.TimeoutExpired:
            return f"it does not answer a request within {ANSWER_TIMEOUT_S} s"
        rows = json.loads(answer.read_text(encoding="utf-8"))["predictions"]
    if rows and all(map(_is_fair, rows)):
        return ""
    return f"it answers a request with {rows}: probabilities and scores must be in [0, 1]"


def _is_fair(row: dict[str, object]) -> bool:
    """Tell whether probabilities, thresholds and scores are in [0, 1]; older versions answer with scores only."""
    values = [value for name, value in row.items() if not name.startswith(NO_SHARES)]
    return bool(values) and all(isinstance(value, float) and 0 <= value <= 1 for value in values)
