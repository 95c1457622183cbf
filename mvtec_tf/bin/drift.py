"""Draws whether the parts of a line have drifted: lamp, lens, fixture, and what the model sees.

python -m mvtec_tf.bin.drift --table=judged.csv --out=DIR [--model=saved_models/NAME]
python -m mvtec_tf.bin.drift --model=saved_models/NAME --folder=PHOTOGRAPHS --out=DIR --order=exif
python -m mvtec_tf.bin.drift --table=judged.csv --out=DIR --list=times.csv --column=time

The table is one that predict wrote. With a model the parts are set beside its held-out good training images, without
one beside the parts before them. Writes drift.html, drift.csv (what has moved, since when) and figures/.
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs.settings import DriftSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.drift.draw_drift", DriftSettings, DriftSettings.check)
