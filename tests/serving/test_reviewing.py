"""Annotating and reviewing: the keyboard path of both pages in a real browser, what is saved, and who is refused.

TAILORSET_PICTURES=1 also writes docs/pictures/annotate.png and review.png.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest

from tailorset.commands.annotating import PhotoDesk
from tailorset.commands.reviewing import ImageDesk
from tailorset.commands.shared_files import lock_of
from tailorset.images.codec import encode_png
from tailorset.records import LabelSpace
from tailorset.records.verdicts import HEADER, ImageVerdict, read_verdicts, verdict_lines
from tailorset.serving.reviewing import create_review_app
from tailorset.storage.photo_files import find_photos
from tailorset.storage.shards import sha256, write_shard
from tailorset.toybox.scenes import photo_scene, render
from tests.registered import running_app

CHROMIUM = shutil.which("chromium")
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
WANTED = "TAILORSET_PICTURES"
ROOT = Path(__file__).resolve().parents[2]
TOYS = (103, 5, 8, 13)  # scenes; the first shows an umbrella, a boat and a cup

GUESSED = ("umbrella", "cup")

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")


@pytest.fixture(scope="module")
def space() -> LabelSpace:
    return LabelSpace.load(ROOT / "data" / "labels" / "toybox.yaml")


def toys(number: int) -> bytes:
    scene = photo_scene(np.random.default_rng(number), LabelSpace.load(ROOT / "data/labels/toybox.yaml").names)
    return encode_png(render(scene, 256))


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: LabelSpace) -> Path:
    """Four photos, of which the third is damaged, and their table without an annotation."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number, scene in enumerate(TOYS):
        content = toys(scene)
        (tmp_path / "photos" / f"toys {number}.png").write_bytes(content[:300] if number == 2 else content)
    path = Path("photos.csv")
    rows = [["image", *space.names], *([f"toys {number}.png", *[""] * len(space.names)] for number in range(4))]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def photo_desk(table: Path, space: LabelSpace) -> PhotoDesk:
    folder = table.parent / "photos"
    desk = PhotoDesk(table, folder, find_photos(folder), space)
    desk.guess = lambda _: {label: int(label in GUESSED) for label in space.names}
    return desk


def image_desk(folder: Path, space: LabelSpace) -> ImageDesk:
    """Three images that the filter kept, in the order of its confidence."""
    samples = [(f"{number:016x}-0000", toys(scene)) for number, scene in enumerate((103, 5, 8))]
    write_shard(folder / "shards" / "one.tar", samples)
    rows = pd.DataFrame(
        {
            "image_id": [image_id for image_id, _ in samples],
            "shard": "one.tar",
            "sha256": [sha256(content) for _, content in samples],
            "labels": [["boat", "cup"]] * 3,
            "requested": [["boat", "cup"]] * 3,
            "prompt": "a <boat> next to a cup on a lawn",
            "reason": "kept",
            "confidence": [0.51, 0.75, 0.93],
        }
    )
    return ImageDesk(rows.set_index("image_id"), folder, folder / "review.yaml", space)


def cells(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline="") as file:
        return {row.pop("image"): row for row in csv.DictReader(file)}


def shown(row: dict[str, str]) -> set[str]:
    return {label for label, value in row.items() if value == "1"}


