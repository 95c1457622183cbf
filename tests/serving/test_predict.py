"""Batch prediction: the evaluation's scores by every road, one row for each file, bad files listed, nothing lost."""

import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mvtec_tf import drift
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.jobs.drift import draw_drift
from mvtec_tf.jobs.settings import DriftSettings
from mvtec_tf.serving import batch, client, inputs
from mvtec_tf.serving.batch import COLUMNS, Judge
from mvtec_tf.serving.client import Address, BadImageError, LocalModel, UnavailableError, open_server
from mvtec_tf.serving.export import export_run
from mvtec_tf.serving.journal import Journal
from mvtec_tf.serving.predict import predict
from mvtec_tf.serving.settings import PredictSettings
from mvtec_tf.serving.truth import Truth
from tests.conftest import run_binary
from tests.support.standin_server import Served, serving


@pytest.fixture(scope="module")
def local(exported):
    return LocalModel(exported)


@pytest.fixture(scope="module")
def served(local):
    """(the served model, gRPC port, REST port)."""
    model = Served(local._model)
    with serving(model) as (grpc_port, rest_port):
        yield model, grpc_port, rest_port


@pytest.fixture
def rest(served):
    return f"--server=http://127.0.0.1:{served[2]}/small"


@pytest.fixture(scope="module")
def truth(exported):
    """path -> the row of the evaluation's table."""
    with (exported / "assets.extra" / "predictions.csv").open() as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def _judged(judge, files, folder, batch_size=4, form=".csv", concurrency=1):
    with Journal(folder / f"table{form}", COLUMNS, form) as table:
        batch.judge_files(judge, files, table, batch_size, concurrency)
    return _rows(folder / f"table{form}")


def _rows(file):
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()]
    with file.open(newline="") as content:
        return list(csv.DictReader(content))


def test_a_folder_of_the_layout_gets_the_evaluations_scores_and_can_be_evaluated(local, exported, toy, truth, tmp_path):
    judge = Judge(local, Truth(export=exported), relative_to=str(toy))
    rows = _judged(judge, inputs.expand([str(toy)]), tmp_path)
    judged = {row["path"]: row for row in rows}
    assert set(truth) < set(judged)
    for path, row in truth.items():
        assert float(judged[path]["score"]) == pytest.approx(float(row["score"]), abs=1e-5)
        assert float(judged[path]["probability"]) == pytest.approx(float(row["probability"]), abs=1e-5)
        assert [judged[path][name] for name in ("category", "defect", "label", "split")] == [
            row[name] for name in ("category", "defect", "label", "split")
        ]
        assert judged[path]["verdict"] == ("defective" if float(row["score"]) >= _threshold(exported) else "good")
    table = read_predictions(tmp_path / "table.csv")
    assert len(table) == len(rows)
    # Good training images that the run did not use are nothing that it has seen.
    assert {row["split"] for row in rows} == {"fit", "calibrate", "evaluate"}


def test_local_grpc_and_rest_answer_alike(local, served, toy, tmp_path):
    files = inputs.expand([str(toy)])[:6]
    contents = [pathlib.Path(file).read_bytes() for file in files]
    _, grpc_port, rest_port = served
    for signature in ("serving_default", "explain"):
        expected = local(signature, contents)
        for url in (
            f"grpc://127.0.0.1:{grpc_port}/small",
            f"grpc://127.0.0.1:{grpc_port}/small/1",
            f"grpc://127.0.0.1:{grpc_port}/small/stable",
            f"http://127.0.0.1:{rest_port}/small",
            f"http://127.0.0.1:{rest_port}/v1/models/small/labels/stable",
            f"http://127.0.0.1:{rest_port}/small/1",
        ):
            answer = open_server(url)(signature, contents)
            assert set(answer) == set(expected)
            for name, values in expected.items():
                if values.dtype == object:
                    assert answer[name].tolist() == values.tolist()
                else:
                    np.testing.assert_allclose(answer[name], values, atol=1e-6)


