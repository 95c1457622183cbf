"""The same answers from a real TensorFlow Serving, where there is one."""

import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from mvtec_tf.errors import UserError
from mvtec_tf.serving import configs, inputs
from mvtec_tf.serving.client import BadImageError, LocalModel, open_server
from mvtec_tf.serving.export import export_run
from mvtec_tf.serving.settings import ExportOptions


@pytest.fixture(scope="module")
def server(small_run, tmp_path_factory):
    """(local model, addresses of the same model on a server).

    `TF_SERVING_URL` names a running server's model by commas: grpc://host:8500/NAME,http://host:8501/NAME. It must be
    the export that `TF_SERVING_MODEL` names here.
    """
    urls = os.environ.get("TF_SERVING_URL")
    if urls:
        yield LocalModel(os.environ["TF_SERVING_MODEL"]), urls.split(",")
        return
    binary = shutil.which("tensorflow_model_server")
    if not binary:
        pytest.skip("no tensorflow_model_server on the PATH, and TF_SERVING_URL names no server")
    root = tmp_path_factory.mktemp("served") / "saved_models"
    version = export_run(small_run[0], "small", root, ExportOptions(server_root=str(root)))
    command = [binary, "--port=8500", "--rest_api_port=8501", f"--model_config_file={root / configs.MODELS}"]
    command += ["--allow_version_labels_for_unavailable_models=true", "--enable_batching=true"]
    command += [f"--batching_parameters_file={root / configs.BATCHING}"]
    command += [f"--monitoring_config_file={root / configs.MONITORING}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for("http://localhost:8501/small", process)
            yield (
                LocalModel(version),
                [f"grpc://localhost:8500/small{end}" for end in ("", "/1", "/stable")]
                + ["http://localhost:8501/small"],
            )
        finally:
            process.terminate()


def test_a_real_server_answers_what_the_model_here_answers(server, toy):
    local, urls = server
    contents = [pathlib.Path(file).read_bytes() for file in inputs.expand([str(toy)])[:5]]
    for signature in ("serving_default", "explain"):
        expected = local(signature, contents)
        for url in urls:
            answer = open_server(url)(signature, contents)
            assert set(answer) == set(expected)
            for name, values in expected.items():
                if name != "overlay_bytes":
                    np.testing.assert_allclose(answer[name], values, atol=1e-4)


def _wait_for(url, process):
    """Until it answers an empty request, be it with a refusal, or ends."""
    while process.poll() is None:
        try:
            open_server(url)("serving_default", [b""])
        except UserError:
            continue  # the port is closed, or the model is still being loaded
        except BadImageError:
            return
    raise AssertionError(f"tensorflow_model_server ended with {process.returncode}")