class Page:
    """A page of the browser; each action waits until it is done."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.wait_for_selector("#desk:not(.loading), #desk.unread")
            self.page.keyboard.press(key)

    def wait_for(self, text: str) -> None:
        self.page.locator("body", has_text=text).wait_for(timeout=10_000)
        self.page.wait_for_selector("#desk:not(.loading), #desk.unread")

    def take(self, name: str) -> None:
        if os.environ.get(WANTED):
            self.page.wait_for_timeout(300)  # the picture fades
            self.page.screenshot(path=PICTURES / name)


@pytest.fixture
def tab(browser: Any) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield Page(page)
    page.close()
    assert not faults


@needs_browser
def test_photos_are_annotated_with_the_keyboard(tab: Page, table: Path, space: LabelSpace) -> None:
    first, second, third = space.names[:3]
    guessed = set(GUESSED)
    with running_app(create_review_app(photo_desk(table, space))) as url:
        tab.page.goto(url)
        tab.wait_for("Image 1 of 4: a suggestion, not saved")
        tab.wait_for("0 of 4 saved, 1 cannot be read")
        tab.take("annotate.png")
        assert set(tab.page.locator("#answer").inner_text().split(", ")) == guessed
        tab.press("x", "1", "3", "Shift+2", "Enter")
        tab.wait_for("Image 2 of 4")
        row = cells(table)["toys 0.png"]
        assert shown(row) == {first, third}
        assert row[second] == ""  # left open: not annotated
        assert all(row[label] == "0" for label in space.names[3:])
        tab.press("x", "Enter")
        tab.wait_for("Image 4 of 4")  # the third cannot be read
        assert set(cells(table)["toys 1.png"].values()) == {"0"}
        assert set(cells(table)["toys 2.png"].values()) == {""}
        tab.press("ArrowLeft")
        tab.wait_for("It cannot be read:")
        tab.press("1", "ArrowLeft", "ArrowLeft")
        tab.wait_for("Image 1 of 4: saved")
        assert tab.page.locator("#answer").inner_text() == f"{first}, {third}"
        tab.press("1", "Enter")
        tab.wait_for("Image 4 of 4")
        assert shown(cells(table)["toys 0.png"]) == {third}
        tab.press("Enter")
        tab.wait_for("Every image is saved")
        assert shown(cells(table)["toys 3.png"]) == guessed


@needs_browser
def test_annotating_goes_on_where_it_stopped(tab: Page, table: Path, space: LabelSpace) -> None:
    for number in (0, 1):
        photo_desk(table, space).save(f"toys {number}.png", dict.fromkeys(space.names, 0))
    with running_app(create_review_app(photo_desk(table, space))) as url:
        tab.page.goto(url)
        tab.wait_for("2 of 4 saved")
        tab.press("ArrowRight")
        tab.wait_for("Image 4 of 4: a suggestion")


@needs_browser
def test_a_key_before_the_next_photo_is_there_does_not_give_it_the_labels_of_the_last(
    tab: Page, table: Path, space: LabelSpace
) -> None:
    """Guesses take a while, and whoever annotates is fast."""
    held: list[Any] = []
    with running_app(create_review_app(photo_desk(table, space))) as url:
        tab.page.route("**/images/1", lambda route: held.append(route))
        tab.page.goto(url)
        tab.wait_for("Image 1 of 4")
        with tab.page.expect_request("**/images/1"):
            tab.press("x", "1", "Enter")
        tab.page.keyboard.press("2")
        tab.page.locator("#labels input").nth(2).click()
        held[0].continue_()
        tab.wait_for("Image 2 of 4: a suggestion, not saved")
        assert set(tab.page.locator("#answer").inner_text().split(", ")) == set(GUESSED)
        ticked = tab.page.locator("#labels input").evaluate_all("boxes => boxes.map((box) => box.checked)")
        assert {name for name, is_ticked in zip(space.names, ticked, strict=True) if is_ticked} == set(GUESSED)


@needs_browser
def test_a_click_while_a_photo_is_saved_loses_no_change_of_another(tab: Page, table: Path, space: LabelSpace) -> None:
    held: list[Any] = []
    with running_app(create_review_app(photo_desk(table, space))) as url:
        tab.page.goto(url)
        tab.wait_for("Image 1 of 4")
        tab.press("1", "ArrowRight")
        tab.wait_for("Image 2 of 4")
        tab.page.route("**/images/1", lambda route: held.append(route))
        with tab.page.expect_request("**/images/1"):
            tab.press("Enter")
        tab.page.click("#back")
        tab.page.wait_for_timeout(500)  # enough to go back
        held[0].continue_()
        tab.page.unroute("**/images/1")
        tab.wait_for("1 of 4 saved")
        for _ in range(3):
            tab.press("ArrowLeft")
        tab.wait_for("Image 1 of 4: changed, not saved")


@needs_browser
def test_generated_images_are_reviewed_with_the_keyboard(
    tab: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: LabelSpace
) -> None:
    monkeypatch.chdir(tmp_path)
    desk = image_desk(Path(), space)
    with running_app(create_review_app(desk)) as url:
        tab.page.goto(url)
        tab.wait_for("Image 1 of 3: a suggestion, not saved")
        assert "Prompt: a <boat> next to a cup" in tab.page.locator("#notes").inner_text()
        tab.press("x")
        tab.wait_for("Struck out")
        tab.take("review.png")
        tab.press("Enter")
        tab.wait_for("Image 2 of 3")
        tab.press("1", "3", "Enter")
        tab.wait_for("Image 3 of 3")
        tab.press("Enter")
        tab.wait_for("Every image is saved")
    found = read_verdicts(tmp_path / "review.yaml")
    assert [found[image_id].labels for image_id in desk.ids] == [(), ("umbrella", "cup"), ("boat", "cup")]
    assert [found[image_id].sha256 for image_id in desk.ids] == desk.images["sha256"].tolist()
    again = image_desk(tmp_path, space)
    assert again.saved() == set(desk.ids)
    assert not any(again.show(desk.ids[0])[2].values())


def test_verdicts_that_somebody_else_wrote_are_kept(tmp_path: Path, space: LabelSpace) -> None:
    desk = image_desk(tmp_path, space)
    other = {"elsewhere-0000": ImageVerdict(sha256="0" * 64, labels=("of another label space",))}
    (tmp_path / "review.yaml").write_text(verdict_lines(other))
    desk.save(desk.ids[0], dict.fromkeys(space.unseen, 0))
    assert set(read_verdicts(tmp_path / "review.yaml")) == {"elsewhere-0000", desk.ids[0]}
    assert "1 verdict on pictures that no longer exist" in image_desk(tmp_path, space).help
    assert (tmp_path / "review.yaml").read_text().startswith(HEADER)


def test_two_pages_save_at_the_same_time(client: httpx2.Client, table: Path, space: LabelSpace) -> None:
    def save(number: int) -> int:
        body = {"image_id": f"toys {number}.png", "ticks": dict.fromkeys(space.names, 1)}
        return client.post(f"/images/{number}", json=body).status_code

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(save, (0, 1, 3) * 4)) == [200] * 12
    assert [shown(row) == set(space.names) for row in cells(table).values()] == [True, True, False, True]


def test_a_save_waits_until_another_server_has_written(tmp_path: Path, space: LabelSpace) -> None:
    desk, review = image_desk(tmp_path, space), tmp_path / "review.yaml"
    with ThreadPoolExecutor(1) as pool:
        with lock_of(review):
            saving = pool.submit(desk.save, desk.ids[0], dict.fromkeys(space.unseen, 0))
            with pytest.raises(TimeoutError):
                saving.result(0.3)
            review.write_text(verdict_lines({"other-0000": ImageVerdict(sha256="0" * 64, labels=())}))
        saving.result(30)
    assert set(read_verdicts(review)) == {"other-0000", desk.ids[0]}


def test_an_annotation_waits_until_another_server_has_written(table: Path, space: LabelSpace) -> None:
    desk, other = photo_desk(table, space), photo_desk(table, space)
    with ThreadPoolExecutor(1) as pool:
        with lock_of(table):
            saving = pool.submit(desk.save, "toys 0.png", dict.fromkeys(space.names, 1))
            with pytest.raises(TimeoutError):
                saving.result(0.3)
        saving.result(30)
    other.save("toys 1.png", dict.fromkeys(space.names, 0))
    assert desk.saved() | other.saved() == {"toys 0.png", "toys 1.png"}


def test_annotations_that_somebody_else_wrote_are_kept(table: Path, space: LabelSpace) -> None:
    desk, other = photo_desk(table, space), photo_desk(table, space)
    other.save("toys 1.png", dict.fromkeys(space.names, 1))
    desk.save("toys 0.png", dict.fromkeys(space.names, 0))
    assert shown(cells(table)["toys 1.png"]) == set(space.names)
    assert desk.saved() == {"toys 0.png", "toys 1.png"}
    table.write_text("".join(line for line in table.open() if not line.startswith("toys 0")))
    with pytest.raises(ValueError, match=r"no row of toys 0\.png any more"):
        desk.save("toys 0.png", dict.fromkeys(space.names, 1))


@pytest.fixture
def client(table: Path, space: LabelSpace) -> Iterator[httpx2.Client]:
    with (
        running_app(create_review_app(photo_desk(table, space))) as url,
        httpx2.Client(base_url=url, trust_env=False) as client,
    ):
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8010"},
        {"host": "127.0.0.1.evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_sites_neither_read_nor_write(client: httpx2.Client, table: Path, headers: dict[str, str]) -> None:
    before = table.read_bytes()
    ticks = client.get("/images/0").json()["ticks"]
    body = {"image_id": "toys 0.png", "ticks": ticks}
    assert client.post("/images/0", json=body, headers=headers).status_code == 403
    for path in ("/desk", "/images/0", "/pictures/0"):
        assert client.get(path, headers=headers).status_code == 403
    assert table.read_bytes() == before
    assert client.post("/images/0", json=body).status_code == 200
    assert table.read_bytes() != before


def test_requests_that_do_not_fit_are_refused(client: httpx2.Client, table: Path) -> None:
    before = table.read_bytes()
    ticks = client.get("/images/0").json()["ticks"]
    wrong = [
        ("/images/0", {"image_id": "toys 1.png", "ticks": ticks}, 409),
        ("/images/9", {"image_id": "toys 0.png", "ticks": ticks}, 404),
        ("/images/0", {"image_id": "toys 0.png", "ticks": ticks | {"dog": 1}}, 422),
        ("/images/0", {"image_id": "toys 0.png", "ticks": {}}, 422),
        ("/images/0", {"image_id": "toys 0.png", "ticks": dict.fromkeys(ticks, 2)}, 422),
    ]
    for path, body, status in wrong:
        answer = client.post(path, json=body)
        assert (answer.status_code, bool(answer.json()["error"])) == (status, True)
    text = client.post("/images/0", content=b"{}", headers={"content-type": "text/plain"})
    assert text.status_code in (415, 422)
    assert client.get("/pictures/2").status_code == 404
    assert client.post("/images/2", json={"image_id": "toys 2.png", "ticks": ticks}).status_code == 422
    assert table.read_bytes() == before
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]
