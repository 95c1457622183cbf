"""Measures images a second of an export, decoding included, by the SavedModel or a file for another runtime.

python -m tools.runtime_speed --threads=1 --images=FOLDER saved_models/NAME/VERSION FILE.tflite FILE.onnx FILE.xml

Each model is measured in a process of its own that may use so many cores, one image at a time. Beside the seconds of
the clock stand those of the processor: on a machine that does other things too, only these mean something.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

# Everything that is computed once is computed by then.
_BEFORE = 3


def main() -> None:
    """Prints a row of a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--images", type=pathlib.Path, required=True, help="folder of PNG or JPEG files")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=40, help="images that are measured")
    parser.add_argument("--here", action="store_true", help="in this process, as one row of JSON")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(_measured(asked.models[0], asked.images, asked.count)))
        return
    print("| model | images/s | images per processor second | fastest image, ms |\n|---|---|---|---|")
    cores = sorted(os.sched_getaffinity(0))[: asked.threads]
    for model in asked.models:
        command = [sys.executable, "-m", "tools.runtime_speed", "--here", model]
        command += [f"--images={asked.images}", f"--count={asked.count}"]
        # Before any library counts the cores.
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
        )
        found = json.loads(done.stdout.splitlines()[-1])
        cells = model, f"{found['rate']:.2f}", f"{found['processor']:.2f}", f"{1000 * found['fastest']:.0f}"
        print(f"| {' | '.join(cells)} |", flush=True)


def _measured(path: str, folder: pathlib.Path, count: int) -> dict[str, float]:
    from mvtec_tf.serving import exchange
    from mvtec_tf.serving.client import LocalModel

    model = exchange.ExchangeModel(path) if exchange.is_file(path) else LocalModel(path)
    files = sorted(file for file in folder.rglob("*") if file.suffix in (".png", ".jpg"))
    images = [file.read_bytes() for file in np.resize(np.array(files, object), count + _BEFORE)]
    for image in images[:_BEFORE]:
        model("serving_default", [image])
    seconds, processor = [], time.process_time()
    for image in images[_BEFORE:]:
        start = time.perf_counter()
        model("serving_default", [image])
        seconds.append(time.perf_counter() - start)
    used = time.process_time() - processor
    return {"rate": count / sum(seconds), "processor": count / used, "fastest": min(seconds)}


if __name__ == "__main__":
    main()
