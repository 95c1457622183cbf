"""Improve: a fit of its own process with the page's labels, judged beside the model in use, promoted by a person."""

import concurrent.futures
import dataclasses
import io
import pathlib
import re
import types

import numpy as np
import pytest
from PIL import Image

from mvtec_tf.app import improving
from mvtec_tf.app.models import held_out
from mvtec_tf.data.formats import scan
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.metrics import Confusion, Metric
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.files import read_json
from tests.app.conftest import Page


def _new_photographs(folder, count):
    """Parts that no set has: the folder's, mirrored."""
    for file in sorted(folder.glob("*.png"))[:count]:
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(Image.open(file))[:, ::-1]).save(buffer, "PNG")
        yield f"new {file.name}", buffer.getvalue()


def _labelled(browser, photographs, label):
    browser.show(*photographs)
    for row in browser.site.kept.latest(len(photographs)):
        assert browser.form("/labels", {"sha256": row["sha256"], "label": label, "who": "Eva"}).status_code == 303


def _is_shown_beside_good_parts(browser, toy, images):
    """What only an export of a run with held-out good parts can say; `images` lists those of the run."""
    known = {row.file for row in scan.scan([images]) if not row.label}
    browser.site.kept.change("DELETE FROM judgements")
    for name in ("good", "scratch"):
        shown = browser.show(sorted((toy / "flange" / "test" / name).glob("*.png"))[-1])
        assert "keeps no good parts" not in shown.text
        pictures = re.findall('src="(/nearest/[0-9a-f]{64}.jpg)"', shown.text)
        assert len(pictures) == 3
        assert Image.open(io.BytesIO(browser.get(pictures[0]).content)).size == (64, 64)
        assert "times as far away as good parts are from one another" in shown.text
    good, _ = held_out(browser.site.models.there()[0])
    for row in browser.site.kept.latest(2):
        assert {one["file"] for one in row["nearest"]} <= {str(pathlib.Path(file).resolve()) for file in known}
        span = row["threshold"] - good.mean()
        assert 0 <= row["heat"]["level"] <= 1
        if span > 0 and row["verdict"] != "good":
            assert row["heat"]["level"] == 1
    assert browser.get("/nearest/" + "0" * 64 + ".jpg").status_code == 404
    assert browser.get("/nearest/..%2f..%2fpage.sqlite.jpg").status_code in (404, 422)


