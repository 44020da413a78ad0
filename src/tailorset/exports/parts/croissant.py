"""Croissant 1.1: croissant.json describes an export's files, fields, origin (PROV-O), licences, use and limits.

Source: http://mlcommons.org/croissant/1.1, http://mlcommons.org/croissant/RAI/1.0
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tailorset.records import SPLITS
from tailorset.storage.checksums import file_digest
from tailorset.storage.files import write_json

FILE = "croissant.json"
VERSION = "http://mlcommons.org/croissant/1.1"
FORMATS = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".md": "text/markdown",
    ".npy": "application/octet-stream",
    ".parquet": "application/x-parquet",
    ".png": "image/png",
    ".tar": "application/x-tar",
    ".xml": "application/xml",
}
MANY = (".png", ".tar", ".parquet")  # described as sets of files
SPLIT_TERMS = dict(zip(SPLITS, ("cr:TrainingSplit", "cr:ValidationSplit", "cr:TestSplit"), strict=True))
FIELDS = {  # of images.jsonl: type, whether it is a list, description
    "image_id": ("sc:Text", False, "Name of the image"),
    "file": ("sc:Text", False, "File that holds it"),
    "split": ("sc:Text", False, "Its split"),
    "source": ("sc:Text", False, "real (a photo) or synthetic (generated)"),
    "width": ("sc:Integer", False, "Width in pixels"),
    "height": ("sc:Integer", False, "Height in pixels"),
    "sha256": ("sc:Text", False, "Checksum of its PNG file"),
    "labels": ("sc:Text", True, "Labels that it shows"),
    "absent": ("sc:Text", True, "Labels that it does not show; all others are not annotated"),
    "predicted": ("sc:Text", True, "Labels that `scored_by` takes for present"),
    "scored_by": ("sc:Text", False, "Model of the scores"),
    "prompt": ("sc:Text", False, "Text that it was drawn from"),
    "seed": ("sc:Text", False, "Seed of its noise, a hexadecimal number"),
    "requested": ("sc:Text", True, "Labels that it was asked to show"),
    "confidence": ("sc:Float", False, "Smallest probability of a requested label, by the discriminator"),
    "judge_confidence": ("sc:Float", False, "The same, by the judge, which chose nothing"),
}
PER_IMAGE = {"prompt": "prov:wasDerivedFrom", "scored_by": "prov:wasAttributedTo"}
CONTEXT: dict[str, object] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "annotation": "cr:annotation",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "excludes": "cr:excludes",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "odrl": "http://www.w3.org/ns/odrl/2/",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "readLines": "cr:readLines",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "sdVersion": "cr:sdVersion",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
    "unArchive": "cr:unArchive",
    "value": "cr:value",
}


@dataclass(frozen=True)
class Agent:
    """A model or program that took part. name: as people know it; role: its part; details: version, licence, hash."""

    role: str
    name: str
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Activity:
    """A step that made the set: its settings, the agents that took part, the files that it used by their sha256."""

    title: str
    settings: Mapping[str, object]
    agents: Sequence[Agent] = ()
    used: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """Facts about a set that its files do not hold.

    licences: titles or addresses. usage: clauses on its use. activities: first one first. rai: terms of the RAI
    vocabulary. url, published: known once it is published.
    """

    name: str
    text: str
    version: str
    licences: Sequence[str]
    usage: Sequence[str]
    activities: Sequence[Activity]
    rai: Mapping[str, str | Sequence[str]]
    cite_as: str = ""
    url: str = ""
    published: str = ""


def write_description(folder: Path, labels: tuple[str, ...], description: Description) -> None:
    """Write croissant.json next to the files that it describes."""
    write_json(folder / FILE, _dataset(description) | {"distribution": _files(folder), "recordSet": _records(labels)})


def _dataset(description: Description) -> dict[str, Any]:
    dataset = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSION,
        "name": description.name,
        "description": description.text,
        "version": description.version,
        "license": list(description.licences),
        "usageInfo": [{"@type": ["CreativeWork", "odrl:Offer"], "description": text} for text in description.usage],
        "creator": {"@type": "Organization", "name": "tailorset"},
        "citeAs": description.cite_as,
        "url": description.url,
        "datePublished": description.published,
        "prov:wasGeneratedBy": _provenance(description.activities),
        "prov:wasAttributedTo": {"@type": "prov:SoftwareAgent", "@id": "agent/tailorset", "prov:label": "tailorset"},
    }
    rai = {f"rai:{key}": list(text) if not isinstance(text, str) else text for key, text in description.rai.items()}
    return {key: value for key, value in (dataset | rai).items() if value}


def _provenance(activities: Sequence[Activity]) -> dict[str, Any]:
    """Return the last activity, with the one before it inside, and so on."""
    node: dict[str, Any] = {}
    for number, activity in enumerate(activities):
        before = node
        node = {
            "@type": "prov:Activity",
            "@id": f"activity/{number}",
            "prov:label": activity.title,
            "prov:wasAssociatedWith": [_agent(f"agent/{number}-{at}", one) for at, one in enumerate(activity.agents)],
            "prov:used": [_property(f"activity/{number}/{key}", key, one) for key, one in activity.settings.items()]
            + [_entity(path, digest) for path, digest in activity.used.items()],
        }
        if before:
            node["prov:wasInformedBy"] = before
    return node


def _agent(node: str, agent: Agent) -> dict[str, Any]:
    described = [_property(f"{node}/{key}", key, value) for key, value in agent.details.items()]
    return {
        "@type": "prov:SoftwareAgent",
        "@id": node,
        "prov:label": agent.name,
        "prov:hadRole": agent.role,
        "additionalProperty": described,
    }


def _property(node: str, key: str, value: object) -> dict[str, Any]:
    return {"@type": ["prov:Entity", "PropertyValue"], "@id": node.replace(" ", "_"), "prov:label": f"{key}: {value}"}


def _entity(path: str, digest: str) -> dict[str, Any]:
    return {"@type": "prov:Entity", "@id": f"used/{path}", "prov:label": path, "sha256": digest}


def _files(folder: Path) -> list[dict[str, Any]]:
    """Describe every file: those with labels one by one, pictures as sets."""
    sets: set[tuple[str, str]] = set()
    single = []
    for name in _names(folder):
        parent, suffix = os.path.dirname(name) or ".", os.path.splitext(name)[1]
        if suffix in MANY:
            sets.add((parent, suffix))
        elif name != FILE:
            single.append(Path(name))
    return [_file(folder, name) for name in sorted(single)] + [_file_set(*one) for one in sorted(sets)]


def _names(folder: Path, parent: str = "") -> Iterator[str]:
    """Yield the files below a folder, relative to it; `Path.rglob` would keep them all."""
    with os.scandir(folder / parent) as entries:
        for entry in entries:
            name = f"{parent}/{entry.name}" if parent else entry.name
            yield from _names(folder, name) if entry.is_dir() else [name]


def _file(folder: Path, name: Path) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name.as_posix(),
        "name": name.as_posix(),
        "contentUrl": name.as_posix(),
        "contentSize": f"{(folder / name).stat().st_size} B",
        "encodingFormat": FORMATS[name.suffix],
        "sha256": file_digest(folder / name),
    }


def _file_set(parent: str, suffix: str) -> dict[str, Any]:
    pattern = f"*{suffix}" if parent == "." else f"{parent}/*{suffix}"
    node = f"{suffix[1:]}-files" if parent == "." else f"{parent}/{suffix[1:]}-files"
    kind = FORMATS[suffix]
    return {"@type": "cr:FileSet", "@id": node, "name": node, "encodingFormat": kind, "includes": pattern}


def _records(labels: tuple[str, ...]) -> list[dict[str, Any]]:
    names = [{"labels/name": label} for label in labels]
    splits = [{"splits/name": split, "splits/url": SPLIT_TERMS[split]} for split in SPLITS]
    return [
        _record_set("labels", "sc:Enumeration", "name", list(_inline("labels", {"name": "sc:Text"})), names),
        _record_set(
            "splits", "cr:Split", "name", list(_inline("splits", {"name": "sc:Text", "url": "sc:URL"})), splits
        ),
        _record_set("images", None, "image_id", list(_image_fields()), None),
    ]


def _record_set(
    name: str, kind: str | None, key: str, fields: list[dict[str, Any]], data: list[dict[str, str]] | None
) -> dict[str, Any]:
    record_set = {"@type": "cr:RecordSet", "@id": name, "name": name, "dataType": kind, "data": data}
    known = {key: value for key, value in record_set.items() if value}
    return known | {"key": {"@id": f"{name}/{key}"}, "field": fields}


def _inline(name: str, kinds: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for key, kind in kinds.items():
        yield {"@type": "cr:Field", "@id": f"{name}/{key}", "name": f"{name}/{key}", "dataType": kind}


def _image_fields() -> Iterator[dict[str, Any]]:
    """Yield the fields of images.jsonl."""
    for name, (kind, is_list, text) in FIELDS.items():
        described: dict[str, Any] = {
            "@type": "cr:Field",
            "@id": f"images/{name}",
            "name": f"images/{name}",
            "description": text,
        }
        described["dataType"] = ["sc:Text", "cr:Label"] if name == "labels" else kind
        described["source"] = {"fileObject": {"@id": "images.jsonl"}, "extract": {"column": name}}
        if name in PER_IMAGE:
            described["equivalentProperty"] = PER_IMAGE[name]
        if name == "split":
            described["references"] = {"field": {"@id": "splits/name"}}
        yield described | ({"repeated": True} if is_list else {})
