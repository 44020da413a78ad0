"""A folder of photos of every kind, with annotations of every kind, whole and damaged."""

from __future__ import annotations

import json
import os
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutations import TURNED, exif_photo
from PIL import Image
from pydantic import ValidationError

from tailorset.commands.annotating import PhotoDesk
from tailorset.datasets.folder import Config, build, few_held_out
from tailorset.datasets.reading.annotations import read_truths
from tailorset.datasets.reading.photo_set import PhotoSet
from tailorset.images import codec
from tailorset.images.codec import decode_image
from tailorset.records import SPLITS, LabelSpace, RealSample, Rejected
from tailorset.storage.photo_files import find_photos
from tests.unreadable import forbid

NAMES = ("mug", "lamp", "sofa", "plant")
SPACE = LabelSpace.model_validate({"name": "rooms", "labels": [{"name": n, "seen": n in NAMES[:2]} for n in NAMES]})
ALL_UNSEEN = LabelSpace.model_validate({"name": "rooms", "labels": [{"name": n, "seen": False} for n in NAMES]})
SHOWN = {f"{place:03d}.jpg": {NAMES[place % 4], NAMES[(place // 4) % 4]} for place in range(64)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for place, name in enumerate(SHOWN):
        save(folder / name, place)
    return folder


def save(path: Path, seed: int, **options: Any) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def write_csv(folder: Path, rows: list[str]) -> Path:
    path = folder.parent / "annotations.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def listed(photos: Path) -> Path:
    return write_csv(photos, ["image,labels", *(f"{name},{'; '.join(shown)}" for name, shown in SHOWN.items())])


def dataset(
    photos: Path, annotations: Path | str | None, space: LabelSpace = SPACE, seed: int = 0, **settings: Any
) -> PhotoSet:
    return build(Config(images=photos, annotations=annotations, image_px=16, **settings), space, seed)


def samples(data: PhotoSet) -> Iterator[tuple[str, RealSample]]:
    for split in SPLITS:
        for sample in data.samples(split):
            assert isinstance(sample, RealSample)
            yield split, sample


def shown(sample: RealSample) -> set[str]:
    return {name for name, present in sample.targets.items() if present}


def test_every_annotated_photo_is_in_one_split_with_its_labels(photos: Path, listed: Path) -> None:
    found = list(samples(dataset(photos, listed)))
    assert len({sample.image_id for _, sample in found}) == len(SHOWN)
    for split, sample in found:
        expected = SHOWN[sample.image_id[:3] + ".jpg"]
        assert shown(sample) == expected
        assert set(sample.targets) == set(NAMES[:2] if split == "train" else NAMES)
        if split == "train":
            assert not expected & {"sofa", "plant"}


def test_shares_are_of_what_could_be_trained_on(photos: Path, listed: Path) -> None:
    trainable = sum(not labels & {"sofa", "plant"} for labels in SHOWN.values())
    assert dataset(photos, listed).sizes["train"] < trainable
    most = dataset(photos, listed, val_share=0.05, test_share=0.05)
    assert most.sizes["train"] > trainable * 0.7


def test_a_new_photo_moves_no_other_and_a_copy_is_left_out(photos: Path, listed: Path) -> None:
    before = {sample.image_id: split for split, sample in samples(dataset(photos, listed))}
    (photos / "zzz.jpg").write_bytes((photos / "003.jpg").read_bytes())
    save(photos / "aaa.jpg", 1000)
    with listed.open("a") as file:
        file.write(f"zzz.jpg,{';'.join(SHOWN['003.jpg'])}\naaa.jpg,sofa\n")
    data = dataset(photos, listed)
    after = {sample.image_id: split for split, sample in samples(data)}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1
    assert "left out as copies of others: 1 file" in data.notes
    listed.write_text(listed.read_text().replace("zzz.jpg,", "zzz.jpg,lamp;"))
    with pytest.raises(ValueError, match=r"003.jpg and zzz.jpg are the same photo, but differ in \['lamp'\]"):
        dataset(photos, listed)


def test_copies_without_annotations_hide_no_photo_of_no_use(photos: Path) -> None:
    rows = [f"{name},{','.join(str(int(label in shown)) for label in NAMES)}" for name, shown in SHOWN.items()]
    for place, name in enumerate(("useless.jpg", "blank.jpg", "again.jpg", "more.jpg")):
        save(photos / name, 1000 + min(place, 1))
    rows += ["useless.jpg,,,1,", "blank.jpg,,,,", "again.jpg,,,,", "more.jpg,,,,"]
    notes = "\n".join(dataset(photos, write_csv(photos, [f"image,{','.join(NAMES)}", *rows])).notes)
    assert "left out as copies of others: 2 files" in notes
    assert "of no use: 1 annotated photo," in notes


def test_a_copy_in_another_labels_folder_shows_both(tmp_path: Path) -> None:
    for place in range(60):
        save(tmp_path / ("sofa", "lamp")[place % 2] / f"{place}.png", place)
        save(tmp_path / "plant" / f"{place}.png", place)
    data = dataset(tmp_path, "folders", ALL_UNSEEN)
    assert {frozenset(shown(sample)) for _, sample in samples(data)} == {
        frozenset({"sofa", "plant"}),
        frozenset({"lamp", "plant"}),
    }
    assert data.sizes["val"] + data.sizes["test"] == 60


def test_what_the_splits_show_is_told(photos: Path, listed: Path) -> None:
    data = dataset(photos, listed)
    counts = {name: sum(name in shown(sample) for split, sample in samples(data) if split == "val") for name in NAMES}
    assert "val shows " + ", ".join(f"{name} {count}" for name, count in counts.items()) in data.notes


def test_spreadsheet_habits_are_understood(photos: Path) -> None:
    rows = ["\ufeffimage,mug,lamp,sofa,plant", *(f"{place:03d}.jpg,1,0,{place % 2},0" for place in range(60)), ",,,,"]
    assert sum(dataset(photos, write_csv(photos, rows)).sizes.values()) == 60


def test_blanks_after_the_commas_of_a_table_change_nothing(photos: Path, listed: Path) -> None:
    expected = dataset(photos, listed).splits
    listed.write_text(listed.read_text().replace(",", ", "))
    assert dataset(photos, listed).splits == expected


def test_names_match_however_their_accents_are_composed(photos: Path) -> None:
    save(photos / "cafe\u0301.jpg", 5000)
    rows = ["image,labels", *(f"{name},sofa" for name in SHOWN), "caf\u00e9.jpg,sofa"]
    data = dataset(photos, write_csv(photos, rows), ALL_UNSEEN)
    assert sum(data.sizes.values()) == len(SHOWN) + 1


def test_another_seed_divides_otherwise(photos: Path, listed: Path) -> None:
    one, two = ({s.image_id: split for split, s in samples(dataset(photos, listed, seed=seed))} for seed in (0, 1))
    assert one != two


def test_what_is_annotated_for_seen_labels_only_is_for_training(photos: Path) -> None:
    rows = ["image,mug,lamp,sofa,plant"]
    rows += [f"{place:03d}.jpg,{place % 2},1,," for place in range(30)]
    rows += [f"{place:03d}.jpg,0,0,1,{place % 2}" for place in range(30, 60)]
    rows += ["060.jpg,,,1,0", "061.jpg,,,,"]
    data = dataset(photos, write_csv(photos, rows))
    assert data.sizes["train"] == 30
    assert data.sizes["val"] + data.sizes["test"] == 30
    assert all(set(sample.targets) == {"mug", "lamp"} for split, sample in samples(data) if split == "train")
    notes = "\n".join(data.notes)
    assert "64 photos, 30 annotated for every label, 31 for some, 3 not at all" in notes
    assert "of no use: 1 annotated photo," in notes


def test_without_seen_labels_all_photos_are_for_measuring(photos: Path, listed: Path) -> None:
    data = dataset(photos, listed, ALL_UNSEEN)
    assert data.sizes["train"] == 0
    assert data.sizes["val"] + data.sizes["test"] == len(SHOWN)


def test_photos_that_nobody_annotated_are_kept_apart_for_calibration_and_looking(photos: Path) -> None:
    data = dataset(photos, None, ALL_UNSEEN)
    assert data.sizes["train"] == 0
    assert min(data.sizes["val"], data.sizes["test"]) > 0
    assert data.sizes["val"] + data.sizes["test"] == len(SHOWN)
    assert all(sample.targets == {} for _, sample in samples(data))
    assert "64 photos, 0 annotated for every label, 0 for some, 64 not at all" in data.notes[0]
    assert "left out" not in "".join(data.notes)
    with pytest.raises(ValueError, match=r"\['mug', 'lamp'\] of 'rooms' are seen, but no photo is annotated"):
        dataset(photos, None)


def test_a_folder_a_label(tmp_path: Path) -> None:
    for place in range(60):
        save(tmp_path / ("Sofa", "lamp", "attic")[place % 3] / "deep" / f"{place}.png", place)
    save(tmp_path / "in no folder.png", 60)
    data = dataset(tmp_path, "folders")
    assert {tuple(shown(sample)) for _, sample in samples(data)} == {("sofa",), ("lamp",)}
    assert "61 photos, 40 annotated for every label, 0 for some, 21 not at all" in data.notes[0]
    assert "folders that are no label: attic" in data.notes


def test_coco_annotations_of_nested_files(photos: Path) -> None:
    names = [f"deep/{name}" for name in SHOWN]
    (photos / "deep").mkdir()
    for name in SHOWN:
        (photos / name).rename(photos / "deep" / name)
    content = {
        "images": [{"id": place, "file_name": name} for place, name in enumerate(names)],
        "annotations": [
            {"id": 10 * place + NAMES.index(label), "image_id": place, "category_id": NAMES.index(label)}
            for place, labels in enumerate(SHOWN.values())
            for label in labels
        ],
        "categories": [{"id": place, "name": name} for place, name in enumerate((*NAMES, "rug"))],
    }
    path = photos.parent / "instances.json"
    path.write_text(json.dumps(content))
    for _, sample in samples(dataset(photos, path)):
        assert shown(sample) == SHOWN[sample.image_id.removeprefix("deep-")[:3] + ".jpg"]


def test_photos_of_every_kind_are_read(photos: Path) -> None:
    grey16 = np.full((20, 40), 40_000, dtype=np.uint16)
    Image.fromarray(grey16).save(photos / "grey16.png")
    Image.new("CMYK", (40, 20), (0, 200, 0, 0)).save(photos / "cmyk.JPG")
    Image.new("L", (40, 20), 9).save(photos / "grey.webp")
    Image.new("RGBA", (40, 20), (255, 0, 0, 0)).save(photos / "clear.png")
    rotated = Image.new("RGB", (40, 20), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    rotated.save(photos / "turned.jpeg", exif=exif)
    (photos / "odd.jpg").write_bytes(exif_photo([TURNED, (282, 2, b"not a resolution")]))
    rotated.save(photos / "browser.jfif", "JPEG")
    rotated.save(photos / "phone.avif")
    rotated.save(photos / "traffic.ppm")
    Image.new("L", (40, 20), 99).save(photos / "face.pgm")
    kinds = ["grey16.png", "cmyk.JPG", "grey.webp", "clear.png", "turned.jpeg", "odd.jpg", "browser.jfif", "phone.avif"]
    kinds += ["traffic.ppm", "face.pgm"]
    table = write_csv(photos, ["image,labels", *(f"{name},sofa" for name in (*SHOWN, *kinds))])
    data = dataset(photos, table, ALL_UNSEEN)
    assert sum(data.sizes.values()) == len(SHOWN) + len(kinds)
    images = {sample.image_id.rpartition("-")[0]: decode_image(sample.png) for _, sample in samples(data)}
    assert images["turned-jpeg"].size == (16, 32)
    assert images["odd-jpg"].size == (16, 21)
    assert images["grey16-png"].getpixel((3, 3)) == (156, 156, 156)
    assert images["clear-png"].getpixel((3, 3)) == (255, 255, 255)
    red, green, _ = images["cmyk-JPG"].getpixel((3, 3))  # type: ignore[misc]
    assert red > green
    assert images["grey-webp"].mode == "RGB"


def test_a_damaged_photo_is_rejected_by_name(photos: Path, listed: Path) -> None:
    (photos / "005.jpg").write_bytes((photos / "005.jpg").read_bytes()[:200])
    (photos / "006.jpg").write_bytes(b"")
    data = dataset(photos, listed)
    rejected = [sample for split in SPLITS for sample in data.samples(split) if isinstance(sample, Rejected)]
    assert sorted(sample.image_id[:3] for sample in rejected) == ["005", "006"]
    assert all(str(photos) in sample.reason for sample in rejected)


def test_empty_files_are_no_copies_of_each_other(photos: Path, listed: Path) -> None:
    """Downloads that failed: both are rejected, whatever they are annotated for."""
    for name in ("000.jpg", "001.jpg"):
        (photos / name).write_bytes(b"")
    data = dataset(photos, listed)
    rejected = [sample for split in SPLITS for sample in data.samples(split) if isinstance(sample, Rejected)]
    assert sorted(sample.image_id[:3] for sample in rejected) == ["000", "001"]


def test_a_file_too_large_for_a_photo_is_rejected_unread(
    photos: Path, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video with the suffix of a photo would fill the memory."""
    monkeypatch.setattr(codec, "MAX_FILE_BYTES", 1 << 20)
    with (photos / "000.jpg").open("wb") as file:
        file.truncate(2 << 20)
    desk = PhotoDesk(listed, photos, find_photos(photos), SPACE)
    data = dataset(photos, listed)
    rejected = [sample for split in SPLITS for sample in data.samples(split) if isinstance(sample, Rejected)]
    assert [sample.image_id[:3] for sample in rejected] == ["000"]
    assert "2 MiB is too large for a photo" in rejected[0].reason
    with pytest.raises(ValueError, match="too large for a photo"):
        desk.png("000.jpg")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["image,labels", "000.jpg,mugg"], r"line 2: .*label.*mugg.*mug"),
        (["image,labels", "000.jpg,mug", "000.jpg,sofa"], r"line 3: 000.jpg is there twice"),
        (["image,labels", "", "", "000.jpg,mugg"], r"line 4: .*label.*mugg"),
        (["image,labels", "nowhere.jpg,mug"], r"1 of 1 images that are not photos in .*nowhere.jpg \(.* nothing"),
        (["image,mug,sofa", "000.jpg,1,yes"], r"line 2: sofa is 'yes': write 1, 0, or nothing"),
        (["image,mug,couch", "000.jpg,1,0"], r"line 1: .*couch"),
        (["image,labels", "000.jpg,MUG"], r"line 2: .*There is 'mug'"),
        (["image,mug, mug ", "000.jpg,1,0"], r"has a column twice"),
        (["image,labels", "000.JPG,mug"], r"000.JPG \(there is 000.jpg\)"),
        (["image,labels", "sub/000.png,mug"], r"sub/000.png \(there is 000.jpg\)"),
        (["image,labels", "000.jpg,mug", "./000.jpg,mug"], r"000.jpg twice, once as './000.jpg'"),
        (["image,mug,lamp,sofa", "000.jpg,1,0,1", "001.jpg,0,0,1"], r"annotates no photo for plant"),
        (["image,labels", "000.jpg,mug,sofa"], r"line 2: 2 columns were expected"),
        (["image,mug,sofa", "000.jpg,1"], r"line 2: 3 columns were expected"),
        (["file,labels", "000.jpg,mug"], r"has the columns \['file', 'labels'\]: give `image,labels`"),
        (["image,mug,", "000.jpg,1,"], r"has the columns \['image', 'mug', ''\]: give"),
        ([",image,mug", "0,000.jpg,1"], r"has the columns \['', 'image', 'mug'\]: give"),
        (["image,labels"], "at least one row"),
        (["image,labels", "000.jpg,sofa"], r"photos annotated for every label .* an unseen one: 1 .*: annotate more"),
        (["image,labels", "000.jpg,sofa", "001.jpg,sofa"], r"no photo is left for train: .*: annotate more"),
    ],
)
def test_faulty_annotations_are_named(photos: Path, rows: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(photos, write_csv(photos, rows))


def test_missing_things_are_named_with_the_remedy(photos: Path, listed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no folder .*prepare_dataset.images"):
        dataset(tmp_path / "elsewhere", listed)
    with pytest.raises(ValueError, match=r"give a .csv file, a COCO .json file, or the word folders"):
        dataset(photos, tmp_path / "annotations.xlsx")
    with pytest.raises(ValidationError, match=r"more than 1 together"):
        dataset(photos, listed, val_share=0.6, test_share=0.6)


def test_what_cannot_be_opened_is_counted_and_named(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(photos / "locked" / "a.jpg", 100)
    (photos / "gone.jpg").symlink_to("/nowhere/gone.jpg")
    os.mkfifo(photos / "pipe.jpg")
    forbid(monkeypatch, photos / "locked")
    rows = [f"{name},{'; '.join(shown)}" for name, shown in SHOWN.items()]
    told = dataset(photos, write_csv(photos, ["image,labels", *rows])).notes
    assert (
        "3 files or folders cannot be opened: gone.jpg (a link to /nowhere/gone.jpg, which is not there),"
        " pipe.jpg (neither a file nor a folder), locked (Permission denied)"
    ) in told
    with pytest.raises(ValueError, match=r"locked/a\.jpg \(locked cannot be opened: Permission denied\)"):
        dataset(photos, write_csv(photos, ["image,labels", *rows, "locked/a.jpg,mug"]))


def test_a_folder_that_cannot_be_listed_is_not_said_to_be_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match=r"holds no file that can be read .*Permission denied"):
        dataset(tmp_path, "folders")


@pytest.mark.parametrize("name", ["at 10.00\u202fAM.png", "a\u00a0b.png", "family \U0001f468\u200d\U0001f469.png"])
def test_blanks_and_emoji_of_other_systems_are_fine_in_names(name: str, photos: Path) -> None:
    """macOS calls screenshots like the first one."""
    save(photos / name, 1000)
    rows = [f"{file},{'; '.join(shown)}" for file, shown in SHOWN.items()]
    data = dataset(photos, write_csv(photos, ["image,labels", *rows, f"{name},sofa"]))
    assert sum(data.sizes.values()) == len(SHOWN) + 1


def test_only_photos_need_names_of_one_line(photos: Path, listed: Path) -> None:
    (photos / "Icon\r").touch()  # macOS has it in folders with an icon of their own
    (photos / ".hidden\r").touch()
    assert r"left alone: 1 other file: 'Icon\r'" in dataset(photos, listed).notes
    save(photos / "two\nlines.png", 1000)
    with pytest.raises(ValueError, match=r"on one line: rename 'two\\nlines.png'"):
        dataset(photos, listed)


def test_two_photos_of_a_name_that_is_composed_in_two_ways_are_told(photos: Path, listed: Path) -> None:
    for place, name in enumerate(("caf\u00e9.png", "cafe\u0301.png")):
        save(photos / name, 1000 + place)
    if len(list(photos.glob("caf*"))) == 2:  # some file systems compose names themselves
        with pytest.raises(ValueError, match="have names that look the same: rename one of them"):
            dataset(photos, listed)


def test_other_files_are_told(photos: Path, listed: Path) -> None:
    (photos / "readme.txt").touch()
    (photos / ".hidden.jpg").touch()
    assert "left alone: 1 other file: readme.txt" in "\n".join(dataset(photos, listed).notes)


def coco_file(folder: Path, names: dict[str, str]) -> Path:
    """The annotations of SHOWN, its categories under other names."""
    path = folder.parent / "instances.json"
    categories = [{"id": number, "name": names.get(name, name)} for number, name in enumerate(NAMES)]
    images = [{"id": number, "file_name": name} for number, name in enumerate(SHOWN)]
    marks = [(number, NAMES.index(label)) for number, shown in enumerate(SHOWN.values()) for label in shown]
    annotations = [
        {"id": number, "image_id": image, "category_id": category} for number, (image, category) in enumerate(marks)
    ]
    path.write_text(json.dumps({"categories": categories, "images": images, "annotations": annotations}))
    return path


def test_a_coco_file_that_lists_absent_categories_leaves_the_others_open(photos: Path) -> None:
    """As our own export and LVIS write it: some photos are annotated for seen labels only."""
    path = coco_file(photos, {})
    content = json.loads(path.read_text())
    shown = list(SHOWN.values())
    for image in content["images"]:
        known = NAMES[:2] if image["id"] % 4 < 2 else NAMES
        labels = [NAMES.index(label) for label in known if label not in shown[image["id"]]]
        image["neg_category_ids"] = labels
    path.write_text(json.dumps(content))
    truths = read_truths(path, photos, find_photos(photos), SPACE)
    for place, (name, labels) in enumerate(SHOWN.items()):
        known = {*NAMES[:2], *labels} if place % 4 < 2 else set(NAMES)
        assert truths[name] == {label: int(label in labels) for label in known}
    assert sum(dataset(photos, path).sizes.values()) == len(SHOWN)


@pytest.mark.parametrize("name", ["mug", "sofa"])  # seen, unseen
def test_a_coco_category_in_another_case_is_the_cause_that_is_told(photos: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"no category '{name}' \(there is '{name.title()}'\)"):
        dataset(photos, coco_file(photos, {name: name.title()}))


def test_a_seen_label_without_any_annotation_is_the_cause_that_is_told(photos: Path) -> None:
    with pytest.raises(ValueError, match="annotates no photo for mug: annotate them there, give each label"):
        dataset(photos, coco_file(photos, {"mug": "beaker"}))


def test_labels_as_people_name_them_are_read_from_every_kind_of_annotations(photos: Path) -> None:
    new = dict(zip(NAMES, ("T-shirt", "men's shoe", "杯子", "Стол"), strict=True))
    aliases = {"杯子": ["cup", "beaker"]}
    labels = [{"name": new[n], "seen": n in NAMES[:2], "aliases": aliases.get(new[n], [])} for n in NAMES]
    space = LabelSpace.model_validate({"name": "people's", "labels": labels})
    rows = [f"{name},{'; '.join(new[label] for label in shown)}" for name, shown in SHOWN.items()]
    columns = [",".join([name, *(str(int(label in shown)) for label in NAMES)]) for name, shown in SHOWN.items()]
    tables = [
        write_csv(photos, ["image,labels", *rows]),
        coco_file(photos, new | {"lamp": " men's  shoe", "sofa": "beaker"}),
    ]
    found = [dataset(photos, table, space).splits for table in tables]
    found.append(dataset(photos, write_csv(photos, [f"image,{','.join(new.values())}", *columns]), space).splits)
    assert found[0] == found[1] == found[2]
    assert all(len(photos) for photos in found[0].values())


def test_folders_are_labels_whatever_their_case_and_hyphens(photos: Path) -> None:
    space = LabelSpace.model_validate(
        {"name": "s", "labels": [{"name": name, "seen": False} for name in ("T-shirt", "sofa", "key")]}
    )
    for place, path in enumerate(sorted(photos.glob("*.jpg"))):
        folder = photos / ("t shirt", "SOFA", "Key")[place % 3]
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    data = dataset(photos, "folders", space)
    assert sum(data.sizes.values()) == len(SHOWN)
    assert not [note for note in data.notes if "no label" in note]


@pytest.mark.parametrize("write", ["./{}", "sub\\..\\{}", ".\\{}", "  {} "])
def test_file_names_may_be_written_as_other_systems_do(photos: Path, write: str) -> None:
    table = write_csv(photos, ["image,labels", *(f"{write.format(n)},{'; '.join(s)}" for n, s in SHOWN.items())])
    assert sum(dataset(photos, table).sizes.values()) == len(SHOWN)


def test_a_kind_of_file_that_is_not_read_is_the_cause_that_is_told(photos: Path) -> None:
    (photos / "camera.CR2").touch()
    with pytest.raises(ValueError, match=r"camera.CR2 \(its kind is not read: convert it, .avif, .*.jfif"):
        dataset(photos, write_csv(photos, ["image,labels", "camera.CR2,mug"]))


def test_a_byte_order_mark_and_empty_lines_change_nothing(photos: Path, listed: Path) -> None:
    expected = dataset(photos, listed).splits
    listed.write_bytes(BOM_UTF8 + listed.read_bytes() + b"\r\n,\n\n")
    assert dataset(photos, listed).splits == expected
    table = coco_file(photos, {})
    expected = dataset(photos, table).splits
    table.write_bytes(BOM_UTF8 + table.read_bytes() + b"\n\n")
    assert dataset(photos, table).splits == expected


def test_labels_with_hardly_a_photo_for_their_thresholds_are_named(photos: Path) -> None:
    """A run of 60 photos and the default share ended after generation: no held-out photo showed the label."""
    config = Config(images=photos, val_share=0.2, test_share=0.3, annotations=photos / "any.csv")
    truths = {f"{n}.jpg": dict.fromkeys(NAMES, 0) | {"mug": n % 2, "lamp": int(n < 4)} for n in range(60)}
    (note,) = few_held_out(truths, config, SPACE, held_out_share=0.1)
    assert "mug (about 1.5), lamp (about 0.2)" in note
    (note,) = few_held_out(truths, config, SPACE, held_out_share=0.4)
    assert note.endswith("of one kind: lamp (about 0.8)")
    assert not few_held_out(truths, config, ALL_UNSEEN, held_out_share=0.1)
    with_sofa = {name: truth | {"sofa": truth["mug"]} for name, truth in truths.items()}  # so no mug is trained on
    (note,) = few_held_out(with_sofa, config, SPACE, held_out_share=0.4)
    assert "mug (about 0.0)" in note


def test_thousands_of_labels_are_looked_up_once_and_not_for_every_photo(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [{"name": f"label {number}", "seen": number > 3} for number in range(2000)]
    space = LabelSpace.model_validate({"name": "many", "labels": labels})
    rows = [f"{name},label {number}; label {number + 64}" for number, name in enumerate(SHOWN)]
    looked_up: list[str] = []
    wordings = LabelSpace.wordings
    monkeypatch.setattr(LabelSpace, "wordings", lambda self, name: [looked_up.append(name), wordings(self, name)][1])
    table = write_csv(photos, ["image,labels", *rows])
    truths = read_truths(table, photos, find_photos(photos), space)
    assert [name for name, present in truths["001.jpg"].items() if present] == ["label 1", "label 65"]
    assert len(looked_up) <= len(labels)
    with pytest.raises(ValueError, match="no category 'label 0', 'label 1', 'label 2', 'label 3' in"):
        read_truths(coco_file(photos, {}), photos, find_photos(photos), space)
    assert len(looked_up) <= len(labels)
    with pytest.raises(ValueError, match=r"Unknown label: 'lable 9'. Did you mean .*Choices: .* and 1950 more"):
        read_truths(write_csv(photos, ["image,labels", "000.jpg,lable 9"]), photos, find_photos(photos), space)
