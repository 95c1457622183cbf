"""Review: labels are kept for ever, and the list of them is read by every command."""

import base64
import io
import json
import sqlite3

import numpy as np
import pytest
from PIL import Image

from mvtec_tf.app import labels
from mvtec_tf.data import masks
from mvtec_tf.data.formats import scan
from tests.app.conftest import Page

PROGRAM = {"x-mvtec-tf": "1"}


def _png(array):
    buffer = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def shown(page, toy):
    """(the page, SHA-256 of six judged parts: three good ones, three defective ones)."""
    folder = toy / "flange" / "test"
    files = [folder / kind / f"00{n}.png" for kind in ("good", "scratch") for n in range(3)]
    page.show(*files)
    by_name = {row["path"]: row["sha256"] for row in page.get("/api/judgements").json()}
    assert len(by_name) == 6
    parts = page.post(
        "/api/judge", files=[("photographs", (str(n), f.read_bytes())) for n, f in enumerate(files)], headers=PROGRAM
    ).json()["judgements"]
    return page, [row["sha256"] for row in parts]


def test_labels_become_a_list_that_every_command_reads_and_a_log_that_stays(shown):
    page, parts = shown
    drawn = np.zeros((16, 16, 4))
    drawn[4:8, 4:8] = 255
    for number, sha256 in enumerate(parts):
        label = "good" if number < 3 else "defective"
        told = {"sha256": sha256, "label": label, "who": "Eva", "defect": "deep scratch", "mask": _png(drawn)}
        assert page.form("/labels", told).status_code == 303
    table = page.site.kept.folder / labels.LIST
    assert table.read_text().splitlines()[0] == "path,label,category,defect,mask,group,split"
    records = scan.scan([table])
    assert [record.category for record in records] == ["flange"] * 6
    assert sorted(record.defect for record in records) == ["deep scratch"] * 3 + ["good"] * 3
    for record in records:
        assert bool(record.mask) == bool(record.label)
        if record.label:
            mask = masks.read(record.mask, (64, 64))
            assert mask[16:32, 16:32].all()
            assert mask.sum() == 256
    # No model knows a new photograph: it is of the others' category.
    new = _png(np.random.default_rng(0).integers(0, 255, (64, 64, 3)))
    given = {"photographs": ("new.png", base64.b64decode(new.partition(",")[2]))}
    (row,) = page.post("/api/judge", files=given, headers=PROGRAM).json()["judgements"]
    assert page.form("/labels", {"sha256": row["sha256"], "label": "good", "who": "Eva"}).status_code == 303
    assert [record.category for record in scan.scan([table])] == ["flange"] * 7
    assert page.form("/labels", {"sha256": row["sha256"], "label": "unclear", "who": "Eva"}).status_code == 303
    # The newest counts; the log has all, with what the models had said.
    assert page.form("/labels", {"sha256": parts[0], "label": "unclear", "who": "Udo"}).status_code == 303
    assert len(scan.scan([table])) == 5
    log = page.get("/api/labels").json()
    assert [(row["who"], row["label"]) for row in log][-1] == ("Udo", "unclear")
    assert len(log) == 9
    judged = {row["sha256"]: row for row in page.get("/api/judgements").json()}
    for row in log:
        (said,) = row["said"]
        assert {name: judged[row["sha256"]][name] for name in said} == said
    for query in ("UPDATE labels SET label = 'good'", "DELETE FROM labels"):
        with pytest.raises(sqlite3.IntegrityError, match="only added"):
            page.site.kept._db.execute(query)
    assert page.get("/labels.csv").text == table.read_text()
    screen = page.get("/review", params={"done": True}).text
    assert "Labelled so far: 2 good, 3 defective, 2 unclear." in screen
    assert "Nothing waits here" in page.get("/review").text


def test_the_most_doubtful_part_comes_first(shown):
    page, parts = shown
    exports = page.site.models.there()
    rows = page.site.kept.latest(9)
    nearest = min(rows, key=lambda row: abs(row["score"] - row["threshold"]))["sha256"]
    assert labels.waiting(page.site.kept, exports, labels.DOUBTFUL, 9)[0] == nearest
    assert labels.waiting(page.site.kept, exports, "newest", 2) == parts[:-3:-1]
    farthest = max(rows, key=lambda row: abs(row["score"] - row["threshold"]))
    page.site.kept._db.execute("UPDATE judgements SET verdict = 'unsure' WHERE id = ?", (farthest["id"],))
    assert labels.waiting(page.site.kept, exports, labels.DOUBTFUL, 9)[0] == farthest["sha256"]
    assert page.get("/review").text.index(farthest["sha256"]) < page.get("/review").text.index(nearest)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"sha256": "0" * 64}, "nothing at this address"),
        ({"label": "fine"}, "one of good, defective"),
        ({"who": "\n"}, "who you are"),
        ({"defect": "../x"}, "without / or"),
        ({"defect": "OK"}, "sounds like good"),
        ({"defect": "n/a"}, "without / or"),
        ({"defect": "x" * 61}, "up to 60"),
        ({"mask": "data:image/png;base64,AAAA"}, "cannot be read"),
        ({"mask": "<script>"}, "cannot be read"),
        ({"mask": _png(np.zeros((8, 8, 4)))}, "marks nothing"),
        ({"mask": _png(np.full((8, 8, 4), 255))}, "the whole photograph"),
    ],
)
def test_a_label_that_says_nothing_is_refused_and_leaves_nothing(page, photographs, wrong, told):
    page.show(photographs[0])
    (row,) = page.site.kept.latest(2)
    given = {"sha256": row["sha256"], "label": "defective", "who": "Eva", "defect": "chip"}
    refused = page.form("/labels", given | wrong)
    assert (refused.status_code, told in refused.text) == (422, True)
    assert page.get("/api/labels").json() == []
    assert list((page.site.kept.folder / "masks").iterdir()) == []


def test_a_type_in_another_spelling_is_refused_and_html_is_shown_as_text(shown):
    page, parts = shown
    given = {"label": "defective", "who": "<img src=x>", "defect": "<b>chip<b>"}
    assert page.post("/api/labels", json=given | {"sha256": parts[0]}, headers=PROGRAM).status_code == 200
    again = page.post("/api/labels", json=given | {"sha256": parts[1], "defect": "<B>chip<b>"}, headers=PROGRAM)
    assert (again.status_code, "differ in case" in json.loads(again.text)["error"]) == (422, True)
    assert page.post("/api/labels", json=given | {"sha256": parts[1]}).status_code == 403
    screen = page.get("/review", params={"done": True}).text
    assert "<b>chip" not in screen
    assert "<img src=x>" not in screen
    assert "&lt;img src=x&gt; said on" in screen


def test_the_list_is_there_again_after_a_kill_between_label_and_list(settings, photographs):
    with Page(settings) as browser:
        browser.get("/")
        browser.show(photographs[1])
        sha256 = browser.site.kept.latest(1)[0]["sha256"]
        browser.form("/labels", {"sha256": sha256, "label": "good", "who": "Eva"})
        table = browser.site.kept.folder / labels.LIST
        text = table.read_text()
        browser.site.kept.close()
    table.unlink()
    with Page(settings) as browser:
        assert table.read_text() == text
        assert sha256 in text
        browser.site.kept.close()
