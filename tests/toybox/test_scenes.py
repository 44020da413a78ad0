"""The toybox world keeps its promises: repeatable pictures, tidy web scenes, photos of another kind."""

from dataclasses import replace
from functools import partial
from itertools import combinations
from math import hypot
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tailorset.toybox.backgrounds import BACKGROUNDS, GROUNDS, TEXTURES, colour_distance, ground_of
from tailorset.toybox.objects import DRAWINGS, outline_of
from tailorset.toybox.parts import COLOURS, NUM_VARIANTS
from tailorset.toybox.scenes import MIN_CONTRAST, Item, Scene, contrasting_colours, photo_scene, render, web_scene

LABELS = list(DRAWINGS)
MAKERS = (partial(web_scene, style="drawing"), partial(web_scene, style="snapshot"), photo_scene)
PHOTOS = Path(__file__).parent / "photos.png"  # of seeds 0 to 3, drawn when web images were drawings only
LABEL_FILE = Path(__file__).parents[2] / "data" / "labels" / "toybox.yaml"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def web(rng: np.random.Generator) -> list[Scene]:
    return [web_scene(rng, LABELS) for _ in range(400)]


@pytest.fixture
def drawings(web: list[Scene]) -> list[Scene]:
    return [scene for scene in web if scene.style == "drawing"]


@pytest.fixture
def snapshots(web: list[Scene]) -> list[Scene]:
    return [scene for scene in web if scene.style == "snapshot"]


@pytest.fixture
def photos(rng: np.random.Generator) -> list[Scene]:
    return [photo_scene(rng, LABELS) for _ in range(200)]


@pytest.mark.parametrize("make", MAKERS)
def test_equal_arguments_give_equal_bytes(make):
    scene, same = (make(np.random.default_rng(7), LABELS) for _ in range(2))
    assert scene == same
    assert render(scene, 48).tobytes() == render(same, 48).tobytes()
    assert render(scene, 48).tobytes() != render(replace(scene, seed=scene.seed + 1), 48).tobytes()


@pytest.mark.parametrize("size_px", [32, 64])
@pytest.mark.parametrize("make", MAKERS)
def test_render_layout(make, size_px, rng):
    image = render(make(rng, LABELS), size_px)
    assert image.shape == (size_px, size_px, 3)
    assert image.dtype == np.uint8


def test_web_items_are_inside_and_apart(web):
    for scene in web:
        for item in scene.items:
            reach = item.size / 2 - 1e-9
            assert reach <= min(item.x, item.y)
            assert max(item.x, item.y) <= 1 - reach
            assert abs(item.angle) <= {"drawing": 15, "snapshot": 35}[scene.style]
        for one, two in combinations(scene.items, 2):
            assert hypot(one.x - two.x, one.y - two.y) >= (one.size + two.size) / 2 - 1e-9


def test_web_numbers_and_sizes(web):
    sizes = {
        "drawing": {1: (0.55, 0.85), 2: (0.42, 0.55), 3: (0.34, 0.44)},
        "snapshot": {1: (0.42, 0.75), 2: (0.34, 0.52), 3: (0.28, 0.42)},
    }
    shares = np.bincount([len(scene.items) for scene in web], minlength=4) / len(web)
    assert shares == pytest.approx([0, 0.45, 0.45, 0.10], abs=0.08)
    for scene in web:
        low, high = sizes[scene.style][len(scene.items)]
        assert all(low <= item.size <= high for item in scene.items)


def test_relation_is_drawn(web):
    for scene in web:
        assert bool(scene.relation) == (len(scene.items) > 1)
        if scene.relation == "above":
            assert scene.items[0].y < scene.items[1].y
        if scene.relation == "next to":
            first, second = scene.items[:2]
            assert abs(first.x - second.x) > abs(first.y - second.y)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_colours_contrast_with_background(background):
    place, chosen = BACKGROUNDS[background], contrasting_colours(background)
    assert len(chosen) >= 4
    for colour, tone in [(c, t) for c in chosen for t in (place.top, place.bottom)]:
        assert colour_distance(COLOURS[colour], tone) >= MIN_CONTRAST["drawing"]


@pytest.mark.parametrize("background", [*GROUNDS, *TEXTURES])
def test_colours_of_snapshots_contrast_with_every_ground(background):
    for seed in range(8):
        chosen = contrasting_colours(background, seed, "snapshot")
        assert len(chosen) >= 3
        for colour, tone in [(c, t) for c in chosen for t in ground_of(background, seed).tones]:
            assert colour_distance(COLOURS[colour], tone) >= MIN_CONTRAST["snapshot"]


def test_web_scenes_use_contrasting_colours(web):
    for scene in web:
        chosen = contrasting_colours(scene.background, scene.seed, scene.style)
        assert all(item.colour in chosen for item in scene.items)


