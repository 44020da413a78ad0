"""The page in a real browser: Debian's chromium, driven by playwright.

TAILORSET_PICTURES=1 also writes docs/pictures/page.png, with the toybox classifier of models/ where there is one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tailorset.images.codec import encode_png
from tailorset.serving.service import Service
from tailorset.toybox.scenes import photo_scene, render
from tests.registered import running

CHROMIUM = shutil.which("chromium")
ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "pictures" / "page.png"
WANTED = "TAILORSET_PICTURES"
TOYS = 312  # the number of a drawn photo of a clock, a cup (unseen labels) and a house

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")


@pytest.fixture(scope="module")
def address(folder: Path, other_folder: Path) -> Iterator[str]:
    with running(Service(str(folder), str(other_folder))) as url:
        yield url


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert not faults


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "toys.png"
    path.write_bytes(encode_png(np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)))
    return path


@pytest.fixture
def broken(tmp_path: Path, photo: Path) -> Path:
    path = tmp_path / "broken.png"
    path.write_bytes(photo.read_bytes()[:500])
    return path


def drop(page: Any, *files: Path) -> None:
    """Let files fall onto the page, as from the desktop."""
    contents = [[file.name, list(file.read_bytes())] for file in files]
    transfer = page.evaluate_handle(
        "files => { const all = new DataTransfer(); for (const [name, bytes] of files)"
        " all.items.add(new File([new Uint8Array(bytes)], name)); return all; }",
        contents,
    )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def labels(page: Any) -> Any:
    return page.locator("article .labels button")


def test_a_dropped_photo_gets_its_labels(page: Any, photo: Path) -> None:
    drop(page, photo)
    first = labels(page).first
    first.wait_for()
    assert {word.inner_text() for word in page.locator(".labels .word").all()} == {"tea cup", "ball"}
    marks = page.locator(".labels .mark-generated")
    assert [mark.is_visible() for mark in marks.all()].count(True) == 1
    assert page.locator("article .legend").inner_text().strip() == "learned from generated images"
    assert "unseen" not in page.locator("body").inner_text()  # beside "79 % present" it reads as a contradiction
    assert re.fullmatch(
        r"(tea cup, learned from generated images|ball): \d+ %, (present|undecided|absent), threshold (40|50) %",
        first.get_attribute("aria-label"),
    )
    assert "toys.png" in page.locator("#said").inner_text()  # what a screen reader says
    assert "2 labels, 1 of them learned from generated images" in page.locator("#origin").inner_text()


def test_before_the_first_photo_the_page_says_what_it_knows_and_offers_examples(page: Any) -> None:
    page.locator("#names li").first.wait_for()
    assert page.locator("#names li").all_inner_texts() == ["tea cup", "ball"]
    assert page.locator("#known").inner_text() == "It knows 2 labels"
    examples = page.locator(".pictures button")
    assert examples.count() == 2
    examples.nth(1).press("Enter")
    labels(page).first.wait_for()
    assert page.locator("article .name").inner_text() == "example 2"
    assert not page.locator("#start").is_visible()


def test_of_many_labels_the_first_ones_are_named(page: Any) -> None:
    page.route("**/model", lambda route: route.fulfill(json=many_labels(route.fetch().json())))
    page.reload()
    page.get_by_role("button", name="940 more").click()
    assert page.locator("#names li:visible").count() == 1000
    assert page.locator("#known").inner_text() == "It knows 1,000 labels"


def many_labels(model: dict[str, Any]) -> dict[str, Any]:
    first = model["labels"][0]
    return model | {"labels": [first | {"label": f"thing {number}"} for number in range(1000)]}


@pytest.mark.parametrize("novelty", [0.4, 3.0, None])
def test_a_photo_unlike_those_of_training_has_a_note(page: Any, photo: Path, novelty: float | None) -> None:
    changed = {"novelty": novelty, "unfamiliar": novelty and novelty > 1}
    page.route("**/predict?*", lambda route: route.fulfill(json=route.fetch().json() | changed))
    drop(page, photo)
    labels(page).first.wait_for()
    note = page.locator(".novel")
    assert note.is_visible() == (novelty == 3.0)
    assert novelty != 3.0 or "do not rely on its labels" in note.inner_text()


def test_a_heic_photo_is_answered_with_what_to_do(page: Any, tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500))
    drop(page, tmp_path / "IMG_1.HEIC")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == (
        "This is a photo in HEIC format, as iPhones take them, which is not read here: send it as JPEG, PNG or WebP."
    )


def test_behind_a_proxys_sub_path_all_works(browser: Any, folder: Path, photo: Path) -> None:
    with running(Service(str(folder)), below="/labels") as url:
        page = browser.new_page()
        missed: list[str] = []
        page.on("response", lambda answer: missed.append(answer.url) if answer.status >= 400 else None)
        page.goto(f"{url}/labels/")
        page.locator(".pictures img").first.wait_for()
        page.set_input_files("#files", photo)
        labels(page).first.click()
        page.locator("canvas.shown").wait_for()
        page.close()
    assert not missed


@pytest.mark.parametrize("width", [320, 390])
def test_no_word_of_a_decision_breaks_on_a_phone(browser: Any, address: str, photo: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(address)
    page.set_input_files("#files", photo)
    labels(page).first.wait_for()
    decision = page.locator(".decision").first
    decision.evaluate("e => { e.textContent = 'undecided'; e.style.fontSize = '1rem'; }")  # phones' letters are wider
    lines = "e => { const r = document.createRange(); r.selectNodeContents(e); return r.getClientRects().length; }"
    assert decision.evaluate(lines) == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_a_label_lays_its_map_over_the_photo_and_takes_it_away(page: Any, photo: Path) -> None:
    drop(page, photo)
    button = labels(page).first
    button.click()
    page.locator("canvas.shown").wait_for()
    assert button.get_attribute("aria-pressed") == "true"
    assert "Where it looks for" in page.locator(".where").inner_text()
    opaque = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 === 3 && v > 0)"
    assert page.locator("canvas").evaluate(opaque)
    button.click()
    assert page.locator("canvas.shown").count() == 0


def test_a_labels_word_is_pressed_as_well_as_its_bar(page: Any, photo: Path) -> None:
    page.set_input_files("#files", photo)
    labels(page).first.wait_for()
    page.locator(".labels .word").first.click()
    page.locator("canvas.shown").wait_for()
    assert labels(page).first.get_attribute("aria-pressed") == "true"


def test_the_keyboard_is_enough(page: Any, photo: Path) -> None:
    page.set_input_files("#files", photo)
    labels(page).first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("canvas.shown").wait_for()
    assert labels(page).nth(1).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.locator("canvas.shown").count() == 0
    page.get_by_role("button", name=f"Remove {photo.name}").press("Enter")
    assert page.locator("article").count() == 0
    assert page.evaluate("document.activeElement.id") == "files"


def test_a_broken_file_gets_a_message_and_the_others_their_labels(page: Any, photo: Path, broken: Path) -> None:
    drop(page, broken, photo)
    labels(page).first.wait_for()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == "The image is damaged or incomplete: 500 bytes that cannot be decoded."
    assert page.locator("article.failed .name").inner_text() == "broken.png"


def test_a_file_that_is_too_long_is_not_even_sent(page: Any, tmp_path: Path) -> None:
    (tmp_path / "long.png").write_bytes(bytes(10 * 2**20 + 1))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.set_input_files("#files", tmp_path / "long.png")
    page.get_by_role("alert").wait_for()
    assert "at most 10" in page.get_by_role("alert").inner_text()
    assert not [url for url in sent if "/predict" in url]


def test_a_photo_is_pasted(page: Any, photo: Path) -> None:
    paste = (
        "bytes => { const clip = new DataTransfer(); clip.items.add(new File([new Uint8Array(bytes)], 'image.png'));"
        " dispatchEvent(new ClipboardEvent('paste', { clipboardData: clip })); }"
    )
    page.evaluate(paste, list(photo.read_bytes()))
    labels(page).first.wait_for()


def test_two_models_stand_side_by_side(page: Any, photo: Path) -> None:
    drop(page, photo)
    labels(page).first.wait_for()
    assert labels(page).count() == 2
    page.get_by_role("checkbox").check()
    page.locator("article.wide").wait_for()
    assert labels(page).count() == 4
    values = labels(page).locator(".value").all_inner_texts()
    assert values[:2] != values[2:]
    labels(page).nth(1).click()  # the challenger's map
    page.locator("canvas.shown").wait_for()


@pytest.mark.parametrize("width", [320, 390, 1100])
def test_nothing_sticks_out_at_any_width(browser: Any, address: str, photo: Path, broken: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(address)
    page.get_by_role("checkbox").check()
    page.set_input_files("#files", [photo, broken])
    labels(page).first.wait_for()
    page.get_by_role("alert").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(browser: Any, address: str, photo: Path, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(address)
    page.set_input_files("#files", photo)
    labels(page).first.wait_for()
    colours = (
        "e => [getComputedStyle(e).color, getComputedStyle(e.closest('article') ?? document.body).backgroundColor]"
    )
    for place in ("h1", "#model", "h2", ".name", ".word", ".decision", ".legend"):
        ink, ground = page.locator(place).first.evaluate(colours)
        assert contrast(ink, ground) >= 4.5, f"{place} in {scheme}: {ink} on {ground}"  # WCAG AA
    page.close()


def contrast(ink: str, ground: str) -> float:
    """Source: WCAG 2.2, contrast ratio."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.skipif(WANTED not in os.environ, reason=f"writes {PICTURE.name} only when asked: {WANTED}=1")
def test_the_picture_for_the_readme(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if not Path("models/classifier").exists():
        pytest.skip("no models/classifier to photo: make run")
    service = Service("models/classifier")
    scene = photo_scene(np.random.default_rng(TOYS), service.champion.predictor.labels)
    (tmp_path / "toys.png").write_bytes(encode_png(render(scene, 512)))
    with running(service) as url:
        page = browser.new_page(viewport={"width": 1100, "height": 760}, color_scheme="light")
        page.goto(url)
        page.set_input_files("#files", tmp_path / "toys.png")
        labels(page).first.click()
        page.locator("canvas.shown").wait_for()
        page.wait_for_timeout(500)  # the map fades in
        page.screenshot(path=PICTURE)
        page.close()
    with Image.open(PICTURE) as picture:
        assert picture.size == (1100, 760)
