"""Label Studio: tasks with our scores as predictions, least certain first; photos' annotations as annotations.

Start it with LOCAL_FILES_SERVING_ENABLED=true and LOCAL_FILES_DOCUMENT_ROOT=FOLDER, make a project with
`label_config.xml` and import `tasks.json`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel, TypeAdapter

from tailorset.exports import Corrections, ExportedImage, ExportedSet
from tailorset.exports.parts.files import as_json, write_entries
from tailorset.exports.parts.files import write_files as write_images
from tailorset.records import Split

__all__ = ["place", "read", "recognises", "write_images", "write_labels"]
FROM, TO = "labels", "image"  # names of the two controls in the label config
LOCAL_FILES = "/data/local-files/?d="
UNSCORED = 2.0  # after every certainty


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"images/{image_id}.png"


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write the tasks and the label config."""
    choices = "".join(f"    <Choice value={quoteattr(label)}/>\n" for label in exported.labels)
    config = (
        f'<View>\n  <Image name="{TO}" value="${TO}"/>\n'
        f'  <Choices name="{FROM}" toName="{TO}" choice="multiple">\n{choices}  </Choices>\n</View>\n'
    )
    (folder / "label_config.xml").write_text(config, encoding="utf-8", newline="")
    write_entries(folder / "tasks.json", "[\n", _least_certain_first(folder, exported), "\n]\n")


def _least_certain_first(folder: Path, exported: ExportedSet) -> Iterator[str]:
    """Yield the tasks in the order of review; only their places in a file are sorted in memory."""
    unsorted, ends, certainties = folder / ".tasks.unsorted", array("q", [0]), array("d")
    try:
        with unsorted.open("wb") as file:
            for image in exported.images():
                file.write(as_json(_task(image)).encode())
                ends.append(file.tell())
                certainties.append(UNSCORED if image.certainty is None else image.certainty)
        with unsorted.open("rb") as file:
            for number in sorted(range(len(certainties)), key=certainties.__getitem__):
                file.seek(ends[number])
                yield file.read(ends[number + 1] - ends[number]).decode()
    finally:
        unsorted.unlink(missing_ok=True)


def _task(image: ExportedImage) -> dict[str, object]:
    data = {TO: LOCAL_FILES + quote(image.file)} | {key: getattr(image, key) for key in ("file", "split", "source")}
    task: dict[str, object] = {"data": data | {"prompt": image.prompt or ""}}
    if image.scores:
        result = _choices(image.predicted, image.certainty)
        prediction = {"model_version": image.scored_by, "score": image.certainty, "result": result}
        task["predictions"] = [prediction]
    if image.source == "real" and image.annotated:
        task["annotations"] = [{"result": _choices(image.labels)}]
    return task


def _choices(labels: list[str], score: float | None = None) -> list[dict[str, object]]:
    if not labels:
        return []
    result: dict[str, object] = {"type": "choices", "from_name": FROM, "to_name": TO, "value": {"choices": labels}}
    return [result if score is None else result | {"score": score}]


class _Result(BaseModel):
    type: str = ""
    value: dict[str, Any] = {}

    def chosen(self) -> list[str]:
        if self.type.endswith("labels") or self.type == "taxonomy":  # e.g. boxes: all labels would count as absent
            raise ValueError(f"labels are given as {self.type}: annotate with the choices of label_config.xml instead")
        choices = self.value.get("choices") if self.type == "choices" else ()
        if not isinstance(choices, list | tuple) or not all(isinstance(choice, str) for choice in choices):
            raise ValueError(f"choices are {choices!r}, not a list of labels: export in the form JSON")
        return list(choices)


class _Annotation(BaseModel):
    result: list[_Result] | None = None
    was_cancelled: bool | None = False

    def labels(self) -> list[str]:
        return [label for result in self.result or () for label in result.chosen()]


class _Task(BaseModel):
    id: Any = None
    data: dict[str, Any] = {}
    annotations: list[_Annotation] | None = None

    def name(self) -> str:
        """Return the name of the photo: our own, or the end of its address."""
        if file := self.data.get("file"):
            return str(file)
        address = self.data.get(TO)
        if not isinstance(address, str):
            raise ValueError(f"task {self.id} has no `{TO}`: export in the form JSON, not JSON-MIN")
        parts = urlsplit(address)
        return unquote(parts.query.removeprefix("d=") if parts.path.endswith("local-files/") else parts.path)


def recognises(path: Path, content: Any) -> bool:
    """Check for a list of tasks."""
    return isinstance(content, list) and bool(content) and all(isinstance(task, dict) for task in content)


def read(path: Path, content: Any) -> Corrections:
    """Read an export in the form JSON: the last annotation of each task that was not cancelled.

    Raises:
        ValueError: no task is annotated, or two tasks of a photo differ.
    """
    shown: dict[str, list[str]] = {}
    num_several = num_left = 0
    for task in TypeAdapter(list[_Task]).validate_python(content):
        done = [one for one in task.annotations or () if not one.was_cancelled]
        num_several += len(done) > 1
        if not done:
            num_left += 1
            continue
        name, labels = task.name(), done[-1].labels()
        if sorted(shown.setdefault(name, labels)) != sorted(labels):
            raise ValueError(f"{path}: {name} is in two tasks, with other labels: delete one of them")
    if not shown:
        raise ValueError(f"{path}: none of {len(content)} tasks is annotated: submit some, and export them as JSON")
    notes = []
    if num_left:
        notes.append(f"tasks left out, as not annotated yet: {num_left:,}")
    if num_several:
        notes.append(f"tasks with several annotations, of which the last one counts: {num_several:,}")
    return Corrections(shown, None, tuple(notes))
