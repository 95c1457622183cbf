"""Compares the figures of two states of the code, metrics.json and predictions.csv of small runs, to the last digit.

  python -m tools.same_figures --first=CHECKOUT --second=CHECKOUT --out=results/same
  python -m tools.same_figures --first=... --second=... --out=... --data_dir=$DATA/bottle --weights=FILE

The binaries of each checkout run both approaches, three heads and a grid, on the toy factory or on the folder given.
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

_SMALL = ("--backbone=resnet10", "--weights=none", "--image_size=64")
# What a run says of the machine and of the moment.
_PASSING = ("seconds", "time", "version", "git", "commit", "date", "duration")


def main() -> None:
    """Runs what is missing, prints every figure that differs, and ends with 1 where one does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=pathlib.Path, required=True, help="checkout of the state before")
    parser.add_argument("--second", type=pathlib.Path, required=True, help="checkout of the state after")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the runs; finished ones are kept")
    parser.add_argument("--data_dir", type=pathlib.Path, help="a category; unset: the toy factory")
    parser.add_argument("--weights", help="weights of ResNet-50 for the runs on data_dir")
    asked = parser.parse_args()
    out = asked.out.resolve()
    data = asked.data_dir.resolve() if asked.data_dir else out / "toy"
    if not data.exists():
        _run(asked.first, "make_toy", f"--out={data}", "--image_size=64", "--seed=0")
    network = ("--image_size=224", f"--weights={asked.weights}") if asked.weights else _SMALL
    for name, checkout in (("first", asked.first), ("second", asked.second)):
        for job in _jobs(data, out / name, network):
            _run(checkout, *job)
    differing = list(_differences(out / "first", out / "second"))
    print("\n".join(differing) or "No figure differs.")
    sys.exit(bool(differing))


def _jobs(data: pathlib.Path, out: pathlib.Path, network: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    given, small = f"--data_dir={data}", ("--backbone=resnet10", "--weights=none", "--image_size=32")
    yield "train_cnn", given, *small, "--epochs=1", "--batch_size=16", f"--run_dir={out}/cnn"
    yield "train_simclr", given, *small, "--epochs=1", "--batch_size=16", f"--run_dir={out}/simclr"
    yield "fit_probe", given, f"--encoder={out}/simclr", "--head=logistic", f"--run_dir={out}/probe"
    for head in ("logistic", "fused", "patchcore"):
        yield "fit_probe", given, *network, f"--head={head}", "--heatmaps", f"--run_dir={out}/{head}"
    yield "fit_baseline", given, "--features=mean_brightness", f"--run_dir={out}/baseline"
    yield (
        *("label_efficiency", given, *network, "--heads=logistic,mahalanobis", "--budgets=0,0.25", "--seeds=2"),
        f"--run_dir={out}/grid",
    )
    yield "compare", f"--runs=cnn={out}/cnn,probe={out}/probe", f"--out={out}/comparison"


def _run(checkout: pathlib.Path, name: str, *flags: str) -> None:
    command = [sys.executable, "-m", f"mvtec_tf.bin.{name}", *flags]
    where = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(command, cwd=checkout, env=where, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} in {checkout} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")


def _differences(first: pathlib.Path, second: pathlib.Path) -> Iterator[str]:
    kinds = ("metrics.json", "predictions.csv", "*efficiency*.json", "comparison.json")
    files = {path.relative_to(root) for root in (first, second) for kind in kinds for path in root.rglob(kind)}
    for file in sorted(files):
        if not (first / file).exists() or not (second / file).exists():
            yield f"{file}: in one state only"
            continue
        one, other = dict(_values(first / file)), dict(_values(second / file))
        for name in sorted(one.keys() | other.keys()):
            before = str(one.get(name)).replace(str(first), "")
            after = str(other.get(name)).replace(str(second), "")
            if before != after and not any(word in name for word in _PASSING):
                yield f"{file}: {name}: {before} -> {after}"


def _values(path: pathlib.Path) -> Iterator[tuple[str, object]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                yield from ((f"line {number}, {name}", value) for name, value in row.items())
    else:
        yield from _leaves(json.loads(path.read_text("utf-8")), "")


def _leaves(value: object, name: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{name}/{key}")
    else:
        yield name, value


if __name__ == "__main__":
    main()
