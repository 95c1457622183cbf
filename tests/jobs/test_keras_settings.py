"""The user's keras.json rules nothing here."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

import mvtec_tf
from mvtec_tf import keras_settings
from mvtec_tf.errors import UserError

_PACKAGE = pathlib.Path(mvtec_tf.__file__).parent
# What a notebook may import first; prints what Keras is set to, and the type of a layer that is built then.
_SHOW = """
import {module}, keras
layer = keras.layers.Conv2D(1, 1)
print(keras.backend.backend(), keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon(),
      layer.dtype_policy.name, layer.data_format)
"""
_RIGHT = "tensorflow channels_last float32 1e-07 float32 channels_last"


@pytest.mark.parametrize(
    "module", ["mvtec_tf.networks.backbone", pytest.param("mvtec_tf.data.augment", marks=pytest.mark.slow)]
)
def test_a_users_keras_json_of_another_backend_float_type_epsilon_and_format_changes_nothing(module, tmp_path):
    wanted = {"backend": "jax", "floatx": "float16", "epsilon": 0.01, "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(wanted))
    environment = os.environ | {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", _SHOW.format(module=module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip().splitlines()[-1] == _RIGHT


@pytest.mark.parametrize(("said", "found"), [({}, "1"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "0")])
def test_tensorflow_uses_onednn_on_every_processor_unless_the_user_says_otherwise(said, found):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"} | said
    command = [sys.executable, "-c", "import mvtec_tf, os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == found


def test_settings_that_were_made_before_are_set_right_again():
    try:
        keras.config.set_image_data_format("channels_first")
        keras.config.set_floatx("float16")
        keras.config.set_dtype_policy("float16")
        keras.config.set_epsilon(0.5)
        keras_settings.apply()
        assert keras.config.image_data_format() == "channels_last"
        assert keras.config.floatx() == keras.config.dtype_policy().name == "float32"
        assert keras.config.epsilon() == 1e-7
    finally:
        keras_settings.apply()


def test_another_backend_that_runs_already_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match=r"'jax'.*Import mvtec_tf before keras"):
        keras_settings.apply()


def test_every_module_that_uses_keras_gets_it_with_these_settings():
    for file in _PACKAGE.rglob("*.py"):
        names = set(_imported(ast.parse(file.read_text())))
        uses = {name for name in names if name.split(".")[0] in ("keras", "keras_cv")}
        assert not uses or "mvtec_tf.keras_settings" in names or file.name == "keras_settings.py", file


def _imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
