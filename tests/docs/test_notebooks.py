"""The notebooks of docs/ run from beginning to end, on drawn parts, and are stored without what they print."""

import json

import nbclient
import nbformat
import pytest

# The recipe's own encoder sees 64 pixels instead of 448, and is one of two layers; pictures are coarse.
SMALL = """
import dataclasses
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.evaluation.report import canvas
from tests.support.tiny_network import in_place_of_resnet10
canvas.DPI //= 4
RECIPES[FEW_LABELS] = dataclasses.replace(RECIPES[FEW_LABELS], image_size=64)
tiny = in_place_of_resnet10()
tiny.__enter__()
"""
PARTS = "train_good=30, test_good=16, per_defect=10", "train_good=15, test_good=8, per_defect=5"
NAMES = ["my_own_line", "judge_anybodys_predictions"]


@pytest.fixture(params=NAMES)
def notebook(request, pytestconfig):
    return pytestconfig.rootpath / "docs" / "notebooks" / f"{request.param}.ipynb"


def test_every_notebook_is_tested(pytestconfig):
    assert sorted(path.stem for path in (pytestconfig.rootpath / "docs" / "notebooks").iterdir()) == sorted(NAMES)


def test_a_notebook_is_stored_without_outputs_and_small(notebook):
    cells = [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert notebook.stat().st_size < 20_000


@pytest.mark.slow
def test_a_notebook_runs_from_beginning_to_end(notebook, pytestconfig, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))
    # A test has no network.
    monkeypatch.setenv("WEIGHTS", "none")
    text = notebook.read_text("utf-8").replace("weights=WEIGHTS", 'weights=WEIGHTS, backbone=\\"resnet10\\"')
    text = text.replace(*PARTS)
    cells = nbformat.reads(text, as_version=4)
    cells.cells.insert(0, nbformat.v4.new_code_cell(SMALL))
    nbclient.NotebookClient(cells, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
