"""Measures images a second of a SavedModel in this process and over gRPC, beside one another.

python -m tools.grpc_speed --threads=1 --images=FOLDER saved_models/NAME/VERSION

The server is the tests' stand-in for TensorFlow Serving, in the same process, so that both sides' processor seconds
count and the difference is what gRPC, and the copies that it needs, cost. Requests take turns, one in the process, one
over gRPC; of the clock the fastest request of each says most where other programs run too.
"""

import argparse
import os
import pathlib
import time

import numpy as np

_BEFORE = 3


def main() -> None:
    """Prints a row of a table for each way and number of images in a request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--images", type=pathlib.Path, required=True, help="folder of PNG or JPEG files")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--requests", type=int, default=40, help="of each way and size")
    asked = parser.parse_args()
    # Before any library counts the cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.threads])

    from mvtec_tf.serving.client import LocalModel, open_server
    from tests.support.standin_server import Served, serving

    local = LocalModel(asked.model)
    contents = [file.read_bytes() for file in sorted(asked.images.rglob("*")) if file.suffix in (".png", ".jpg")]
    print("| threads | images a request | way | images/s, fastest request | images per processor second |")
    print("|---" * 5 + "|")
    with serving(Served(local._model)) as (port, _):
        ways = {"SavedModel": local, "gRPC": open_server(f"grpc://127.0.0.1:{port}/small")}
        for size in (1, 8):
            clock = {way: [] for way in ways}
            processor = {way: 0.0 for way in ways}
            for number in range(asked.requests + _BEFORE):
                batch = [contents[(number * size + one) % len(contents)] for one in range(size)]
                for way, model in ways.items():
                    start, used = time.perf_counter(), time.process_time()
                    model("serving_default", batch)
                    if number >= _BEFORE:
                        clock[way].append(time.perf_counter() - start)
                        processor[way] += time.process_time() - used
            for way in ways:
                fastest, used = size / np.min(clock[way]), size * asked.requests / processor[way]
                print(f"| {asked.threads} | {size} | {way} | {fastest:.1f} | {used:.1f} |", flush=True)


if __name__ == "__main__":
    main()
