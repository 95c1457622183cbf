"""A server with TensorFlow Serving's own interfaces around a loaded SavedModel: gRPC by the published service, REST by
its documentation. It answers what the real one answers, also where the request is wrong.
"""

import base64
import contextlib
import http.server
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Refused(Exception):
    def __init__(self, code, status, words):
        super().__init__(words)
        self.code, self.status, self.words = code, status, words


class Served:
    """One model under one name; counts requests and tells a listener of each before it is answered."""

    def __init__(self, model, name="small", version=1, labels=None):
        self.model, self.name, self.version, self.labels = model, name, version, labels or {"stable": 1}
        self.images = 0
        self.before = lambda: None
        self._lock = threading.Lock()

    def answer(self, name, version, signature, inputs):
        with self._lock:
            self.images += len(next(iter(inputs.values())))
            self.before()
        if name != self.name or version not in ("", str(self.version), *self.labels):
            raise Refused(grpc.StatusCode.NOT_FOUND, 404, f"Servable not found for request: {name}/{version}")
        signature = signature or "serving_default"
        if signature not in self.model.signatures:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                400,
                f'Serving signature name: "{signature}" not found in signature def',
            )
        try:
            return self.model.signatures[signature](**inputs)
        except tf.errors.InvalidArgumentError as error:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, 400, error.message) from error


class _Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, served):
        self._served = served

    def Predict(self, request, context):
        spec = request.model_spec
        version = spec.version_label or (str(spec.version.value) if spec.HasField("version") else "")
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        try:
            outputs = self._served.answer(spec.name, version, spec.signature_name, inputs)
        except Refused as refused:
            context.abort(refused.code, refused.words)
        answer = predict_pb2.PredictResponse()
        for key, value in outputs.items():
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(value.numpy()))
        return answer


def _rest_handler(served):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            steps = self.path.removeprefix("/v1/models/").removesuffix(":predict").split("/")
            version = steps[2] if len(steps) == 3 else ""
            names = body["instances"][0].keys()
            inputs = {
                name: tf.constant([base64.b64decode(one[name]["b64"]) for one in body["instances"]]) for name in names
            }
            try:
                outputs = served.answer(steps[0], version, body.get("signature_name"), inputs)
            except Refused as refused:
                self._send(refused.status, {"error": refused.words})
                return
            columns = {name: _json(name, value.numpy()) for name, value in outputs.items()}
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            # With one output the server leaves its name out.
            self._send(200, {"predictions": rows if len(columns) > 1 else [next(iter(row.values())) for row in rows]})

        def _send(self, status, answer):
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Says nothing."""

    return Handler


def _json(name, values):
    if values.dtype != object:
        return values.tolist()
    if name.endswith("_bytes"):
        return [{"b64": base64.b64encode(value).decode()} for value in values]
    return [value.decode() for value in values]


@contextlib.contextmanager
def serving(served):
    """Yields (gRPC port, REST port) on this machine."""
    rpc = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Grpc(served), rpc)
    port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _rest_handler(served))
    rest.handle_error = lambda *_: None  # a client that was killed is no news
    thread = threading.Thread(target=rest.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield port, rest.server_address[1]
    finally:
        rest.shutdown()
        rest.server_close()
        rpc.stop(None).wait()
