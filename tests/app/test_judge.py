"""Judge: the verdicts of `predict`, kept once, with what was measured, and told in one language."""

import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from mvtec_tf.app import judging, labels, pictures, serve, site, sources, store, wording
from mvtec_tf.app.models import exports, held_out, missing
from mvtec_tf.app.settings import ServeSettings
from mvtec_tf.app.store import Store
from mvtec_tf.errors import UserError
from mvtec_tf.serving import batch
from mvtec_tf.serving.client import LocalModel
from mvtec_tf.serving.truth import Truth
from tests.app.conftest import Page, until
from tests.conftest import run_binary

ROOM = pathlib.Path(site.__file__).parent


def test_photographs_get_the_rows_of_predict_and_are_kept_once_by_content(page, photographs, exported):
    answer = page.post(
        "/api/judge",
        files=[
            ("photographs", (f"part {n}.png", file.read_bytes()))
            for n, file in enumerate((*photographs, photographs[0]))
        ],
        headers={"x-mvtec-tf": "1"},
    )
    assert answer.status_code == 200
    found = answer.json()["judgements"]
    expected = batch.Judge(LocalModel(exported), Truth(export=exported))([str(file) for file in photographs])
    for row, wanted in zip(found, expected, strict=False):
        for name in set(batch.COLUMNS) - {"path", "model"}:
            assert row[name] == wanted[name] or row[name] == pytest.approx(wanted[name], abs=1e-6), name
    kept = page.site.kept
    images = sorted(path.name for path in (kept.folder / store.IMAGES).iterdir())
    assert images == sorted(f"{hashlib.sha256(file.read_bytes()).hexdigest()}.png" for file in photographs)
    assert [row["name"] for row in kept.latest(9)] == ["part 1.png", "part 0.png"]
    assert list((kept.folder / store.INCOMING).iterdir()) == []
    table = list(csv.DictReader(io.StringIO(page.get("/judgements.csv").text)))
    assert tuple(table[0]) == batch.COLUMNS
    assert [row["sha256"] for row in table] == [row["sha256"] for row in expected]
    assert [row["id"] for row in page.get("/api/judgements", params={"most": 1}).json()] == [2]
    (model,) = page.get("/api/models").json()
    assert (model["name"], model["threshold"]) == ("small", pytest.approx(found[0]["threshold"]))


def test_the_screen_shows_verdict_heat_map_and_scale_and_a_file_that_is_no_image_is_told(page, photographs, tmp_path):
    shown = page.show(*photographs, ("broken.png", photographs[0].read_bytes()[:300]), ("text.jpg", b"not an image"))
    assert shown.status_code == 200
    verdicts = [row["verdict"] for row in page.site.kept.latest(9)]
    for verdict in verdicts:
        assert f'class="called {verdict}"' in shown.text
    assert shown.text.count('class="heat"') == 2
    assert "it is no PNG, JPEG or BMP image" in shown.text
    assert "broken.png" in shown.text
    assert len(list((page.site.kept.folder / store.IMAGES).iterdir())) == 2
    for address in re.findall(r'src="(/(?:heat|photographs)/[^"]+)"', shown.text):
        picture = page.get(address)
        assert (picture.status_code, Image.open(io.BytesIO(picture.content)).size[0] > 0) == (200, True)
    assert 'class="called' in page.get("/").text


def test_a_heat_map_keeps_the_photographs_shape_and_says_where_it_is_hottest(tmp_path):
    heat = np.zeros((32, 32), np.float32)
    heat[28:, :4] = 2
    found = pictures.write_heat(heat, tmp_path / "heat.png", (100, 300))
    assert Image.open(tmp_path / "heat.png").size == (400, 133)
    assert (found["row"], found["column"]) == ("lower", "left")
    assert found["share"] == pytest.approx(16 / 1024, abs=0.006)
    layer = np.asarray(Image.open(io.BytesIO(pictures.heat_layer(tmp_path / "heat.png"))))
    assert layer[0, -1, 3] == 0
    assert layer[-1, 0, 3] == 255
    line = np.asarray(Image.open(io.BytesIO(pictures.outline_layer(tmp_path / "heat.png"))))
    assert 0 < (line[..., 3] > 0).mean() < 0.1
    # Of a part that scores like good ones nothing is hot, whatever is uppermost.
    for level, hottest in ((0.4, 102), (0.0, 0)):
        pictures.write_heat(heat, tmp_path / "heat.png", (100, 300), level)
        assert np.asarray(Image.open(tmp_path / "heat.png")).max() == hottest
        line = np.asarray(Image.open(io.BytesIO(pictures.outline_layer(tmp_path / "heat.png"))))
        assert not line[..., 3].any()
    assert pictures.has_region(found)
    even = pictures.write_heat(np.ones((4, 4), np.float32), tmp_path / "even.png", (9, 9))
    assert not pictures.has_region(even)
    assert judging.facts({}, even) == []
    assert pictures.write_heat(np.zeros((4, 4), np.float32), tmp_path / "none.png", (9, 9)) == {}


