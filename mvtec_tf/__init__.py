"""Industrial defect detection: supervised and self-supervised learning, judged side by side."""

import os

# Before anything here imports Keras: it stands above the user's keras.json, see keras_settings.
os.environ["KERAS_BACKEND"] = "tensorflow"

__version__ = "0.1.0"