def test_half_of_the_web_is_snapshots_on_places_and_surfaces(web, drawings, snapshots):
    assert len(drawings) + len(snapshots) == len(web)
    assert len(snapshots) / len(web) == pytest.approx(0.5, abs=0.08)
    assert {scene.background for scene in drawings} == set(BACKGROUNDS) == set(GROUNDS)
    assert {scene.background for scene in snapshots} == {*BACKGROUNDS, *TEXTURES}


@pytest.mark.parametrize("style", ["drawing", "snapshot"])
def test_a_style_asked_for_is_drawn(style, rng):
    assert {web_scene(rng, LABELS, style=style).style for _ in range(20)} == {style}


def test_photo_scenes_are_crowded_turned_and_cut(photos):
    assert {len(scene.items) for scene in photos} == {2, 3, 4, 5}
    assert {scene.background for scene in photos} == set(TEXTURES)
    items = [item for scene in photos for item in scene.items]
    assert all(0.2 <= item.size <= 0.42 and abs(item.angle) <= 50 for item in items)
    assert any(abs(item.angle) > 40 for item in items)
    assert any(item.x < item.size / 2 for item in items)


@pytest.mark.parametrize("make", MAKERS)
def test_labels_of_a_scene_are_distinct_and_allowed(make, rng):
    for _ in range(100):
        chosen = [item.label for item in make(rng, LABELS[:6]).items]
        assert len(set(chosen)) == len(chosen)
        assert set(chosen) <= set(LABELS[:6])


def test_num_objects_is_obeyed_or_refused(rng):
    assert len(web_scene(rng, LABELS, num_objects=3).items) == 3
    assert len(photo_scene(rng, LABELS, num_objects=5).items) == 5
    with pytest.raises(ValueError, match="num_objects=4: give 1 to 3"):
        web_scene(rng, LABELS, num_objects=4)
    with pytest.raises(ValueError, match="at least as many labels"):
        web_scene(rng, LABELS[:1], num_objects=2)


def _roughness(scene: Scene) -> float:
    """Mean absolute step between neighbouring pixels of the empty scene, in grey levels."""
    grey = render(replace(scene, items=()), 64).mean(axis=2)
    return float(np.abs(np.diff(grey, axis=1)).mean())


def test_only_drawings_are_smooth(drawings, snapshots, photos):
    smooth = max(_roughness(scene) for scene in drawings[:40])
    assert smooth < min(_roughness(scene) for scene in snapshots[:40])
    assert smooth < min(_roughness(scene) for scene in photos[:40])


def test_photos_are_a_shift_away_from_snapshots(snapshots, photos):
    """Twice as many objects, half as big."""
    assert np.mean([len(scene.items) for scene in photos]) > 1.8 * np.mean([len(s.items) for s in snapshots])
    size = [np.mean([item.size for scene in scenes for item in scene.items]) for scenes in (snapshots, photos)]
    assert size[1] < 0.8 * size[0]


def test_photos_look_as_they_always_did():
    strip = np.hstack([render(photo_scene(np.random.default_rng(seed), LABELS), 64) for seed in range(4)])
    stored = np.asarray(Image.open(PHOTOS)).astype(int)
    assert np.abs(stored - strip).mean() < 0.5  # 0 with the same JPEG library


@pytest.mark.parametrize("label", LABELS)
def test_drawing_fits_the_unit_disc_and_shows_its_colour(label):
    for variant in range(NUM_VARIANTS):
        outline = outline_of(label, variant)
        assert np.linalg.norm(outline.points, axis=1).max() == pytest.approx(1)
        assert outline.starts[-1] == len(outline.points)
        assert len(outline.starts) == len(outline.paints) + 1
        item = Item(label, "purple", 0.5, 0.5, 0.8, 0, False, variant)
        image = render(Scene((item,), "grass", "", 3, "drawing"), 64).astype(int)
        near = np.abs(image - COLOURS["purple"]).max(axis=2) < 40
        assert near.mean() > 0.02


@pytest.mark.parametrize("label", LABELS)
def test_mirror_flips_the_picture(label):
    scene = Scene((Item(label, "red", 0.5, 0.5, 0.8, 0, False, 0),), "snow", "", 3, "drawing")
    mirrored = replace(scene, items=(replace(scene.items[0], mirror=True),))
    flipped = render(mirrored, 64)[:, ::-1].astype(int)
    assert np.abs(render(scene, 64) - flipped).mean() < 4


def test_label_file_matches_drawings():
    content = yaml.safe_load(LABEL_FILE.read_text())
    seen = {label["name"]: label["seen"] for label in content["labels"]}
    assert list(seen) == LABELS
    assert [name for name in LABELS if not seen[name]] == ["umbrella", "clock", "boat", "cup", "key", "fish"]
    assert {unseen for unseen, _ in content["confusable"]} == {name for name in LABELS if not seen[name]}
    assert all(seen[look_alike] for _, look_alike in content["confusable"])