def test_the_name_of_an_output_says_its_type_and_no_value_does():
    first = {"anomaly_score": 1, "probability": 0, "threshold": 2, "heat_map": [[0, 1]], "embedding": [3, 4]}
    first |= {"label": 0, "type_scores": [1, 2], "defect_type": "chip", "overlay_bytes": {"b64": "eA=="}}
    second = {"anomaly_score": 0.75, "probability": 0.25, "threshold": 2.5, "heat_map": [[0.5, 1]]}
    second["embedding"] = [3.5, 4]
    second |= {"label": 1, "type_scores": [0.5, 2], "defect_type": "dent", "overlay_bytes": {"b64": "eQ=="}}
    columns = client._columns([first, second])
    assert columns.pop("label").dtype == np.int64
    assert columns.pop("defect_type").tolist() == ["chip", "dent"]
    assert columns.pop("overlay_bytes").tolist() == [b"x", b"y"]
    for name, values in columns.items():
        assert values.dtype == np.float32, name
        assert values.tolist() == [first[name], second[name]], name
    # A label that is written with a point is one all the same, a category is a number or a name.
    assert client._column("label", [1.0, 0.0]).dtype == np.int64
    assert client._column("category", [1, 0]).dtype == np.int64
    assert client._column("category", ["cap"]).tolist() == ["cap"]
    assert client._columns([]) == {}
    for other in ({}, {"label": {"no": "b64"}}, {"label": [1]}):
        with pytest.raises(UserError, match="answers are not of one form"):
            client._columns([{"label": 1}, other])


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"anomaly_score": np.ones((1, 1))}, "no anomaly_score of one number an image"),
        ({"threshold": np.array(["0.5"])}, "no threshold of one number an image"),
        ({"verdict": np.array([-1])}, r"the verdicts \[-1\]"),
        ({"label": np.array([7])}, r"the verdicts \[7\]"),
    ],
)
def test_a_model_of_another_make_is_named_and_its_answers_are_not_taken_for_verdicts(odd, words, tmp_path):
    (tmp_path / "0.png").write_bytes(b"not looked into")
    usual = {"anomaly_score": np.ones(1), "threshold": np.ones(1), "label": np.ones(1, int)}
    model = Stranger(usual | odd)
    with pytest.raises(UserError, match=f"stranger: serving_default answers {words}"):
        Judge(model)([str(tmp_path / "0.png")])
    row = Judge(Stranger(usual | {"threshold": np.array([np.nan])}))([str(tmp_path / "0.png")])[0]
    assert (row["verdict"], row["error"]) == ("", "the model's threshold is nan")


@dataclasses.dataclass
class Stranger:
    answer: dict
    name: str = "stranger"

    def __call__(self, signature, images):
        return self.answer