@pytest.mark.slow
def test_a_fit_with_the_labels_of_the_page_is_set_beside_the_model_in_use_and_promoted(
    settings, root, toy, small_encoder, tmp_path
):
    flags = tmp_path / "fit.flags"
    flags.write_text(f"--encoder={small_encoder}\n--head=mahalanobis\n")
    settings = dataclasses.replace(settings, models=str(root), fit_flagfile=str(flags))
    with Page(settings) as browser:
        browser.get("/improve")
        _labelled(browser, list(_new_photographs(toy / "flange" / "test" / "good", 3)), "good")
        _labelled(browser, list(_new_photographs(toy / "flange" / "test" / "scratch", 2)), "defective")
        asked = {"data": str(toy / "flange"), "with_labels": "true", "label_budget": "0.2", "in_use": "small"}
        begun = browser.form("/improve", asked | {"who": "Eva"})
        assert begun.status_code == 303, begun.text
        (process,) = improving._CHILDREN
        assert browser.form("/improve", asked | {"who": "Eva"}).status_code == 422
        assert "is being made" in browser.get("/improve").text
        assert process.wait() == 0, improving.jobs(browser.site.kept)[0].log
        (job,) = improving.jobs(browser.site.kept)
        assert (job.state, job.asked["added"], job.asked["images"]) == (improving.FINISHED, 5, 47)
        names = {record.path for record in scan.scan([toy / "flange"])}
        added = [one for one in scan.scan([job.folder / "images.csv"]) if one.path not in names]
        assert sorted(record.label for record in added) == [0, 0, 0, 1, 1]
        found = improving.outcome(job)
        evaluated = read_predictions(job.folder / "run" / "predictions.csv").part("evaluate")
        assert found.new.calls.defective == found.old.calls.defective == found.defective
        assert 0 < found.defective + found.good <= len(evaluated)
        screen = browser.get("/improve").text
        assert "that neither had seen" in screen
        assert "<h1>" in browser.get("/improve/1/report.html").text
        # Only a person promotes, and by a name that a server finds.
        assert [export.version for export in browser.site.models.there()] == [1]
        assert browser.form("/improve/1/promote", {"name": "../x", "who": "Eva"}).status_code == 422
        assert browser.form("/improve/1/promote", {"name": "small", "who": ""}).status_code == 422
        # A button that is pressed twice makes one version.
        for _ in range(2):
            assert browser.form("/improve/1/promote", {"name": "small", "who": "Udo"}).status_code == 303
        assert [export.version for export in browser.site.models.there()] == [2]
        assert "In use since Udo said so: small, version 2." in browser.get("/improve").text
        _is_shown_beside_good_parts(browser, toy, job.folder / "images.csv")
        browser.site.kept.close()
    card = read_json(root / "small" / "2" / "assets.extra" / "mvtec_tf.json")
    assert card["kind"] == "probe"
    with Page(dataclasses.replace(settings, language="de")) as browser:
        screen = browser.get("/improve").text
        calls = found.new.calls
        assert f"Das neue Modell findet {calls.tp} von {calls.defective} fehlerhaften, " in screen
        assert "The " not in screen
        screen = browser.get("/threshold").text
        assert card["threshold_origin"] not in screen
        assert "die dafür zurückgelegt waren" in screen
        browser.site.kept.close()


def _side(tn, fp, fn, tp):
    return improving.Side(Confusion(tn, fp, fn, tp), dict.fromkeys(improving.FIGURES, Metric(0.75, low=0.5, high=1.0)))


def test_what_a_new_model_comes_to_is_said_in_plain_words_of_both_languages(settings, tmp_path, monkeypatch):
    new, old = _side(38, 2, 1, 9), _side(35, 5, 3, 7)
    both = dict(defective=10, good=40, parts=50, differences=new.figures, alone=(5, 0))
    outcomes = {
        1: improving.Outcome(new.calls, new=new, old=old, shown="better", **both),
        2: improving.Outcome(old.calls, new=old, old=new, shown="worse", **both),
        3: improving.Outcome(new.calls, new=new, old=new, **both),
        4: improving.Outcome(new.calls, defective=0, good=4),
        5: improving.Outcome(Confusion(14, 1, 0, 0)),
        6: improving.Outcome(None),
    }
    asked = {"who": "Eva", "at": "2026-11-28T12:43", "images": 50, "added": 6, "label_budget": "all", "promoted": 0}
    made = [
        improving.Job(number, tmp_path, asked | {"in_use": "small" * (number < 5)}, improving.FINISHED, "")
        for number in outcomes
    ]
    monkeypatch.setattr(improving, "jobs", lambda kept: made)
    monkeypatch.setattr(improving, "outcome", lambda job: outcomes[job.number])
    expected = {
        "en": [
            ("shown to be better, on 50 parts that neither", "9 of 10 defective ones, 2 more than the model in use"),
            ("shown to be worse", "5 of 40 good ones by mistake, 3 more than", "keep the model in use."),
            (
                "not shown that",
                "2 of 40 good ones by mistake, as many as",
                "label more parts in Review",
                "0.750 [0.500 to",
            ),
            ("cannot be set beside each other", "0 show defective parts and 4 good", "finds 9 of 10 defective ones."),
            ("tried on 15 photographs", "How many defects it finds is not known", "stops 1 of 15 good"),
            ("calls nothing good or defective",),
        ],
        "de": [
            (
                "nachweislich besser, an 50 Teilen, die keines",
                "9 von 10 fehlerhaften, 2 mehr als das Modell in Gebrauch",
            ),
            (
                "nachweislich schlechter",
                "5 von 40 guten irrtümlich auf, 3 mehr als",
                "beim Modell in Gebrauch bleiben.",
            ),
            (
                "ist nicht gezeigt",
                "2 von 40 guten irrtümlich auf, ebenso viele wie",
                "vor allem fehlerhafte",
                "0,750 [0,500 bis",
            ),
            ("lassen sich nicht vergleichen", "zeigen 0 fehlerhafte und 4 gute", "findet 9 von 10 fehlerhaften."),
            ("an 15 Fotos erprobt", "Wie viele Fehler es findet, ist nicht bekannt", "hält 1 von 15 guten"),
            ("nennt nichts gut oder fehlerhaft",),
        ],
    }
    for language, sentences in expected.items():
        with Page(dataclasses.replace(settings, language=language)) as browser:
            sections = browser.get("/improve").text.split("<section")[1:]
            for section, told in zip(sections, sentences, strict=True):
                assert [one for one in told if one not in section] == []
            browser.site.kept.close()


