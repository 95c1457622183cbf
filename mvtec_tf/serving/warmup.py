"""Warm-up requests: what TensorFlow Serving sends through a model before it takes the first real request.

The first call of a signature optimises its graph and allocates its memory. With these records in
`assets.extra/tf_serving_warmup_requests` the server does that while it loads the version, and customers do not wait.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.data.decoding import pixels
from mvtec_tf.errors import UserError

# The name that the server looks for in assets.extra.
FILE = "tf_serving_warmup_requests"
# Some kernels prepare themselves for one shape: a single image, and a batch.
BATCHES = (1, 8)


def write(file: files.PathLike, signatures: Mapping[str, Any], name: str, image_size: pixels.Size) -> None:
    """Writes one record for each signature and batch size: a drawn picture, no customer's photograph.

    Args:
      file: a new file.
      signatures: of the loaded model.
      name: of the model, as the server will know it.
      image_size: of the picture.
    """
    # Imported here: only exports and servers need the protos.
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    picture = _picture(image_size)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, function in sorted(signatures.items()):
            (takes,) = function.structured_input_signature[1].values()
            for batch in BATCHES:
                request = predict_pb2.PredictRequest()
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                request.inputs[takes.name].CopyFrom(tf.make_tensor_proto(_input(takes, picture, batch)))
                log = prediction_log_pb2.PredictLog(request=request)
                writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def replay(model: Any, file: files.PathLike) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Sends the records of `file` through a loaded SavedModel: (signature, its answer) for each.

    Raises:
      UserError: a record is none that this model can answer.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    for number, record in enumerate(tf.data.TFRecordDataset(str(file)), 1):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        signature = request.model_spec.signature_name
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        try:
            answer = model.signatures[signature](**inputs)
        except (KeyError, tf.errors.OpError) as error:
            raise UserError(
                f"{pathlib.Path(file)}, record {number}: {signature} cannot answer it ({error})."
            ) from error
        yield signature, {key: value.numpy() for key, value in answer.items()}


def _picture(image_size: pixels.Size) -> np.ndarray:
    """uint8 [height, width, 3]: noise on a gradient, about as hard to decode as a photograph."""
    height, width = pixels.height_and_width(image_size)
    ramp = np.linspace(60, 180, height)
    noise = np.random.default_rng(0).normal(0, 12, (height, width, 3))
    return np.clip(ramp[:, None, None] + noise, 0, 255).astype(np.uint8)


def _input(takes: tf.TensorSpec, picture: np.ndarray, batch: int) -> np.ndarray:
    if takes.dtype == tf.uint8:
        return np.stack([picture] * batch)
    if takes.dtype == tf.string:
        return np.array([tf.io.encode_png(picture).numpy()] * batch, object)
    raise ValueError(f"expected a signature that takes encoded images or pixels. Received: {takes}")
