"""An exploration as CSV tables and JSON, for programs and spreadsheets."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from mvtec_tf import files
from mvtec_tf.evaluation.report import suspects
from mvtec_tf.exploration import findings as explore_findings
from mvtec_tf.exploration.findings import Finding
from mvtec_tf.exploration.survey import Exploration

_IMAGE_COLUMNS = (
    *("path", "category", "split", "defect", "label", "group"),
    *("width", "height", "mode", "format", "frames", "file_bytes"),
    *("brightness", "contrast", "file_sha256", "pixel_sha256"),
)
_PAIR_COLUMNS = (
    *("relation", "kind", "leaks", "labels_contradict", "first", "second"),
    *("first_split", "second_split", "first_label", "second_label", "first_group", "second_group"),
    *("difference", "noise_correlation"),
)
_MASK_COLUMNS = ("path", "category", "defect", "state", "area", "mask_width", "mask_height", "reason")


def write_tables(out_dir: files.PathLike, found: Exploration) -> None:
    """Writes `images.csv`, `duplicates.csv`, `unreadable.csv` and `defect_area.csv`; each is there, if empty. And
    `suspects.csv`, if labels were looked at.

    Areas are shares of the image, 0 to 1; brightness and contrast are grey values, 0 to 255.
    """
    out_dir = pathlib.Path(out_dir)
    files.write_csv(out_dir / "images.csv", _IMAGE_COLUMNS, _images(found))
    files.write_csv(out_dir / "duplicates.csv", _PAIR_COLUMNS, _pairs(found))
    unreadable = ((one.record.path, one.reason) for one in found.unreadable)
    files.write_csv(out_dir / "unreadable.csv", ("path", "reason"), unreadable)
    files.write_csv(out_dir / "defect_area.csv", _MASK_COLUMNS, _masks(found))
    if found.suspects is not None:
        suspects.write(out_dir / suspects.FILE, found.suspects)


def document(found: Exploration, attention: Sequence[Finding], sentences: Sequence[str]) -> dict[str, Any]:
    """The content of `summary.json`: counts and everything that needs attention, by name."""
    relations = [pair.relation for pair in found.duplicates]
    return {
        "summary": " ".join(sentences),
        "images": len(found.records),
        "readable": len(found.looks),
        "unreadable": len(found.unreadable),
        "counts": [
            {"category": category, "split": split, "defect": defect, "images": images}
            for (category, split, defect), images in explore_findings.counts(found.records).items()
        ],
        "duplicate_pairs": {relation: relations.count(relation) for relation in sorted(set(relations))},
        "masks": len(found.masks),
        "attention": [
            {"kind": one.kind, "title": one.title, "text": one.text, "count": len(one.items), "items": list(one.items)}
            for one in attention
        ],
    }


def _images(found: Exploration) -> Iterable[Sequence[Any]]:
    for one in found.looks:
        record = one.record
        yield (
            *(record.path, record.category, record.split, record.defect, record.label, record.group),
            *(one.width, one.height, one.mode, one.format, one.frames, one.file_bytes),
            *(f"{one.brightness:.3f}", f"{one.contrast:.3f}", one.file_hash, one.pixel_hash),
        )


def _pairs(found: Exploration) -> Iterable[Sequence[Any]]:
    for pair in found.duplicates:
        first, second = pair.first, pair.second
        yield (
            *(pair.relation, pair.kind, int(pair.leaks), int(pair.contradicts), first.path, second.path),
            *(first.split, second.split, first.label, second.label, first.group, second.group),
            *(f"{pair.difference:.4f}", f"{pair.noise_correlation:.4f}"),
        )


def _masks(found: Exploration) -> Iterable[Sequence[Any]]:
    for mask in found.masks:
        area = "" if mask.area is None else f"{mask.area:.6f}"
        record = mask.record
        yield record.path, record.category, record.defect, mask.state, area, mask.width, mask.height, mask.reason
