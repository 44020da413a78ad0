"""The table of `make dist`: the light core has no library of the pipeline or of a server."""

from __future__ import annotations

import install_size
import pytest

from tailorset.inference.declared_environment import closure


def test_each_extra_adds_packages_to_a_light_core(capsys: pytest.CaptureFixture[str]) -> None:
    install_size.main()
    rows = {line.split()[0]: list(map(float, line.split()[1:])) for line in capsys.readouterr().out.splitlines()[1:]}
    assert list(rows) == ["core", "serve", "train", "ray", "s3", "heic"]
    assert all(packages > 0 and size > 0 for packages, size, _ in rows.values())
    assert rows["core"][0] < rows["train"][0]
    heavy = {"dvc", "great-expectations", "mlflow", "diffusers", "fastapi", "bitsandbytes", "typer"}
    assert not closure(["tailorset"]) & heavy
    assert heavy <= closure(["tailorset[train]"])
