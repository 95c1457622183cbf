"""The files that TensorFlow Serving is started with, beside the models they speak of.

`models.config` names every model, the versions to load and their labels; it is written anew with each export and
keeps what a person changed in it. The other files are written once and then belong to the person who runs the server.
"""

import pathlib
import re
from typing import Any

from mvtec_tf import files
from mvtec_tf.errors import UserError

MODELS = "models.config"
BATCHING = "batching.config"
MONITORING = "monitoring.config"
COMPOSE = "compose.yaml"
# The newest server there was when this was written; `latest` becomes another server some day, without a word.
SERVER_VERSION = "2.20.0"
STABLE = "stable"
CANARY = "canary"
# Where the official image looks for models.
SERVER_ROOT = "/models"

# Wrappers because the server tells "not given" from 0 by them. A batch waits 5 ms for company: little against the
# tens of milliseconds that a network of the size of ResNet-50 takes for one image on a CPU.
_BATCHING_TEXT = """\
# tensorflow.serving.BatchingParameters, in protobuf's text format.
max_batch_size { value: 32 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 100 }
"""
_MONITORING_TEXT = """\
# tensorflow.serving.MonitoringConfig, in protobuf's text format.
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""
_COMPOSE_TEXT = """\
# docker compose up: gRPC on 8500; REST and Prometheus metrics on 8501. New exports are picked up within a minute.
services:
  serving:
    # Read by this version or a newer one: see "TensorFlow Serving" in docs/serving.md.
    image: ${{TF_SERVING_IMAGE:-tensorflow/serving:{version}}}
    ports:
      - "8500:8500"
      - "8501:8501"
    environment:
      # TensorFlow leaves oneDNN off on processors without AVX-512 or AMX, where it is faster too.
      TF_ENABLE_ONEDNN_OPTS: "1"
    volumes:
      - .:{root}:ro
    command:
      - --model_config_file={root}/models.config
      - --model_config_file_poll_wait_seconds=60
      - --allow_version_labels_for_unavailable_models=true
      - --enable_batching=true
      - --batching_parameters_file={root}/batching.config
      - --monitoring_config_file={root}/monitoring.config
    restart: unless-stopped
"""


def is_name(name: str) -> bool:
    """Whether a model can have this name: one folder in which a server finds it."""
    return bool(name) and name == name.strip() and name[0] != "." and "/" not in name and not files.PATTERN.search(name)


def is_label(label: str) -> bool:
    """Whether a version can have this label: a word that an address takes for no version."""
    return bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", label)) and not label.isdigit()


def write(
    root: files.PathLike,
    exported: tuple[str, int] | None = None,
    labels: tuple[str, ...] = (CANARY,),
    server_root: str = SERVER_ROOT,
) -> bool:
    """Writes the four files into `root`, the folder of all models.

    In `models.config` the label `canary` of a model follows the newest export; `stable` stays where it is until
    somebody moves it. The server loads the versions that have a label, and nothing else.

    Args:
      root: holds NAME/VERSION/.
      exported: (name, version) that has just been written.
      labels: that this version gets; the first one of a model also gets `stable`.
      server_root: `root` as the server sees it.

    Returns:
      Whether the server loads the exported version.

    Raises:
      UserError: the `models.config` there is none.
    """
    root = pathlib.Path(root)
    for name, text in (
        (BATCHING, _BATCHING_TEXT),
        (MONITORING, _MONITORING_TEXT),
        (COMPOSE, _COMPOSE_TEXT.format(root=server_root, version=SERVER_VERSION)),
    ):
        if not (root / name).exists():
            files.write_text(root / name, text)
    with files.alone_in(root):
        return _write_models(root, exported, labels, server_root.rstrip("/"))


def _write_models(root: pathlib.Path, exported: tuple[str, int] | None, labels: tuple[str, ...], at: str) -> bool:
    from google.protobuf import text_format

    config = _read_models(root / MODELS)
    listed = config.model_config_list.config
    there = {child.name: files.versions(child) for child in root.iterdir() if child.is_dir()}
    there = {name: found for name, found in there.items() if found}
    for entry in list(listed):
        # An entry with another path is somebody's own, of a model that does not lie here.
        if entry.base_path == f"{at}/{entry.name}" and entry.name not in there:
            listed.remove(entry)
    known = {entry.name: entry for entry in listed}
    for name, found in sorted(there.items()):
        entry = known.get(name)
        if entry is None:
            entry = listed.add(name=name, base_path=f"{at}/{name}", model_platform="tensorflow")
        _label(entry, found, labels if exported and exported[0] == name else (), exported[1] if exported else 0)
    text = "# tensorflow.serving.ModelServerConfig, in protobuf's text format. Move a label by hand or by --labels.\n"
    files.write_text(root / MODELS, text + text_format.MessageToString(config))
    return any(exported == (entry.name, version) for entry in listed for version in entry.version_labels.values())


def _label(entry: Any, found: list[int], labels: tuple[str, ...], version: int) -> None:
    for label in [label for label, points_to in entry.version_labels.items() if points_to not in found]:
        del entry.version_labels[label]
    for label in labels:
        entry.version_labels[label] = version
    for label in (STABLE, CANARY):
        if label not in entry.version_labels:
            entry.version_labels[label] = version or found[-1]
    del entry.model_version_policy.specific.versions[:]
    entry.model_version_policy.specific.versions.extend(sorted(set(entry.version_labels.values())))


def _read_models(file: pathlib.Path) -> Any:
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    if file.exists():
        try:
            text_format.Parse(file.read_text(encoding="utf-8"), config)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise UserError(
                f"{file}: no ModelServerConfig in protobuf's text format ({error}). Mend the file, or remove it and it "
                "is written anew. The exported version itself is whole."
            ) from error
    return config
