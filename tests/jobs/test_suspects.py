"""Suspects: explore and fit name a defect hidden among good parts; the corrected table comes back as a list."""

import csv
import json
import shutil

import pytest
from PIL import Image

from mvtec_tf.data.formats import scan as records
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.jobs.explain import explain
from mvtec_tf.jobs.explore import explore_data
from mvtec_tf.jobs.fit import fit
from mvtec_tf.jobs.settings import ExplainSettings, ExploreSettings, FitSettings
from tests.support.tiny_network import in_place_of_resnet10

WEIGHTS = {"weights": "none", "backbone": "resnet10", "image_size": 64}
HIDDEN = "denim/train/good/hidden.png"


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with in_place_of_resnet10():
        yield


@pytest.fixture(scope="module")
def denim(toy, tmp_path_factory):
    """The toy's cloth with holes that a network of random weights sees, one of them among the good training images."""
    root = tmp_path_factory.mktemp("suspects") / "denim"
    shutil.copytree(toy / "denim", root)
    holes = sorted((root / "test" / "hole").iterdir())
    for number, file in enumerate(holes):
        with Image.open(file) as image:
            holed = image.convert("RGB")
        holed.paste((0, 0, 0), (10, 10, 40 + number, 40))
        holed.save(file)
    holes[0].rename(root.parent / HIDDEN)
    return root


@pytest.fixture(scope="module")
def looked(denim):
    """The folder of an exploration with labels looked at."""
    out = denim.parent / "look"
    explore_data(ExploreSettings(data_dir=(str(denim),), out=str(out), **WEIGHTS))
    return out


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_defect_among_good_images_is_named_with_the_image_that_speaks_against_it(looked):
    (first,) = [row for row in _rows(looked / "suspects.csv") if row["path"] == HIDDEN]
    assert (first["given"], first["label"]) == ("good", "")
    assert float(first["score"]) > 0
    assert not first["neighbour"].split("/")[2].startswith("good")
    page = (looked / "exploration.html").read_text()
    assert "Labels to look at again" in page
    assert HIDDEN in page
    assert "that other images speak against" in json.loads((looked / "summary.json").read_text())["summary"]
    # What was made to look is not left behind.
    assert not [child.name for child in looked.iterdir() if "features" in child.name]


def test_the_corrected_table_gives_a_list_and_the_next_look_has_the_label(denim, looked, tmp_path, capsys):
    text = (looked / "suspects.csv").read_text().splitlines()
    lines = [f"{line}defective" if line.startswith(HIDDEN) else line for line in text]
    (tmp_path / "seen.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "again"
    explore_data(ExploreSettings(data_dir=(str(denim),), out=str(out), corrections=str(tmp_path / "seen.csv")))
    assert f"Corrected list, for `data_dir` of every command: {out / 'corrected.csv'}" in capsys.readouterr().out
    assert not (out / "suspects.csv").exists()
    now = {one.path: one for one in records.scan([out / "corrected.csv"])}
    before = {one.path: one for one in records.scan([denim])}
    assert (now[HIDDEN].label, now[HIDDEN].split) == (1, "test")
    assert {path for path, one in now.items() if one != before[path]} == {HIDDEN}


@pytest.mark.slow
def test_a_fit_names_it_too_and_explain_keeps_it(denim, tmp_path):
    run = tmp_path / "run"
    asked = {"data_dir": (str(denim),), "label_budget": "all", "head": "lda", **WEIGHTS}
    fit(FitSettings(run_dir=str(run), **asked))
    found = _rows(run / "suspects.csv")
    assert HIDDEN in [row["path"] for row in found]
    document = json.loads((run / "metrics.json").read_text())
    assert [one["path"] for one in document["suspects"]] == [row["path"] for row in found]
    # Of images that were judged nothing is said: a label changed because a model contradicts flatters the model.
    used = {row["path"] for row in _rows(run / "predictions.csv") if row["split"] == "fit"}
    assert {row["path"] for row in found} <= used
    before = sorted(file.name for file in (run / "figures").glob("suspect_*"))
    explain(ExplainSettings(run=str(run), data_dir=(str(denim),), tsne=False))
    assert sorted(file.name for file in (run / "figures").glob("suspect_*")) == before
    assert json.loads((run / "metrics.json").read_text())["suspects"] == document["suspects"]
    assert "Labels to look at again" in (run / "report.html").read_text()
    (run / "suspects.csv").write_text((run / "suspects.csv").read_text().replace(found[0]["score"], "many"))
    with pytest.raises(UserError, match=r"suspects.csv, line 2: score is 'many'"):
        explain(ExplainSettings(run=str(run), data_dir=(str(denim),), tsne=False))


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"backbone": "resnet10"}, UsageError, "no `weights` are given"),
        ({"weights": "none", "features": "there"}, UsageError, "give these or `weights`"),
        ({"weights": "none", "weights_partial": True}, UsageError, "is no file"),
        ({"features": "nowhere"}, UserError, "nowhere: no features there"),
        ({"weights": "nowhere.h5"}, UserError, "nowhere.h5: no such file"),
        ({"corrections": "nowhere.csv"}, UserError, "nowhere.csv: expected a CSV file, found nothing"),
    ],
)
def test_what_does_not_go_together_or_is_not_there_is_refused_and_leaves_nothing(denim, tmp_path, more, error, words):
    with pytest.raises(error, match=words):
        explore_data(ExploreSettings(data_dir=(str(denim),), out=str(tmp_path / "out"), **more))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
