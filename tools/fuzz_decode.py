"""Feeds the decoder in an exported graph with damaged and invented images. Run by hand, see tests/README.md:

    python -m tools.fuzz_decode --seconds=150

Starts from whole PNG, JPEG and BMP files of many kinds and changes, cuts and repeats their bytes. An image must be
answered with a finite score, or refused with an error that says so; anything else, a crash above all, is a find. The
inputs that led to finds are kept in a folder.
"""

import argparse
import collections
import io
import pathlib
import sys
import tempfile
import time

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from mvtec_tf.graphs import saved_model
from mvtec_tf.serving.client import BadImageError, LocalModel
from tests.support.small_run import small_classifier

_MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "BMP": ("1", "L", "P", "RGB"),
}


def _seeds() -> list[bytes]:
    """Whole files, small so that changes hit what matters."""
    ramp = np.linspace(0, 255, 12 * 9 * 3).reshape(12, 9, 3).astype(np.uint8)
    files = []
    for form, modes in _MODES.items():
        for mode in modes:
            image = Image.fromarray(ramp).convert("L" if mode == "I;16" else mode)
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257) if mode == "I;16" else image
            for more in ({}, {"exif": _exif()}) if form != "BMP" else ({},):
                buffer = io.BytesIO()
                image.save(buffer, form, **more)
                files.append(buffer.getvalue())
    return files


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    return exif.tobytes()


_PLACE = st.floats(0, 1, exclude_max=True)
_CHANGES = st.one_of(
    st.tuples(st.just("set"), _PLACE, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("insert"), _PLACE, st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("cut"), _PLACE, st.integers(1, 64)),
    st.tuples(st.just("end"), _PLACE, st.none()),
    st.tuples(st.just("number"), st.integers(8, 80), st.sampled_from([0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1])),
    st.tuples(st.just("repeat"), _PLACE, st.integers(1, 200)),
)


def _changed(content: bytes, changes: list[tuple]) -> bytes:
    data = bytearray(content)
    for kind, place, value in changes:
        at = place if kind == "number" else int(place * len(data))
        if kind == "set":
            data[at : at + len(value)] = value
        elif kind == "insert":
            data[at:at] = value
        elif kind == "cut":
            del data[at : at + value]
        elif kind == "end":
            del data[at:]
        elif kind == "number":
            data[at : at + 4] = value.to_bytes(4, "big" if value % 2 else "little")
        else:
            data += data[at : at + value]
    return bytes(data)


def main() -> int:
    """Exit status 1 if there was a find."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", default=tempfile.mkdtemp(prefix="fuzz_"), help="folder for the last input and the finds"
    )
    arguments = parser.parse_args()
    keep = pathlib.Path(arguments.keep)
    keep.mkdir(parents=True, exist_ok=True)
    if not (keep / "model").exists():
        saved_model.write_classifier(keep / "model", small_classifier(), {})
    model = LocalModel(keep / "model")
    files, ends, finds = _seeds(), collections.Counter(), []
    end = time.monotonic() + arguments.seconds
    round_number = 0

    def ask(content: bytes) -> None:
        # Before the question: a crash leaves what led to it.
        (keep / "last").write_bytes(content)
        try:
            answer = model("serving_default", [content])
        except BadImageError as error:
            ends["refused: " + " ".join(str(error).split()[:4])] += 1
        except Exception as error:
            finds.append((type(error).__name__, str(error)[:200], content))
        else:
            ends["answered"] += 1
            if not np.isfinite(answer["anomaly_score"]).all():
                finds.append(("score", str(answer), content))

    while time.monotonic() < end:
        round_number += 1

        @seed(arguments.seed + round_number)
        @settings(
            max_examples=500,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(files), st.lists(_CHANGES, min_size=1, max_size=6), st.binary(max_size=40))
        def one_round(content: bytes, changes: list[tuple], noise: bytes) -> None:
            if time.monotonic() < end:
                ask(_changed(content, changes))
                if not len(noise) % 8:
                    ask(noise)

        one_round()
    count = sum(ends.values()) + len(finds)
    print(f"{count} inputs in {arguments.seconds:g} s, seed {arguments.seed}: {len(finds)} finds.")
    for what, times in ends.most_common(12):
        print(f"{times:7d}  {what}")
    for number, (kind, words, content) in enumerate(finds):
        (keep / f"find_{number}").write_bytes(content)
        print(f"FIND {kind}: {words}; the input is {keep / f'find_{number}'}")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