def test_the_scale_holds_the_held_out_good_parts_and_the_threshold(exported):
    (export,) = exports(exported.parents[1])
    with (exported / "assets.extra" / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] != "fit" and row["label"] == "0"]
    good, _ = held_out(export)
    assert good == pytest.approx(sorted(float(row["score"]) for row in rows))
    drawn = pictures.scale(export, export.threshold)
    assert drawn["images"] == len(rows)
    assert drawn["threshold"] == drawn["score"]
    assert drawn["low"] < good.min()
    assert pictures.scale(export, 1e9)["beyond"]


def test_a_project_is_of_one_form_and_of_one_page(tmp_path):
    kept = Store(tmp_path)

    def broken():
        with kept.all_or_nothing():
            kept.add_image("0" * 64, "images/0.png", "a", (1, 1))
            raise UserError("on the way")

    with pytest.raises(UserError, match="on the way"):
        broken()
    assert kept.image("0" * 64) is None
    kept._db.execute("PRAGMA user_version = 9")
    kept.close()
    with pytest.raises(UserError, match="has the form 9"):
        Store(tmp_path)
    (tmp_path / store.FILE).write_bytes(b"something else that is long enough to be looked at" * 100)
    with pytest.raises(UserError, match="cannot be read"):
        Store(tmp_path)