def test_each_way_of_failing_is_told_apart(local, served):
    roads = {"local": local} | {
        scheme: open_server(f"{scheme}://127.0.0.1:{port}/small") for scheme, port in _ports(served).items()
    }
    reasons = set()
    for model in roads.values():
        with pytest.raises(BadImageError) as bad:
            model("serving_default", [b"no image"])
        reasons.add(str(bad.value))
        with pytest.raises(UserError, match="nonsense"):
            model("nonsense", [b"no image"])
    assert len(reasons) == 1
    assert "\n" not in reasons.pop()
    for scheme, port in _ports(served).items():
        for name in ("other", "small/7"):
            with pytest.raises(UserError, match="not found"):
                open_server(f"{scheme}://127.0.0.1:{port}/{name}")("serving_default", [b"x"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = free.getsockname()[1]
    for scheme in ("grpc", "http"):
        with pytest.raises(UnavailableError, match=str(nobody)):
            open_server(f"{scheme}://127.0.0.1:{nobody}/small", timeout=5)("serving_default", [b"x"])


@pytest.mark.parametrize(
    "url", ["localhost:8500", "ftp://a:1/m", "grpc://", "http://a:b/m", "grpc://a:1/m/2/3", "http://a:1/m?x=1"]
)
def test_an_address_that_makes_no_sense_is_wrong_use(url):
    with pytest.raises(UsageError, match="`server`"):
        Address.parse(url)


def test_addresses_have_the_servers_own_ports_and_name():
    assert Address.parse("grpc://line7") == Address("grpc", "line7", 8500, "default", "")
    assert Address.parse("http://line7/m/3") == Address("http", "line7", 8501, "m", "3")
    assert Address.parse("http://h:1/v1/models/m/versions/3:predict") == Address("http", "h", 1, "m", "3")


def test_one_bad_file_does_not_stop_the_rest(local, toy, tmp_path):
    good = inputs.expand([str(toy)])[:5]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.png").write_bytes(b"<html><body>404</body></html>")
    (folder / "cut.png").write_bytes(pathlib.Path(good[0]).read_bytes()[:200])
    bad = [str(folder / name) for name in ("empty.png", "page.png", "cut.png", "missing.png")] + [str(folder)]
    files = [good[0], bad[0], bad[1], good[1], bad[2], good[2], bad[3], bad[4], good[3], good[4]]
    for size in (1, 4, 32):
        out = tmp_path / str(size)
        rows = _judged(Judge(local), files, out, size)
        assert [row["path"] for row in rows] == files
        assert [row["path"] for row in rows if row["error"]] == bad
        reasons = {row["path"]: row["error"] for row in rows}
        assert "empty" in reasons[bad[0]]
        assert "not a readable image" in reasons[bad[1]]
        assert "No such file" in reasons[bad[3]]
        assert reasons[bad[4]] == "not a file"
        assert all(row["score"] == "" and row["verdict"] == "" for row in rows if row["error"])
        assert all(row["verdict"] in ("good", "defective") for row in rows if not row["error"])


def test_several_requests_at_a_time_keep_the_order(local, toy, tmp_path):
    files = inputs.expand([str(toy)])
    one = _judged(Judge(local), files, tmp_path / "one")
    four = _judged(Judge(local), files, tmp_path / "four", concurrency=4)
    assert one == four


def test_json_lines_hold_the_same_with_types(local, toy, tmp_path):
    files = [*inputs.expand([str(toy)])[:3], str(tmp_path / "missing.png")]
    rows, lines = (_judged(Judge(local), files, tmp_path, form=form) for form in (".csv", ".jsonl"))
    for row, line in zip(rows, lines, strict=True):
        assert tuple(line) == COLUMNS
        assert {name: "" if value is None else str(value) for name, value in line.items()} == row
    assert lines[3]["score"] is None
    assert isinstance(lines[0]["score"], float)


def test_overlays_lie_beside_each_other_like_their_images_and_never_outside(local, toy, tmp_path):
    image = inputs.expand([str(toy)])[0]
    outside = tmp_path / "a" / "b"
    outside.mkdir(parents=True)
    names = [image, str(outside / ".." / "x.png"), str(outside / ".." / "x.jpg")]
    for name in names[1:]:
        Image.open(image).save(name)
    overlays = tmp_path / "overlays"
    rows = _judged(Judge(local, overlays=overlays), names, tmp_path)
    plain = _judged(Judge(local), names, tmp_path / "plain")
    for row, expected in zip(rows, plain, strict=True):
        assert float(row["score"]) == pytest.approx(float(expected["score"]), abs=1e-5)
    written = sorted(path for path in overlays.rglob("*") if path.is_file())
    assert len(written) == 3
    assert written[0].name != written[1].name
    assert overlays / f"{image[1:]}.png" in written
    assert Image.open(written[0]).format == "PNG"


def test_paths_are_files_folders_patterns_and_lists_each_image_once(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.bmp", "[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    at = lambda *names: [str(tmp_path / name) for name in names]  # noqa: E731
    assert inputs.expand([str(tmp_path)]) == at("[1].png", "a.JPG", "b.png", "sub/c.bmp")
    assert inputs.expand(at("*.png", "b.png")) == at("[1].png", "b.png")
    assert inputs.expand(at("**/*.bmp")) == at("sub/c.bmp")
    assert inputs.expand(at("[1].png")) == at("[1].png")
    assert inputs.expand(at("none*.png", "notes.txt")) == at("none*.png", "notes.txt")
    (tmp_path / "list").write_bytes(b"x y.png\r\n\nz\xff.png\n")
    assert [name.encode("utf-8", "surrogateescape") for name in inputs.read_list(str(tmp_path / "list"))] == [
        b"x y.png",
        b"z\xff.png",
    ]


def test_a_pattern_below_a_folder_whose_name_looks_like_one_finds_its_files(tmp_path):
    folder = tmp_path / "line [1] *" / "day ?"
    folder.mkdir(parents=True)
    for name in ("a.png", "b[1].png"):
        (folder / name).touch()
    assert inputs.expand([f"{folder}/*.png"]) == [f"{folder}/a.png", f"{folder}/b[1].png"]
    assert inputs.expand([f"{tmp_path}/line [[]1] */*/a.*"]) == [f"{folder}/a.png"]
    assert inputs.expand([f"{folder}/b[1].png", f"{folder}/c[1].png"]) == [f"{folder}/b[1].png", f"{folder}/c[1].png"]


def test_files_that_are_called_as_masks_of_others_are_judged_with_a_word(tmp_path):
    for name in ("a.png", "a_mask.png", "b_gt.png", "c.png", "c.jpg"):
        (tmp_path / name).touch()
    said = []
    assert len(inputs.expand([str(tmp_path)], said.append)) == 5
    (sentence,) = said
    mask, image = tmp_path / "a_mask.png", tmp_path / "a.png"
    assert sentence.startswith(f"1 of the files are called as masks. {mask}: called as a mask of {image} beside it")


def test_masks_of_the_layout_are_no_photographs(toy):
    assert any(pathlib.Path(toy).glob("*/ground_truth/*/*.png"))
    assert not [file for file in inputs.expand([str(toy)]) if "ground_truth" in file]


def test_a_torn_last_row_is_cut_off_and_judged_again(tmp_path):
    columns = ("path", "verdict", "error")
    names = ["plain.png", 'quo"te,comma.png', "new\nline.png", "\u2028.png", "last.png"]
    for form in (".csv", ".jsonl"):
        whole = tmp_path / f"whole{form}"
        with Journal(whole, columns, form) as table:
            table.append({"path": name, "verdict": "good", "error": ""} for name in names)
        content = whole.read_bytes()
        for length in range(len(content)):
            torn = tmp_path / f"torn{form}"
            torn.write_bytes(content[:length])
            with Journal(torn, columns, form) as table:
                kept = list(names[: len(table.names)])
                assert set(table.names) == set(kept)
                table.append({"path": name, "verdict": "good", "error": ""} for name in names[len(kept) :])
            assert torn.read_bytes() == content


def test_a_table_is_written_by_one_process_and_not_mixed_with_another(tmp_path):
    file = tmp_path / "t.csv"
    with Journal(file, ("path", "error"), ".csv"), pytest.raises(UserError, match="another process"):
        Journal(file, ("path", "error"), ".csv")
    with pytest.raises(UserError, match="Expected the columns path,verdict"):
        Journal(file, ("path", "verdict"), ".csv")
    assert file.read_text() == "path,error\n"


def test_the_binary_writes_the_table_says_how_fast_and_fails_if_an_image_did(rest, toy, truth, tmp_path):
    out = tmp_path / "t.csv"
    done = run_binary("predict", rest, f"--out={out}", f"--relative_to={toy}", toy)
    assert done.stdout.splitlines()[-1] == str(out)
    assert "images/s" in done.stdout
    assert "median" in done.stdout
    assert "95th percentile" in done.stdout
    rows = {row["path"]: row for row in _rows(out)}
    for path, row in truth.items():
        assert float(rows[path]["score"]) == pytest.approx(float(row["score"]), abs=1e-5)
    again = run_binary("predict", rest, f"--out={out}", f"--relative_to={toy}", toy)
    assert "Nothing was left to judge." in again.stdout
    (tmp_path / "bad.png").write_bytes(b"no")
    (tmp_path / "list").write_text(f"{tmp_path / 'bad.png'}\n")
    lines = tmp_path / "t.jsonl"
    bad = run_binary(
        "predict", rest, f"--out={lines}", f"--list={tmp_path / 'list'}", f"{toy}/*/test/good/*", check=False
    )
    assert bad.returncode == 1
    assert "1 of " in bad.stderr
    assert len(_rows(lines)) > 1
    assert _rows(lines)[-1]["error"]


def _predict(capsys, **settings):
    """What predict prints, in this process."""
    predict(PredictSettings(**settings))
    return capsys.readouterr().out


def test_parts_unlike_the_training_images_are_told_from_others_here_and_by_a_server(
    exported, served, toy, tmp_path, capsys
):
    model, good = str(exported), sorted(map(str, pathlib.Path(toy).glob("*/train/good/*.png")))
    said = _predict(capsys, model=model, out=str(tmp_path / "good.csv"), paths=tuple(good))
    assert f"No drift: {', '.join(drift.STATISTICS)} have not moved (32 parts by their order in the table" in said
    assert all(0 <= float(row[drift.UNLIKE]) < 1 for row in _rows(tmp_path / "good.csv"))
    # Those that the reference is of are usual: p-values are spread evenly.
    assert np.mean([float(row[drift.P_VALUE]) for row in _rows(tmp_path / "good.csv")]) == pytest.approx(0.5, abs=0.05)
    for file in good:
        dark = tmp_path / "dark" / pathlib.Path(file).relative_to(toy)
        dark.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).point(lambda value: value // 3).save(dark)
    both = (*good, str(tmp_path / "dark"))
    said = _predict(capsys, model=model, out=str(tmp_path / "both.csv"), paths=both)
    assert "\nDrift, in standard deviations" in said
    found = re.search(r"brightness -[\d.]+ since part (\d+) \(", said)
    assert found, said
    assert abs(int(found[1]) - 33) < 8
    rows = _rows(tmp_path / "both.csv")
    assert np.mean([float(row[drift.UNLIKE]) for row in rows[32:]]) > 0.9
    url = f"http://127.0.0.1:{served[2]}/small"
    said = _predict(capsys, server=url, out=str(tmp_path / "served.jsonl"), paths=both)
    assert "set against the ones before them" in said
    # An image of the reference meets itself in it, and which of the two is larger is rounding's, which batches move.
    rank = 1.01 / (len(good) + 1)
    for here, there in zip(rows, _rows(tmp_path / "served.jsonl"), strict=True):
        for name in (*drift.COLUMNS, drift.UNLIKE, drift.P_VALUE):
            near = rank if name in (drift.UNLIKE, drift.P_VALUE) else 1e-4
            assert there[name] == pytest.approx(float(here[name]), abs=near)


def test_drift_of_a_folder_has_one_closing_line_that_is_of_the_order_asked_for(exported, toy, tmp_path, capsys):
    draw_drift(DriftSettings(model=str(exported), folder=str(toy), order="name", out=str(tmp_path / "drift")))
    said = capsys.readouterr().out
    assert "images/s" in said
    assert re.findall(r"parts by ([\w ]+), set against", said) == ["name"]


def test_a_model_of_before_goes_on_working_and_the_last_line_says_why(small_run, toy, tmp_path, capsys):
    run_dir = tmp_path / "run"
    shutil.copytree(small_run[0], run_dir)
    for name in ("reference.npz", drift.REFERENCE_FILE):
        (run_dir / name).unlink()
    export = export_run(run_dir, "old", tmp_path / "saved_models")
    said = _predict(capsys, model=str(export), out=str(tmp_path / "t.csv"), paths=(str(toy),))
    assert "Drift was not looked for: the model says nothing of how usual an image is." in said
    rows = _rows(tmp_path / "t.csv")
    assert {row[name] for row in rows for name in (*drift.COLUMNS, drift.UNLIKE, drift.P_VALUE)} == {""}
    assert {row["verdict"] for row in rows} <= {"good", "defective"}


def test_one_photograph_again_and_again_is_drift_and_a_folder_in_no_order_has_the_order_of_its_table(
    exported, toy, tmp_path, capsys
):
    image = sorted(pathlib.Path(toy).glob("*/train/good/*.png"))[0]
    (tmp_path / "alike").mkdir()
    for number in np.random.default_rng(0).permutation(60):
        shutil.copyfile(image, tmp_path / "alike" / f"{number}.png")
    out = tmp_path / "t.csv"
    said = _predict(capsys, model=str(exported), out=str(out), paths=(str(tmp_path / "alike"),))
    assert "Drift, in standard deviations" in said
    assert "60 parts by their order in the table" in said
    # The same once more: nothing is judged, and the answer is the same.
    again = _predict(capsys, model=str(exported), out=str(out), paths=(str(tmp_path / "alike"),))
    assert again.splitlines()[-2] == said.splitlines()[-2]


def test_a_damaged_reference_is_named(exported, toy, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(exported, copy)
    (copy / "assets.extra" / drift.REFERENCE_FILE).write_text("z_brightness\nx\n")
    with pytest.raises(UserError, match=r"reference\.csv: cannot be read"):
        predict(PredictSettings(model=str(copy), out=str(tmp_path / "t.csv"), paths=(str(toy),)))


def test_an_unsure_verdict_stands_in_the_table_and_is_counted():
    class Unsure:
        name = "unsure"

        def __call__(self, signature, images):
            scores = np.arange(len(images), dtype=np.float32)
            return {"anomaly_score": scores, "threshold": scores, "label": np.ones(3, int), "verdict": np.arange(3)}

    rows = Judge(Unsure())([__file__] * 3)
    assert [row["verdict"] for row in rows] == ["good", "defective", "unsure"]
    tally = batch.Tally()
    tally.add(rows)
    assert "3 images: 1 good, 1 defective, 1 unsure, 0 could not be judged." in batch.summary(tally, 1.0, [], 8)


@pytest.mark.parametrize("status", [1, 128 + signal.SIGTERM])
def test_an_interrupted_table_is_gone_on_with(served, rest, toy, tmp_path, status):
    model, out = served[0], tmp_path / "t.csv"
    files = inputs.expand([str(toy)])
    # A server that breaks down in the middle, or a signal, ends the program; what it had judged stays.
    asked = []

    def break_down():
        asked.append(1)
        if len(asked) > 3 and status == 1:
            raise RuntimeError("the server breaks down")
        if len(asked) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    model.before = break_down
    flags = (rest, f"--out={out}", "--batch_size=4", "--timeout=5", toy)
    try:
        done = run_binary("predict", *flags, check=False)
    finally:
        model.before = lambda: None
    assert done.returncode == status
    assert status == 1 or done.stderr.startswith("ERROR: Interrupted by SIGTERM. ")
    assert not out.exists()
    before = model.images
    done = run_binary("predict", *flags)
    # The answer to what was asked when the signal came may have been written.
    assert len(files) - 16 <= model.images - before <= len(files) - 12
    assert [row["path"] for row in _rows(out)] == files
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_the_binary_judges_with_a_model_here_and_says_what_is_wrong_with_another(exported, small_run, toy, tmp_path):
    image = sorted(pathlib.Path(toy).glob("*/test/good/*.png"))[0]
    name = image.relative_to(toy)
    out = tmp_path / "t.csv"
    overlays = f"--overlays={tmp_path / 'overlays'}"
    run_binary("predict", f"--model={exported}", f"--out={out}", overlays, f"--relative_to={toy}", image)
    (row,) = _rows(out)
    assert row["path"] == str(name)
    assert (tmp_path / "overlays" / f"{name}.png").is_file()
    # A run's own graph has no threshold.
    unexported = small_run[0] / "saved_model"
    done = run_binary("predict", f"--model={unexported}", f"--out={tmp_path / 'u.csv'}", image, check=False)
    assert done.returncode == 1
    assert "threshold" in done.stderr


@pytest.mark.parametrize(
    ("overlays", "given", "refused"),
    [
        ("new", {"paths": ("new",)}, True),
        ("new/maps", {"paths": ("new/",)}, True),
        (".", {"paths": ("new",)}, True),
        ("..", {"paths": ("new",), "relative_to": ".."}, True),
        ("new", {"paths": ("new/a.png",), "relative_to": "new"}, True),
        (".", {"paths": ("new/*.png",)}, True),
        ("link/maps", {"watch": "new"}, True),
        ("maps", {"paths": ("new",)}, False),
        ("new", {"paths": ("new/a.png",)}, False),
        ("newer", {"watch": "new"}, False),
    ],
)
def test_overlays_among_the_photographs_which_would_be_judged_themselves_are_refused(
    tmp_path, monkeypatch, overlays, given, refused
):
    (tmp_path / "at" / "new").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "at")
    os.symlink("new", "link")
    settings = PredictSettings(model="m", out="t.csv", overlays=overlays, **given)
    with pytest.raises(UsageError, match="among the photographs in") if refused else contextlib.nullcontext():
        settings.check()


def test_an_image_without_its_overlay_was_judged_all_the_same_and_is_not_counted_as_one_that_was_not(
    exported, toy, tmp_path
):
    image = sorted(pathlib.Path(toy).glob("*/test/good/*.png"))[0]
    long = tmp_path / f"{'x' * 251}.png"
    long.write_bytes(image.read_bytes())
    flags = (f"--model={exported}", f"--overlays={tmp_path / 'overlays'}")
    done = run_binary("predict", *flags, f"--out={tmp_path / 'one.csv'}", long, check=False)
    assert done.returncode == 1
    assert "ERROR: 1 were judged, but have no overlay; the column error of" in done.stderr
    done = run_binary("predict", *flags, f"--out={tmp_path / 'two.csv'}", long, tmp_path / "none.png", check=False)
    assert "ERROR: 1 of 2 images could not be judged, and 1 were judged, but have no overlay;" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out=t.csv", "x.png"], "either --model"),
        (["--out=t.csv", "--model=m", "--server=grpc://h:1/m", "x.png"], "either --model"),
        (["--out=t.csv", "--server=grpc://h:1/m"], "Nothing to judge"),
        (["--out=t.txt", "--server=grpc://h:1/m", "x.png"], "--out"),
        (["--out=t.csv", "--server=h:1", "x.png"], "--server"),
        (["--out=t.csv", "--server=grpc://h:1/m", "--watch=.", "x.png"], "--watch"),
        (["--server=grpc://h:1/m", "x.png"], "--out"),
    ],
)
def test_wrong_use_of_the_binary_is_status_2(flags, words, tmp_path):
    done = run_binary("predict", *flags, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_asking_a_server_over_rest_needs_no_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from mvtec_tf.serving import batch, client, drifting, inputs, journal, predict, watch\n"
        "client.open_server('http://h:1/m')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _threshold(exported):
    return json.loads((exported / "assets.extra" / "mvtec_tf.json").read_text())["threshold"]


def _ports(served):
    return {"grpc": served[1], "http": served[2]}


def test_a_model_is_asked_without_loading_keras_which_works_as_ever_afterwards(exported):
    code = (
        "import sys; from mvtec_tf.serving.client import LocalModel\n"
        "model = LocalModel(sys.argv[1])\n"
        "assert 'keras' not in sys.modules\n"
        "import keras, tensorflow\n"
        "assert tensorflow.keras.layers.Dense is keras.layers.Dense"
    )
    done = subprocess.run([sys.executable, "-c", code, str(exported)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
