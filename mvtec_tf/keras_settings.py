"""Keras as this package needs it, whatever the user's `keras.json` says. Every module gets Keras from here.

That file is read when Keras is first imported and rules everything that is built later: `channels_first` turns the
networks' axes, another float type or epsilon gives other scores, another backend has no TensorFlow graph to export.
"""

import contextlib
from collections.abc import Iterator

import keras

from mvtec_tf.errors import UserError

FLOAT = "float32"
EPSILON = 1e-7
DATA_FORMAT = "channels_last"


def apply() -> None:
    """Sets data format, float type and epsilon, and checks the backend.

    Raises:
      UserError: Keras was imported before, with another backend than TensorFlow.
    """
    if (backend := keras.backend.backend()) != "tensorflow":
        raise UserError(
            f"Keras is running on {backend!r}, and mvtec_tf needs TensorFlow. Import mvtec_tf before keras, or start "
            "again with KERAS_BACKEND=tensorflow."
        )
    if keras.config.floatx() != FLOAT:
        keras.config.set_floatx(FLOAT)
        # The policy of layers may have been made of the other type already.
        keras.config.set_dtype_policy(FLOAT)
    keras.config.set_epsilon(EPSILON)
    keras.config.set_image_data_format(DATA_FORMAT)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keras as this package needs it while something runs, whatever a notebook has set; then as it was before.

    Raises:
      UserError: as `apply`.
    """
    config = keras.config
    policy, floatx, epsilon, data_format = (
        config.dtype_policy(),
        config.floatx(),
        config.epsilon(),
        config.image_data_format(),
    )
    try:
        apply()
        config.set_dtype_policy(FLOAT)
        yield
    finally:
        config.set_floatx(floatx)
        config.set_dtype_policy(policy)
        config.set_epsilon(epsilon)
        config.set_image_data_format(data_format)


apply()
