"""One way to ask a model, wherever it runs: a SavedModel here, or a TensorFlow Serving over gRPC or REST.

    model(signature, [file contents, ...]) -> {output: array [B, ...]}

Asking over REST needs no TensorFlow on this side.
"""

import base64
import dataclasses
import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from mvtec_tf import files
from mvtec_tf.data.decoding import refusal
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.graphs import loading

# The name that a server gives its model when it is started without one.
_DEFAULT_NAME = "default"
_PORTS = {"grpc": 8500, "http": 8501, "https": 443}
_TRY_AGAIN_AFTER_SECONDS = (0.2, 1.0)
_INPUT = "image_bytes"
# What an answer has beside float32 numbers and strings.
_WHOLE_NUMBERS = ("label", "category", "verdict")
# A request that is refused so is as wrong the next time: not allowed, not there, not served so, or sent elsewhere.
# 413 is of one image, and 400 of an image or of a signature. All else is a bad moment of the server or of a proxy.
_TOO_LARGE = 413
_WRONG_USE_OF_GRPC = frozenset(
    ("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "FAILED_PRECONDITION", "PERMISSION_DENIED", "UNAUTHENTICATED")
)
_WRONG_USE = frozenset((301, 302, 307, 308, 400, 401, 403, 404, 405, 406, 407, 410, 411, 414, 415, 422, 501))


class BadImageError(Exception):
    """The model refused an image of the batch; the message says why."""


class UnavailableError(UserError):
    """The server gives no answer now, and may give one later."""


class Model(Protocol):
    """A model that can be asked.

    Attributes:
      name: in words, for messages.
    """

    name: str

    def __call__(self, signature: str, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """The answer of a signature to B encoded images: each output [B, ...]; strings as object arrays.

        Raises:
          BadImageError: an image of the batch cannot be decoded.
          UserError: the model or the signature is not there.
          UnavailableError: the server does not answer now.
        """


class LocalModel:
    """A SavedModel in this process.

    Args:
      path: of the SavedModel, or of the folder of its versions: the newest is taken.
    """

    def __init__(self, path: files.PathLike) -> None:
        path = loading.newest(path)
        self.name = str(path)
        self._model = loading.load(path)

    def __call__(self, signature: str, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """See `Model`."""
        tf = loading.tensorflow()
        if signature not in self._model.signatures:
            raise UserError(f"{self.name}: no signature {signature!r}; it has {', '.join(self._model.signatures)}.")
        try:
            answer = loading.ask(self._model.signatures[signature], tf.constant(list(images), tf.string))
        except tf.errors.OpError as error:
            # Whatever op fails in a graph that was loaded whole, it fails on these images.
            raise BadImageError(refusal.words_of(error.message)) from error
        return {key: value.numpy() for key, value in answer.items()}


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a served model is.

    Attributes:
      scheme: grpc, http or https.
      host, port: of the server.
      model: its name there.
      version: number or label; "": the server's choice, its newest.
    """

    scheme: str
    host: str
    port: int
    model: str = _DEFAULT_NAME
    version: str = ""

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Of grpc://host:port[/MODEL[/VERSION_OR_LABEL]], or the same with http:// or https://.

        The longer form of REST addresses, http://host:port/v1/models/MODEL[/versions/3], is understood too.

        Raises:
          UsageError: it is none of these.
        """
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            parts = None
        known = parts is not None and parts.scheme in _PORTS and parts.hostname
        if not known or parts.query or parts.fragment or parts.username:
            raise UsageError(
                f"`server`={url}: expected grpc://host:port/MODEL or http://host:port/MODEL, with /VERSION or /LABEL "
                "after the model's name if it is not to be the server's choice."
            )
        path = parts.path.removesuffix(":predict").strip("/").removeprefix("v1/models/")
        steps = [step for step in path.split("/") if step not in ("", "versions", "labels")]
        if len(steps) > 2:
            raise UsageError(f"`server`={url}: expected at most MODEL/VERSION after the port, found {path!r}.")
        return cls(parts.scheme, parts.hostname, port, *map(urllib.parse.unquote, steps))

    def __str__(self) -> str:
        """The short form."""
        version = f"/{self.version}" if self.version else ""
        return f"{self.scheme}://{self.host}:{self.port}/{self.model}{version}"


class RestModel:
    """A model behind TensorFlow Serving's REST interface.

    Args:
      address: where.
      timeout: seconds for one request.
    """

    def __init__(self, address: Address, timeout: float = 60.0) -> None:
        self.name = str(address)
        version = ""
        if address.version:
            kind = "versions" if address.version.isdigit() else "labels"
            version = f"/{kind}/{urllib.parse.quote(address.version)}"
        self._path = f"/v1/models/{urllib.parse.quote(address.model)}{version}:predict"
        self._address = address
        self._timeout = timeout
        # A connection is kept for the next request, one for each thread.
        self._mine = threading.local()

    def __call__(self, signature: str, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """See `Model`."""
        instances = [{_INPUT: {"b64": base64.b64encode(image).decode()}} for image in images]
        body = json.dumps({"signature_name": signature, "instances": instances})
        status, content = _patiently(lambda: self._post(body), self.name)
        answer = _json_object(content)
        words = refusal.words_of(str(answer.get("error", "") or content[:200].decode(errors="replace")))
        # A signature that is not there is refused in the same way as an image that is none.
        if (status == 400 and "error" in answer and "signature" not in words.lower()) or status == _TOO_LARGE:
            raise BadImageError(words or f"the server refused the request (status {status})")
        predictions = answer.get("predictions")
        if status != 200 or not isinstance(predictions, list) or len(predictions) != len(images):
            raise UserError(f"`server`={self.name}: status {status}: {words}. Is it a TensorFlow Serving?")
        return _columns(predictions)

    def _post(self, body: str) -> tuple[int, bytes]:
        kind = http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
        connection = getattr(self._mine, "connection", None)
        if connection is None:
            connection = kind(self._address.host, self._address.port, timeout=self._timeout)
        self._mine.connection = None
        try:
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            status, content = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _TryAgain(f"{type(error).__name__}: {error}") from error
        self._mine.connection = connection
        if status not in (200, _TOO_LARGE, *_WRONG_USE):
            raise _TryAgain(f"status {status}: {content[:200].decode(errors='replace')}")
        return status, content


class GrpcModel:
    """A model behind TensorFlow Serving's gRPC interface, without encryption.

    Args:
      address: where.
      timeout: seconds for one request.
    """

    def __init__(self, address: Address, timeout: float = 60.0) -> None:
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self.name = str(address)
        self._address = address
        self._timeout = timeout
        # gRPC stops at 4 MiB unless told otherwise; heat maps and photographs are larger.
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(f"{address.host}:{address.port}", options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def __call__(self, signature: str, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """See `Model`."""
        from tensorflow_serving.apis import predict_pb2

        tf = loading.tensorflow()
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._address.model
        request.model_spec.signature_name = signature
        if self._address.version.isdigit():
            request.model_spec.version.value = int(self._address.version)
        elif self._address.version:
            request.model_spec.version_label = self._address.version
        request.inputs[_INPUT].CopyFrom(tf.make_tensor_proto(list(images), tf.string, (len(images),)))
        answer = _patiently(lambda: self._predict(request), self.name)
        return {key: tf.make_ndarray(value) for key, value in answer.outputs.items()}

    def _predict(self, request: Any) -> Any:
        import grpc

        try:
            return self._stub.Predict(request, timeout=self._timeout)
        except grpc.RpcError as error:
            code, words = error.code(), refusal.words_of(error.details() or "")
            if code is grpc.StatusCode.INVALID_ARGUMENT and "signature" not in words.lower():
                raise BadImageError(words) from error
            # The names of what is as wrong the next time; see `_WRONG_USE`.
            if code.name in _WRONG_USE_OF_GRPC:
                raise UserError(f"`server`={self.name}: {code.name}: {words}") from error
            raise _TryAgain(f"{code.name}: {words}") from error


def open_server(url: str, timeout: float = 60.0) -> Model:
    """The model at an address, see `Address.parse`; nothing is sent yet.

    Raises:
      UsageError: the address makes no sense.
    """
    address = Address.parse(url)
    return GrpcModel(address, timeout) if address.scheme == "grpc" else RestModel(address, timeout)


class _TryAgain(Exception):
    """A failure that may pass."""


def _patiently(ask: Callable[[], Any], name: str) -> Any:
    for pause in (*_TRY_AGAIN_AFTER_SECONDS, None):
        try:
            return ask()
        except _TryAgain as error:
            if pause is None:
                raise UnavailableError(
                    f"`server`={name}: no answer ({error}). Is the server up, is it the right port, and does it "
                    "have the model?"
                ) from error
            time.sleep(pause)
    raise AssertionError("the last try ends the loop")


def _json_object(content: bytes) -> dict[str, Any]:
    """A JSON object, or an empty one: a proxy answers with a page."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _columns(predictions: list[Any]) -> dict[str, np.ndarray]:
    """Arrays of the outputs from one JSON object for each image.

    JSON writes 1.0 as 1 or as 1.0, so the name of an output says its type, and no value does.
    """
    if not all(isinstance(one, dict) for one in predictions):
        raise UserError("The server's model has one output only; expected those of an export of this program.")
    try:
        return {name: _column(name, [one[name] for one in predictions]) for name in (predictions or [{}])[0]}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The server's answers are not of one form ({type(error).__name__}: {error}); expected those of an export "
            "of this program."
        ) from error


def _column(name: str, values: list[Any]) -> np.ndarray:
    if isinstance(values[0], dict):
        return np.array([base64.b64decode(value["b64"]) for value in values], object)
    if isinstance(values[0], str):
        return np.array(values, object)
    return np.array(values, np.float32).astype(np.int64) if name in _WHOLE_NUMBERS else np.array(values, np.float32)
