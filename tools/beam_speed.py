"""Measures judging many files by `predict` and by runners of Apache Beam: time, and memory of all processes.

python -m tools.beam_speed --model=saved_models/NAME --images=FOLDER --counts=2000,20000 --out=results/beam_speed

Files are the images of FOLDER again and again, each PNG with another comment, so that no two hold the same bytes. Each
way is measured in processes of its own, their start and the loading of the model among the seconds; beside them stands
what `predict` counts of judging alone, and with workers from their start on. `RunInference` is Beam's own
transform with batches of 8 and an inference function that makes the same rows, for comparison: it is not part of the
package.
"""

import argparse
import os
import pathlib
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterable
from typing import Any

_TWO = "--direct_num_workers=2 --direct_running_mode=multi_processing"
_WAYS = {
    "predict": [],
    "direct, in memory": ["--runner=direct"],
    "direct, two processes": ["--runner=direct", f"--beam_options={_TWO}"],
    "RunInference, two processes": [],
}
_BATCH = 8
_SIGNATURE_AND_HEADER = 33


def main() -> None:
    """Prints a row of a table for each number of images and each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", type=pathlib.Path, required=True, help="folder of PNG files")
    parser.add_argument("--counts", default="2000,20000", help="numbers of files, ascending")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="new folder")
    parser.add_argument("--ways", default=";".join(_WAYS), help="only these, separated by semicolons")
    parser.add_argument("--images_per_shard", type=int, default=512)
    parser.add_argument("--run_inference", action="store_true", help="in this process: RunInference on the files")
    asked = parser.parse_args()
    if asked.run_inference:
        _run_inference(asked.model, asked.images, asked.out)
        return
    print("| files | way | seconds | images/s of judging | processor s | command, MB | workers, MB |")
    print("|---" * 7 + "|")
    for count in map(int, asked.counts.split(",")):
        folder = asked.out / "images" / str(count)
        draw(asked.images, folder, count)
        for way in asked.ways.split(";"):
            table = asked.out / f"{way.replace(', ', '_').replace(' ', '_')}_{count}.csv"
            command = [sys.executable, "-m", "mvtec_tf.bin.predict", f"--model={asked.model}", f"--out={table}"]
            command += [*_WAYS[way], str(folder)]
            if way.startswith("direct"):
                command.append(f"--images_per_shard={asked.images_per_shard}")
            if way.startswith("RunInference"):
                command = [sys.executable, "-m", "tools.beam_speed", "--run_inference", f"--model={asked.model}"]
                command += [f"--images={folder}", f"--out={table}"]
            print(_row(count, way, command), flush=True)


def draw(source: pathlib.Path, folder: pathlib.Path, count: int) -> None:
    """Writes so many PNG files, unless they are there."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    contents = [file.read_bytes() for file in sorted(source.rglob("*.png"))]
    for number in range(count):
        body = b"tEXtnumber\0%d" % number
        comment = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        content = contents[number % len(contents)]
        head, rest = content[:_SIGNATURE_AND_HEADER], content[_SIGNATURE_AND_HEADER:]
        (folder / f"{number:07d}.png").write_bytes(head + comment + rest)


def _row(count: int, way: str, command: list[str]) -> str:
    before, start = os.times(), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    most, stop = [0, 0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.3):
            most[:] = map(max, most, _memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    said = process.communicate()[0]
    stop.set()
    watcher.join()
    seconds, after = time.monotonic() - start, os.times()
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}: {said}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    alone = re.search(r"([\d.]+) images/s", said)
    cells = f"{count:,}", way, f"{seconds:.1f}", alone[1] if alone else "", f"{used:.1f}"
    return f"| {' | '.join(cells)} | {most[0] / 1e6:.0f} | {most[1] / 1e6:.0f} |"


def _memory(root: int) -> tuple[int, int]:
    """Bytes of a process, and of all that it has started; what they share is shared out among them."""
    parents: dict[int, int] = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
    family, found = {root}, -1
    while found != len(family):
        found = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    return _share(root), sum(map(_share, family - {root}))


def _share(pid: int) -> int:
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])


def _run_inference(model: str, folder: pathlib.Path, out: pathlib.Path) -> None:
    import apache_beam
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.options.pipeline_options import PipelineOptions

    from mvtec_tf.files import csv_text
    from mvtec_tf.serving.batch import COLUMNS

    files = sorted(map(str, folder.iterdir()))
    options = PipelineOptions(_TWO.split())
    runner = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
    with apache_beam.Pipeline(runner=runner, options=options) as pipeline:
        rows = pipeline | apache_beam.Create(files) | apache_beam.Reshuffle() | RunInference(_handler(model))
        lines = rows | apache_beam.Map(lambda row: csv_text(None, [[row[name] for name in COLUMNS]]).rstrip("\n"))
        _ = lines | apache_beam.io.WriteToText(str(out), header=",".join(COLUMNS))


def _handler(model: str) -> Any:
    from apache_beam.ml.inference.base import ModelHandler

    from mvtec_tf.serving import predict
    from mvtec_tf.serving.batch import Judge
    from mvtec_tf.serving.settings import PredictSettings

    class Handler(ModelHandler):
        """Makes rows of files."""

        def load_model(self) -> Judge:
            settings = PredictSettings(model=model, out="")
            return predict.judge_of(settings, *predict.opened(settings))

        def run_inference(self, batch: Iterable[str], model: Judge, inference_args: Any = None) -> list[dict]:
            return model(list(batch))

        def batch_elements_kwargs(self) -> dict[str, int]:
            return {"min_batch_size": _BATCH, "max_batch_size": _BATCH}

    return Handler()


if __name__ == "__main__":
    main()