def test_what_was_judged_is_there_whole_after_a_kill(tmp_path):
    program = """
import sys
from mvtec_tf.app.store import Store
kept = Store(sys.argv[1])
row = {"score": 1.0, "threshold": 0.5, "probability": None, "verdict": "good"}
for number in range(10**6):
    with kept.all_or_nothing():
        kept.add_image(str(number), f"images/{number}", "name", (1, 1))
        for model in "ab":
            kept.add_judgement(row | {"sha256": str(number), "model": model}, {})
    print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    told = [int(process.stdout.readline()) for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    kept = Store(tmp_path)
    rows = kept.latest(-1)
    images = kept.ask("SELECT sha256 FROM images")
    kept.close()
    assert len(rows) == 2 * len(images)
    assert {str(number) for number in told} <= {row["sha256"] for row in rows}
    assert len(images) <= len(told) + 1


def test_without_a_model_the_page_keeps_good_parts_and_says_how_to_make_one(tmp_path, toy, monkeypatch):
    monkeypatch.setattr(sources, "_PAUSE", 0.02)
    line = tmp_path / "line"
    line.mkdir()
    folders = (str(line),)
    settings = ServeSettings(models=str(tmp_path / "none"), project=str(tmp_path / "page"), folders=folders)
    parts = sorted((toy / "flange" / "train" / "good").glob("*.png"))
    with Page(settings) as browser:
        first = browser.get("/")
        assert f"--saved_models={tmp_path / 'none'}" in first.text
        assert f"--run_dir={tmp_path / 'page'}/first" in first.text
        asked = browser.form("/judge", files=[("photographs", ("a.png", b"x"))])
        assert (asked.status_code, "There is no model that could judge" in asked.text) == (409, True)
        shown = [("photographs", (file.name, file.read_bytes())) for file in parts[:8]]
        bad = [("photographs", ("bad.png", parts[0].read_bytes()[:99]))]
        assert browser.form("/start", files=shown).status_code == 422
        kept = browser.form("/start", {"who": "Eva"}, files=shown + bad, headers={"x-fragment": "1"})
        assert (kept.text.count('class="part"'), "Not judged" in kept.text) == (8, True)
        assert browser.form("/start/leave_out", {"sha256": "0" * 64, "who": "Eva"}).status_code == 422
        assert "data-double" not in kept.text
        again = browser.form("/start", {"who": "Eva"}, files=shown[:1], headers={"x-fragment": "1"})
        assert again.text.count("data-double") == 1
        digest = re.search('data-sha256="(.*?)"', kept.text)[1]
        assert "Say who you are" in browser.form("/start/leave_out", {"sha256": digest}).text
        assert browser.form("/start/leave_out", {"sha256": digest, "who": "Eva"}).status_code == 303
        assert "7 good parts were kept." in browser.get("/").text
        assert "Make the first model" not in browser.get("/").text
        # A watched folder goes on where the uploads ended.
        told = {"kind": "folder", "place": str(line), "take": "each", "who": "Udo"}
        assert browser.form("/source", told).status_code == 303
        for file in parts[8:]:
            shutil.copy(file, line)
        until(lambda: len(labels.records(browser.site.kept)) == 15)
        assert "Leave out" in browser.get("/source").text
        assert browser.site.kept.latest(9) == []
        page = browser.get("/").text
        assert "15 good parts were kept." in page
        assert "Make the first model" in page
        browser.site.close()


def test_a_page_does_not_keep_its_own_among_the_photographs_of_a_category(tmp_path):
    for part in ("train/good", "test/good", "test/chip"):
        (tmp_path / part).mkdir(parents=True)
    for project in (tmp_path, tmp_path / "train" / "page"):
        with pytest.raises(UserError, match="photographs of a category lie there"):
            serve.serve(ServeSettings(models=str(tmp_path), project=str(project), port=0))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["test", "train"]


def test_the_command_says_that_a_run_one_model_or_an_empty_folder_is_not_the_folder_of_all_models(tmp_path):
    one = tmp_path / "models" / "cap"
    (one / "1" / "assets.extra").mkdir(parents=True)
    (one / "1" / "assets.extra" / "mvtec_tf.json").write_text('{"threshold": 0.5}')
    assert missing(tmp_path / "models") == ""
    for inner in (one, one / "1"):
        assert missing(inner).endswith(f"it is a model itself. Name the folder of all models, {tmp_path / 'models'}.")
    (tmp_path / "run.json").touch()
    assert "it is a run. mvtec-tf export makes a model of it" in missing(tmp_path)
    assert "The page says how a first one is made" in missing(tmp_path / "none")


def test_what_is_watched_is_judged_from_the_first_model_on(settings, photographs, tmp_path, exported, monkeypatch):
    monkeypatch.setattr(sources, "_PAUSE", 0.02)
    line, models = tmp_path / "line", tmp_path / "models"
    line.mkdir()
    settings = dataclasses.replace(settings, models=str(models), folders=(str(line),))
    with Page(settings) as browser:
        browser.get("/")
        told = {"kind": "folder", "place": str(line), "take": "each", "who": "Udo"}
        assert browser.form("/source", told).status_code == 303
        shutil.copy(photographs[1], line / "first.png")
        until(lambda: browser.site.watching.judged == 1)
        shutil.copytree(exported, models / "small" / "1")
        shutil.copy(photographs[0], line / "second.png")
        until(lambda: browser.site.watching.judged == 2)
        # Not even when the model is away is a part taken for a good one again.
        models.rename(tmp_path / "away")
        shutil.copy(photographs[0].with_name("001.png"), line / "third.png")
        until(lambda: browser.site.watching.state == sources.LOST)
        # What waits is in the folder: that it is lost is said once.
        time.sleep(0.3)
        assert sum(event["what"] == "event_lost" for event in browser.site.kept.events(99)) == 1
        assert "There is no model" in browser.site.watching.reason
        assert [row["name"] for row in browser.site.kept.latest(9)] == ["second.png"]
        assert len(browser.get("/api/labels").json()) == 1
        browser.site.close()


def test_an_image_of_the_models_own_is_said_and_an_unsure_verdict_goes_to_a_person(exported, page, photographs):
    with (exported / "assets.extra" / "predictions.csv").open() as file:
        fitted = next(row["path"] for row in csv.DictReader(file) if row["split"] == "fit")
    shown = page.show(photographs[0].parents[3] / fitted)
    assert "The model was made with this very photograph" in shown.text
    row = page.site.kept.latest(1)[0]
    assert "Hottest at the" in shown.text
    page.site.kept._db.execute("UPDATE judgements SET verdict = 'unsure' WHERE id = ?", (row["id"],))
    assert "Ask a person" in page.get("/").text


def test_all_languages_say_the_same_with_the_same_values():
    english = wording.texts("en")
    used = {
        key
        for file in ROOM.rglob("*.*")
        if file.suffix in (".html", ".py")
        for key in re.findall(r"""(?:\bt|\.text)\(["'](\w+)["'][,)]""", file.read_text("utf-8"))
    }
    assert used <= set(english)
    for file in (ROOM / "words").glob("*.json"):
        other = json.loads(file.read_text("utf-8"))
        assert list(other) == list(english), file.name
        for key, text in english.items():
            fields = [sorted(re.findall(r"\{\w+", one)) for one in (text, other[key])]
            assert fields[0] == fields[1], (file.name, key)


def test_the_page_speaks_german_and_escapes_what_it_is_told(settings, photographs):
    with Page(dataclasses.replace(settings, language="de")) as browser:
        browser.get("/")
        shown = browser.show(('<script>alert("1")</script>.png', photographs[0].read_bytes()))
        assert "<h1>Zeigen Sie mir ein Teil</h1>" in shown.text
        assert "&lt;script&gt;" in shown.text or "script&gt;.png" in shown.text
        assert "<script>alert" not in shown.text
        # A number is read as this language writes it: 1.497 would be more than a thousand.
        (row,) = browser.site.kept.latest(1)
        assert f"Wert {row['score']:.4g}, Schwelle".replace(".", ",") in shown.text
        assert browser.site.text("drift_too_few", fewest=1200, parts=2).count("1.200") == 1
        # What a lower room says in English is said to be English.
        assert "das Bild ist nicht lesbar (englisch: " in browser.show(("cut.png", b"\x89PNG\r\n")).text
        assert "es ist kein Bild der Art PNG, JPEG oder BMP" in browser.show(("IMG.HEIC", b"\0\0\0\x18ftypheic")).text
        assert "Unter dieser Adresse gibt es nichts" in browser.get("/judge").text
        for screen in ("/", "/threshold", "/threshold?rule=target_recall&target=80", "/review", "/improve", "/watch"):
            # The path of the list of labels may hold any word.
            text = re.sub(r"<[^>]*>|/\S+", " ", browser.get(screen).text)
            assert re.findall(r"\b(?:the|of|is|are|and|which|with)\b", text) == [], screen
        browser.site.kept.close()


def test_the_command_refuses_what_others_could_reach_without_a_password(tmp_path, monkeypatch):
    monkeypatch.delenv("MVTEC_TF_APP_PASSWORD", raising=False)
    refused = run_binary("serve", "--host=0.0.0.0", f"--project={tmp_path / 'page'}", check=False)
    assert (refused.returncode, "MVTEC_TF_APP_PASSWORD" in refused.stderr) == (2, True)
    monkeypatch.setenv("MVTEC_TF_APP_PASSWORD", "short")
    refused = run_binary("serve", f"--project={tmp_path / 'page'}", check=False)
    assert (refused.returncode, "is guessed" in refused.stderr) == (2, True)
    assert not (tmp_path / "page").exists()


def test_a_model_of_several_is_asked_by_its_name_or_beside_the_others(settings, exported, photographs, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(exported, tmp_path / "models" / name / "3")
    with Page(dataclasses.replace(settings, models=str(tmp_path / "models"))) as browser:
        browser.get("/")
        assert browser.show(photographs[0], data={"models": "two"}).text.count('class="verdict"') == 1
        assert browser.show(photographs[0]).text.count('class="verdict"') == 2
        assert browser.show(photographs[0], data={"models": "three"}).status_code == 404
        assert len(browser.site.kept.latest(9)) == 2
        browser.site.kept.close()