def test_a_fit_outlives_the_page_and_can_be_cancelled_and_gone_on_with(settings, toy, monkeypatch):
    monkeypatch.setattr(improving, "command", lambda job: "echo begun; exec sleep 600")
    with Page(settings) as browser:
        browser.get("/improve")
        asked = {"data": str(toy / "flange"), "label_budget": "0", "who": "Eva"}
        assert browser.form("/improve", asked).status_code == 303
        browser.site.kept.close()
    with Page(settings) as browser:
        browser.get("/improve")
        (job,) = improving.jobs(browser.site.kept)
        assert job.state == improving.RUNNING
        assert browser.form("/improve/1/promote", {"name": "small", "who": "Eva"}).status_code == 422
        assert browser.form("/improve/1/cancel").status_code == 303
        improving._CHILDREN[-1].wait()
        assert "was stopped" in browser.get("/improve").text
        assert browser.form("/improve/1/go_on").status_code == 303
        (job,) = improving.jobs(browser.site.kept)
        assert job.state == improving.RUNNING
        improving.cancel(job)
        improving._CHILDREN[-1].wait()
        # However a button is pressed, one fit runs at a time.
        with concurrent.futures.ThreadPoolExecutor(4) as hands:
            answers = list(hands.map(lambda _: browser.form("/improve", asked).status_code, range(4)))
        assert sorted(answers) == [303, 422, 422, 422]
        assert [one.state for one in improving.jobs(browser.site.kept)] == [improving.RUNNING, improving.STOPPED]
        refused = browser.form("/improve/1/go_on")
        assert (refused.status_code, "Another model is being made" in refused.text) == (422, True)
        improving.cancel(improving.jobs(browser.site.kept)[0])
        improving._CHILDREN[-1].wait()
        browser.site.kept.close()


def test_what_no_fit_could_use_is_told_at_once_and_leaves_no_job(page, toy, tmp_path):
    (tmp_path / "empty").mkdir()
    for wrong, told in (
        ({"data": str(tmp_path / "nothing")}, "nothing"),
        ({"data": str(tmp_path / "empty")}, "empty"),
        ({"data": ""}, "Name a folder"),
        ({"data": str(toy / "flange"), "who": ""}, "who you are"),
        ({"data": str(toy / "flange"), "label_budget": "0 --x"}, "label_budget"),
        ({"data": str(toy / "flange"), "in_use": "other"}, "no model"),
    ):
        asked = {"label_budget": "0", "who": "Eva"} | wrong
        refused = page.form("/improve", asked)
        assert (refused.status_code, told in refused.text) == (422, True), wrong
    assert improving.jobs(page.site.kept) == []
    assert page.form("/improve/7/cancel").status_code == 404
    with pytest.raises(UserError, match="not_found"):
        improving.job_of(page.site.kept, 7)


