"""Measures images a second of an export, decoding included, by the SavedModel or a file for another runtime.

python -m tools.runtime_speed --threads=1 --images=FOLDER saved_models/NAME/VERSION FILE.tflite FILE.onnx FILE.xml

Each model is measured in a process of its own that may use so many cores, one image at a time. Beside the seconds of
the clock stand those of the processor: on a machine that does other things too, only these mean something.
"""

import argparse
import pathlib

import numpy as np

from mvtec_tf.serving import speed


def main() -> None:
    """Prints a row of a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--images", type=pathlib.Path, required=True, help="folder of PNG or JPEG files")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=40, help="images that are measured")
    asked = parser.parse_args()
    files = sorted(str(file) for file in asked.images.rglob("*") if file.suffix in (".png", ".jpg"))
    images = np.resize(np.array(files, object), asked.count).tolist()
    print("| model | images/s | images per processor second | median, ms | p95, ms |\n|---|---|---|---|---|")
    for model in asked.models:
        found = speed.measured(model, images, asked.threads)
        cells = model, f"{found['rate']:.2f}", f"{found['processor']:.2f}"
        print(f"| {' | '.join(cells)} | {1000 * found['median']:.1f} | {1000 * found['p95']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
