"""What goes with every export: which data, how good, which threshold, whose weights, what it cannot do.

After Mitchell et al., "Model cards for model reporting", FAT* 2019. Everything in it is read from the run; what the run
does not know is said to be unknown.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mvtec_tf import files
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation.metrics import Metric, with_limits
from mvtec_tf.run_directory import read_run
from mvtec_tf.serving.settings import NOT_STATED, ExportOptions

_KERAS_WEIGHTS = (
    "The ImageNet weights that Keras distributes with keras.applications; the documentation of Keras names the licence "
    "of each network's weights, and ImageNet gives its images for non-commercial research only."
)
_MODEL_KEYS = (
    "name",
    "version",
    "kind",
    "image_size",
    "categories",
    "types",
    "max_pixels",
    "signatures",
    "stages",
    "batch_norm",
)


def build(run_dir: pathlib.Path, card: Mapping[str, Any], options: ExportOptions) -> dict[str, Any]:
    """The card of an export, as JSON.

    Args:
      run_dir: the run; an encoder's has no metrics.json.
      card: the export's facts of itself, see `export.export_run`.
      options: what the person who exports says of licences.

    Raises:
      UserError: the run's own record cannot be read.
    """
    run = read_run(run_dir)
    metrics_file = run_dir / "metrics.json"
    metrics = files.read_json(metrics_file) if metrics_file.exists() else None
    weights = _weights(run.get("settings", {}), run, options)
    # What the score is measured in, where the run says it.
    unit = {"score": run["score_unit"]} if "score_unit" in run else {}
    return {
        "model": {key: card[key] for key in _MODEL_KEYS if key in card} | unit,
        "data": _data(run, metrics, options),
        "metrics": _metrics(metrics),
        "threshold": card.get("thresholds"),
        "formats": card.get("formats", {}),
        "weights": weights,
        "limits": _limits(card, run, metrics, weights["loaded"]),
        "repeat": {
            "program": run.get("binary"),
            "command": f"python -m mvtec_tf.bin.{run.get('binary')} --flagfile=flags.txt",
            "flags": (run_dir / "flags.txt").read_text(encoding="utf-8").splitlines(),
        },
        "versions": run.get("versions", {}),
    }


def render(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    model, data, repeat = card["model"], card["data"], card["repeat"]
    name = f"{model['name']}, version {model['version']}" if "name" in model else "Model"
    parts = [
        f"# Model card: {name}",
        "## Model",
        _list(model),
        "## Data and protocol",
        _list(data),
        "## Metrics",
        _metrics_text(card["metrics"]),
        "## Threshold",
        _threshold_text(card["threshold"]),
        "## Formats",
        _formats_text(card.get("formats", {})),
        "## Weights",
        _list(card["weights"]),
        "## Known limits",
        "\n".join(f"- {limit}" for limit in card["limits"]),
        "## The command that repeats it",
        f"`flags.txt` lies beside this card; give it the folder of your data and a new run directory.\n\n"
        f"```sh\n{repeat['command']}\n```",
        "```\n" + "\n".join(repeat["flags"]) + "\n```",
        "## Versions",
        _list(card["versions"]),
    ]
    return "\n\n".join(parts) + "\n"


def _data(run: Mapping[str, Any], metrics: Mapping[str, Any] | None, options: ExportOptions) -> dict[str, Any]:
    settings, data = run.get("settings", {}), run.get("data", {})
    found = {
        "categories": data.get("categories"),
        "images": data.get("images"),
        "fingerprint": data.get("fingerprint"),
        "protocol": settings.get("protocol"),
        "label_budget": settings.get("label_budget"),
        "labelled_test_images": run.get("labels_used"),
        "defective_among_them": run.get("labelled_defects"),
        "seed": settings.get("seed"),
        "licence": options.data_licence,
    }
    if metrics:
        counts = {split: count for split, count in metrics.get("counts", {}).items() if count["images"]}
        found["images_by_use"] = {
            split: f"{counted(count['images'], 'image')}, {count['defective']} of them defective"
            for split, count in counts.items()
        }
    return {key: value for key, value in found.items() if value is not None}


def _metrics(metrics: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if metrics is None:
        return None
    idle = metrics["trivial"]["always_defective"]
    return {
        "summary": metrics["summary"],
        "verdict": metrics["verdict"],
        "intervals": metrics.get("intervals"),
        "overall": _forms(metrics["overall"]),
        "always_defective": _forms(idle["overall"]),
        "categories": {name: _forms(found) for name, found in metrics["categories"].items()},
    }


def _forms(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {end: metric.get(end) for end in ("value", "low", "high")}
        for name, metric in found.items()
        if metric["value"] is not None
    }


def _weights(settings: Mapping[str, Any], run: Mapping[str, Any], options: ExportOptions) -> dict[str, Any]:
    weights = settings.get("weights")
    found: dict[str, Any] = {"loaded": run.get("network", {}).get("weights", NOT_STATED)}
    if settings.get("encoder"):
        return found | _encoder(pathlib.Path(settings["encoder"]), options)
    licence = options.weights_licence
    if weights == "imagenet":
        found["origin"] = _KERAS_WEIGHTS
    elif weights in (None, "none"):
        found["origin"] = "a random start; no weights of others are in this model"
        licence = "none needed" if licence == NOT_STATED else licence
    else:
        file = pathlib.Path(weights)
        found["origin"] = f"the file {file.name}"
        gone = "unknown: the file was not there at the time of the export"
        found["sha256"] = files.sha256(file) if file.is_file() else gone
    return found | {"licence": licence}


def _encoder(path: pathlib.Path, options: ExportOptions) -> dict[str, Any]:
    """Of a probe: what its encoder's run says of the encoder's weights."""
    if not (path / "run.json").is_file():
        return {"origin": f"the encoder {path.name}, whose run was not there", "licence": options.weights_licence}
    run = read_run(path)
    own = {key: value for key, value in run.get("settings", {}).items() if key != "encoder"}
    return {"encoder": f"{path.name}, a run of {run.get('binary')}"} | _weights(own, run, options)


def _limits(
    card: Mapping[str, Any], run: Mapping[str, Any], metrics: Mapping[str, Any] | None, loaded: str
) -> list[str]:
    size = card.get("image_size")
    categories = run.get("data", {}).get("categories") or card.get("categories") or []
    limits = []
    if categories:
        limits.append(
            f"It knows {', '.join(categories)}. An image of anything else, or in another light, gets a score too, "
            "and that score means nothing."
        )
    if size:
        height, width = (size, size) if isinstance(size, int) else size
        size = f"{height} x {width} pixels (height x width)"
        limits.append(f"Every image is resized to {size}: what cannot be seen there is not found.")
    if card["kind"] == "encoder":
        return [*limits, "It gives features, not verdicts: a head has to be fitted on them."]
    if not card.get("gives_probability", True):
        unit = f", it is {run['score_unit']}" if "score_unit" in run else ""
        limits.append(f"It answers no probability; its score is none{unit}.")
    if "explain" in card.get("signatures", ()):
        limits.append("A heat map shows which parts of the image the score rests on, not the outline of a defect.")
    if "RANDOM" in loaded:
        limits.append(f"Not all layers started from the weights file. {loaded}")
    if metrics is None:
        return [*limits, "It was not judged."]
    evaluated = metrics.get("counts", {}).get("evaluate")
    if evaluated:
        limits.append(
            f"It was judged on {counted(evaluated['images'], 'image')} ({evaluated['defective']} defective) of one "
            "training run; the intervals say nothing of another seed, another draw of labels or another camera."
        )
    if metrics.get("not_judged"):
        limits.append(f"Not judged: {', '.join(metrics['not_judged'])}.")
    for name, own in [("", metrics["threshold"]), *metrics["threshold"].get("categories", {}).items()]:
        if own.get("warning"):
            limits.append(f"The threshold{f' of {name}' if name else ''} is not to be relied on: {own['warning']}.")
    return limits


def _list(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {key.replace('_', ' ')}: {_text(value)}" for key, value in facts.items())


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_text(own)}" for key, own in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _metrics_text(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return "None: this model gives features, not verdicts."
    columns = [("all images", metrics["overall"])]
    if len(metrics["categories"]) > 1:
        columns += list(metrics["categories"].items())
    columns.append(("call everything defective", metrics["always_defective"]))
    lines = [
        "| | " + " | ".join(title for title, _ in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in metrics["overall"]:
        cells = (with_limits(Metric(**found[name])) if found.get(name) else "-" for _, found in columns)
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return f"{metrics['summary']}\n\n" + "\n".join(lines) + "\n\nIn brackets: 95 % intervals."


def _threshold_text(threshold: Mapping[str, Any] | None) -> str:
    if threshold is None:
        return "None."
    text = f"A score of {threshold['value']:.6g} or more is called defective: {threshold['origin']}."
    for name, (low, high) in threshold.get("unsure", {}).items():
        where = f"Of {name or 'all'}{' others' if not name and len(threshold['unsure']) > 1 else ''}"
        what = f"scores from {low:.6g} up to {high:.6g} are unsure" if low < high else "no score is unsure"
        text += f"\n\n{where}: {what}, those from {high:.6g} on are defective."
    own = "\n".join(f"- {name}: {value:.6g}" for name, value in threshold["categories"].items())
    return text if not own else f"Each category has its own; the model tells the category from the image.\n\n{own}"


def _formats_text(formats: Mapping[str, Mapping[str, Any]]) -> str:
    text = "A SavedModel."
    if formats:
        text += " Beside it, each tried on the evaluated images and beside the SavedModel's answers to them:"
    return "\n".join([text, *([""] * bool(formats)), *(f"- {name}: {_text(found)}" for name, found in formats.items())])


def write(directory: pathlib.Path, card: Mapping[str, Any]) -> None:
    """Writes `model_card.json` and `model_card.md`."""
    files.write_json(directory / "model_card.json", dict(card))
    files.write_text(directory / "model_card.md", render(card))