def test_a_fit_that_fails_by_itself_says_why_and_is_no_stopped_one(settings, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(improving, "sys", types.SimpleNamespace(executable=str(tmp_path / "fit")))
    (tmp_path / "fit").write_text("#!/bin/sh\necho begun\necho 'ERROR: no <network>:'\necho 'give a file'\nexit 2\n")
    (tmp_path / "fit").chmod(0o700)
    parts = sorted((toy / "flange" / "train" / "good").glob("*.png"))[:15]
    with Page(dataclasses.replace(settings, models=str(tmp_path / "none"), max_files=15)) as browser:
        browser.get("/")
        shown = [("photographs", (file.name, file.read_bytes())) for file in parts]
        assert browser.form("/start", {"who": "Eva"}, files=shown).status_code == 303
        asked = {"with_labels": "true", "label_budget": "0", "weights": "my.h5", "who": "Eva"}
        assert browser.form("/improve", asked).status_code == 303
        assert improving._CHILDREN[-1].wait() == 0
        (job,) = improving.jobs(browser.site.kept)
        assert (job.state, job.reason) == (improving.FAILED, "no <network>:\ngive a file")
        for screen in (browser.get("/").text, browser.get("/improve").text):
            assert "Why it failed: no &lt;network&gt;:\ngive a file" in screen
            assert 'name="weights" value="my.h5"' in screen
            assert "was stopped" not in screen
        assert "Go on where it stopped" not in browser.get("/improve").text
        monkeypatch.setattr(improving, "command", lambda job: "exec sleep 600")
        assert improving.go_on(job).state == improving.RUNNING
        improving.cancel(improving.job_of(browser.site.kept, 1))
        improving._CHILDREN[-1].wait()
        assert improving.job_of(browser.site.kept, 1).state == improving.STOPPED
        browser.site.kept.close()


def test_a_new_model_is_asked_for_as_the_one_in_use_was_and_of_all_labels(page, photographs, tmp_path):
    def prefilled(**flags):
        (tmp_path / "assets.extra").mkdir(exist_ok=True)
        told = "".join(f"--{name}={said}\n" for name, said in flags.items())
        (tmp_path / "assets.extra" / "flags.txt").write_text(told)
        return improving.asked_before(page.site.kept, types.SimpleNamespace(path=tmp_path))

    there = {"data_dir": str(tmp_path), "weights": "my.h5", "label_budget": "0.2"}
    assert prefilled(**there) == {"data": str(tmp_path), "weights": "my.h5", "label_budget": "0.2"}
    assert "data" not in prefilled(**there | {"data_dir": "gone"})
    # Of a model that the page has made, what a person had asked for.
    folder = page.site.kept.folder / "jobs" / "1"
    folder.mkdir(parents=True)
    (folder / "asked.json").write_text('{"data": "", "weights": "imagenet", "label_budget": "all", "in_use": ""}')
    own = prefilled(**there | {"data_dir": str(folder / "images.csv")})
    assert own == {"weights": "imagenet", "label_budget": "all"}
    (folder / "asked.json").unlink()
    folder.rmdir()
    assert '<option value="all" selected>' not in page.get("/improve").text
    _labelled(page, photographs[:1], "defective")
    assert '<option value="all" selected>' in page.get("/improve").text
    (row,) = page.site.kept.latest(1)
    # A good part that was shown to the page lies there under its content's name.
    assert page.site.kept.name_of(f"images/{row['sha256']}.png", row["sha256"]) == photographs[0].name
    assert page.site.kept.name_of(f"images/{'0' * 64}.png", "0" * 64) == "00000000"
    assert page.site.kept.name_of("line/7.png", "0" * 64) == "7.png"


def test_what_a_shell_would_read_in_a_name_is_a_name(tmp_path):
    asked = {"weights": "a'; touch x; '", "label_budget": "0", "flagfile": "", "in_use": "m $(touch y)"}
    told = improving.command(improving.Job(1, tmp_path / "a b; touch z", asked, improving.STOPPED, ""))
    assert """'--weights=a'"'"'; touch x; '"'"''""" in told
    assert "'--model=m $(touch y)'" in told
    assert f"'--run_dir={tmp_path}/a b; touch z/run'" in told
