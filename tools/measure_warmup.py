"""How long the first request after warm-up takes beside the others. Run by hand, see tests/README.md:

python -m tools.measure_warmup --model=saved_models/NAME/VERSION --image=FILE
"""

import argparse
import pathlib
import time

import numpy as np

from mvtec_tf.graphs import saved_model
from mvtec_tf.serving import warmup
from mvtec_tf.serving.client import LocalModel


def main() -> None:
    """Prints milliseconds for the first and the later requests, with and without warm-up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--requests", type=int, default=30)
    arguments = parser.parse_args()
    image = pathlib.Path(arguments.image).read_bytes()
    for warm in (False, True):
        model = LocalModel(arguments.model)
        if warm:
            file = pathlib.Path(arguments.model) / saved_model.EXTRA / warmup.FILE
            records = len(list(warmup.replay(model._model, file)))
        milliseconds = []
        for _ in range(arguments.requests):
            start = time.monotonic()
            model("serving_default", [image])
            milliseconds.append(1000 * (time.monotonic() - start))
        what = f"after {records} warm-up records" if warm else "without warm-up"
        median = np.median(milliseconds[1:])
        print(
            f"{what}: first request {milliseconds[0]:.1f} ms, median of the others {median:.1f} ms, "
            f"first / median {milliseconds[0] / median:.2f}"
        )


if __name__ == "__main__":
    main()
