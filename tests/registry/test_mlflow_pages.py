"""MLflow's pages in a real browser: runs, the parent run, two runs compared, a version of the model.

TAILORSET_PICTURES=1 also writes docs/pictures/mlflow_*.png.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tailorset.project.mlflow_pages import run_page, start_pages, version_page
from tailorset.project.tracking import connect
from tailorset.registry.comparison import Comparison, Execution, compare
from tests.tracked_project import track_executions

ROOT = Path(__file__).resolve().parents[2]
PICTURES, WANTED = ROOT / "docs" / "pictures", "TAILORSET_PICTURES"
# MLflow opens a chat of its own over a third of the page at the first visit
NO_CHAT = """localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");"""

pytestmark = [
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser: apt-get install chromium"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with two executions in MLflow; it is the current folder."""
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        track_executions(folder, patch)
        yield folder


@pytest.fixture(scope="module")
def comparison(root: Path) -> Comparison:
    return compare([], root)


@pytest.fixture(scope="module")
def latest(comparison: Comparison) -> Execution:
    return comparison.executions[-1]


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    """MLflow's server of the project, as `make ui` starts it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri"]
    database = f"sqlite:///{root}/mlflow.db"
    server = subprocess.Popen(
        [sys.executable, "-m", *command, database],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # six processes that nothing here needs
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_for(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, "mlflow ui ended"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
    pytest.fail(f"{url} does not answer")


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    page.add_init_script(NO_CHAT)
    yield page
    page.close()


def take(page: Any, name: str) -> None:
    if WANTED in os.environ:
        page.wait_for_timeout(1500)  # panels slide, plots fade in
        page.screenshot(path=PICTURES / name)
        with Image.open(PICTURES / name) as picture:
            small = picture.convert("RGB").quantize(128)
        small.save(PICTURES / name, optimize=True)


def test_make_ui_names_the_list_of_runs_and_the_latest_run(
    page: Any, address: str, root: Path, latest: Execution
) -> None:
    runs, last = start_pages(root).values()
    page.goto(address + runs)
    page.get_by_role("link", name=latest.name, exact=True).first.wait_for()
    assert page.get_by_text("register_model", exact=True).count() == 0  # stages are folded into their execution
    page.goto(address + last)
    page.get_by_text(latest.name, exact=True).first.wait_for()
    page.get_by_text("About this run").wait_for()


def test_the_page_of_a_run_tells_results_and_shows_the_sheets(
    page: Any, address: str, comparison: Comparison, latest: Execution
) -> None:
    page.goto(address + run_page(comparison.experiment_id, latest.run.info.run_id))
    page.get_by_role("cell", name="raw CLIP", exact=True).wait_for()
    page.get_by_text("_headline/zsl/map").first.wait_for()  # the first of the metrics
    page.get_by_text("Show more", exact=True).first.click()
    pictures = page.locator("img[src^='get-artifact']")
    pictures.first.wait_for()
    page.wait_for_function(
        "[...document.querySelectorAll(\"img[src^='get-artifact']\")].every(i => i.complete && i.naturalWidth == 560)"
    )
    assert pictures.count() >= 2
    facts = page.get_by_text("About this run").bounding_box()
    assert facts["x"] + facts["width"] < 1280  # the pictures leave room for it
    take(page, "mlflow_run.png")
    link = page.get_by_role("link", name="Generated images that were kept").get_attribute("href")
    assert "/artifacts/sheets/kept.png" in link


def test_the_page_of_a_comparison_plots_the_headline(page: Any, address: str, comparison: Comparison) -> None:
    page.goto(address + comparison.page())
    first, later = (page.get_by_text(key).first for key in ("_headline/zsl/map", "baseline/clip/zsl/map"))
    first.wait_for()
    later.wait_for()
    assert first.bounding_box()["y"] < later.bounding_box()["y"]  # it is in the plot, the other in the table below
    take(page, "mlflow_compare.png")


def test_the_page_of_a_version_has_its_card_and_leads_to_its_metrics(
    page: Any, address: str, latest: Execution, root: Path
) -> None:
    client, _ = connect(root)
    model = max(client.search_model_versions("name LIKE 'tailorset-%'"), key=lambda one: int(one.creation_timestamp))
    page.goto(address + version_page(model.name, model.version))
    page.get_by_role("heading", name="Measured").wait_for()
    take(page, "mlflow_version.png")
    page.get_by_role("link", name="model", exact=True).first.click()
    page.get_by_text("gzsl/map", exact=True).first.wait_for()
    page.goto(f"{address}#/models/{model.name}")
    page.get_by_text("@ challenger").first.wait_for()
    take(page, "mlflow_registry.png")
