"""The exploration's page and tables, and the binary that makes them."""

import base64
import csv
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mvtec_tf.data.formats import scan as records
from mvtec_tf.exploration import report as exploration_report
from mvtec_tf.exploration.survey import explore
from mvtec_tf.exploration.thumbnails import Thumbnails
from tests.conftest import run_binary

SIDE = 256


def _noise(seed, side=SIDE):
    """A photograph: a smooth motif of its own under a sensor's noise, which is what tells copies."""
    rng = np.random.default_rng(seed)
    motif = Image.fromarray(rng.integers(40, 215, (6, 6, 3)).astype(np.uint8))
    smooth = np.asarray(motif.resize((side, side), Image.Resampling.BICUBIC), float)
    return Image.fromarray(np.clip(smooth + rng.normal(0, 5, (side, side, 1)), 0, 255).astype(np.uint8))


def _save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _set(root, category="bolt"):
    """12 + 10 + 10 images and masks; nothing wrong with them."""
    for i in range(12):
        _save(root / category / f"train/good/{i:03d}.png", _noise(i))
    for i in range(10):
        _save(root / category / f"test/good/{i:03d}.png", _noise(100 + i))
        _save(root / category / f"test/dent/{i:03d}.png", _noise(200 + i))
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[i : i + SIDE // 4, : SIDE // 2] = 255
        _save(root / category / f"ground_truth/dent/{i:03d}_mask.png", Image.fromarray(mask))
    return root


def _spoilt(root):
    _set(root)
    (root / "bolt/test/good/copied.png").write_bytes((root / "bolt/train/good/003.png").read_bytes())
    _save(root / "bolt/test/good/near.jpg", Image.open(root / "bolt/train/good/004.png"))
    (root / "bolt/train/good/broken.png").write_bytes(b"")
    _save(root / "bolt/ground_truth/dent/001_mask.png", Image.new("L", (SIDE, SIDE), 0))
    return root


def _written(out, root, title="Exploration"):
    document = exploration_report.write_exploration(out, explore(records.scan([root])), title)
    return document, (out / "exploration.html").read_text()


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_begins_with_how_many_and_what_needs_attention(tmp_path):
    document, page = _written(tmp_path / "out", _spoilt(tmp_path / "data"))
    assert document["summary"].startswith(
        "35 images in 1 category: 13 to train on, all called good, and 22 to test on, 10 of them called defective."
    )
    for words in ("2 test images are in train too", "1 image file cannot be read", "1 mask is empty"):
        assert words in document["summary"]
        assert words in page.split("</section>")[0]


def test_a_set_in_order_is_said_to_be(tmp_path):
    document, page = _written(tmp_path / "out", _set(tmp_path / "data"))
    assert "Nothing needs attention" in document["summary"]
    assert document["attention"] == []
    assert "What needs attention" not in page


def test_the_page_needs_nothing_from_outside_and_shows_the_images(tmp_path):
    _, page = _written(tmp_path / "out", _spoilt(tmp_path / "data"))
    sources = re.findall(r'(?:src|href)="([^"]*)', page)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link", re.sub(r"base64,[^\"]*", "", page))
    # Six of each of three classes, and both images of two pairs.
    assert len(sources) == 3 * 6 + 4
    assert page.index("bolt/test/good/near.jpg") < page.index("Contact sheets")


def test_names_from_the_data_are_escaped(tmp_path):
    _, page = _written(tmp_path / "out", _set(tmp_path / "data", "<b>&amp;"), "a < b")
    assert "<b>&amp;" not in page
    assert "&lt;b&gt;&amp;amp;" in page
    assert "<h1>a &lt; b</h1>" in page


def test_the_tables_name_every_image_pair_mask_and_failure(tmp_path):
    out = tmp_path / "out"
    document, _ = _written(out, _spoilt(tmp_path / "data"))
    images = {row["path"]: row for row in _rows(out / "images.csv")}
    assert len(images) == 34
    assert images["bolt/test/good/near.jpg"]["format"] == "JPEG"
    expected = np.asarray(_noise(0).convert("L"), np.float64)
    assert float(images["bolt/train/good/000.png"]["brightness"]) == pytest.approx(expected.mean(), abs=1e-3)
    pairs = {(row["first"], row["second"]): row for row in _rows(out / "duplicates.csv")}
    assert {key: (row["kind"], row["relation"], row["leaks"]) for key, row in pairs.items()} == {
        ("bolt/train/good/003.png", "bolt/test/good/copied.png"): ("same file", "train and test", "1"),
        ("bolt/train/good/004.png", "bolt/test/good/near.jpg"): ("changed copy", "train and test", "1"),
    }
    assert _rows(out / "unreadable.csv") == [{"path": "bolt/train/good/broken.png", "reason": "the file is empty"}]
    masks = {row["path"]: row for row in _rows(out / "defect_area.csv")}
    assert (masks["bolt/test/dent/000.png"]["state"], masks["bolt/test/dent/000.png"]["area"]) == ("ok", "0.125000")
    assert masks["bolt/test/dent/001.png"]["state"] == "empty"
    assert json.loads((out / "summary.json").read_text()) == document
    assert document["duplicate_pairs"] == {"train and test": 2}


def test_the_same_set_gives_the_same_bytes(tmp_path):
    root = _spoilt(tmp_path / "data")
    for out in ("a", "b"):
        _written(tmp_path / out, root)
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert names == [
        "defect_area.csv", "duplicates.csv", "exploration.html", "images.csv", "summary.json", "unreadable.csv"
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_page_of_too_many_pictures_leaves_some_out_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(exploration_report, "_THUMBNAIL_BUDGET", 30_000)
    _, page = _written(tmp_path / "out", _set(tmp_path / "data"))
    shown = page.count("data:image/jpeg")
    assert 0 < shown < 18
    assert f"{18 - shown} thumbnails left out" in page
    assert sum(map(len, re.findall(r"<img[^>]*>", page))) <= 30_000


def test_long_lists_are_cut_on_the_page_and_whole_in_the_tables(tmp_path):
    root = _set(tmp_path / "data")
    for i in range(60):
        (root / f"bolt/train/good/broken{i:02d}.png").write_bytes(b"")
    _, page = _written(tmp_path / "out", root)
    assert "... and 30 more, in summary.json." in page
    assert len(_rows(tmp_path / "out" / "unreadable.csv")) == 60


def test_a_thumbnail_outlines_the_mask_and_leaves_the_defect_visible(tmp_path):
    _save(tmp_path / "grey.png", Image.new("RGB", (180, 180), (90, 90, 90)))
    mask = np.zeros((180, 180), np.uint8)
    mask[60:120, 60:120] = 255
    _save(tmp_path / "mask.png", Image.fromarray(mask))
    html = Thumbnails(100_000).html(str(tmp_path / "grey.png"), "grey", str(tmp_path / "mask.png"))
    pixels = _decoded(html)
    assert np.abs(pixels[90, 90].astype(int) - 90).max() < 12
    assert np.abs(pixels[10, 10].astype(int) - 90).max() < 12
    reddest = np.argwhere(pixels[..., 0] > 180)
    assert 54 <= reddest.min() <= 60
    assert 119 <= reddest.max() <= 125


def _decoded(html):
    content = re.search(r"base64,([^\"]*)", html).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_the_binary_ends_well_although_something_needs_attention_and_prints_the_folder_last(tmp_path):
    root = _spoilt(tmp_path / "data")
    done = run_binary("explore_data", f"--data_dir={root}", f"--out={tmp_path / 'out'}", "--categories=bolt")
    assert "2 test images are in train too" in done.stdout
    assert "1 image file cannot be read" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out")
    assert (tmp_path / "out" / "exploration.html").is_file()


def test_the_binary_passes_on_what_the_scanner_refuses(tmp_path):
    done = run_binary("explore_data", f"--data_dir={tmp_path}", f"--out={tmp_path / 'out'}", check=False)
    assert done.returncode == 1
    assert "no category folder in it" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_binary_asks_for_a_folder_to_write_to(tmp_path):
    done = run_binary("explore_data", f"--data_dir={tmp_path}", check=False)
    assert done.returncode == 2
    assert "--out is missing" in done.stderr


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    root = _set(tmp_path / "data")
    (tmp_path / "file").write_text("")
    done = run_binary("explore_data", f"--data_dir={root}", f"--out={tmp_path / 'file'}", check=False)
    assert done.returncode == 1
    assert f"--out={tmp_path / 'file'}" in done.stderr
    assert "Traceback" not in done.stderr


def test_exploring_does_not_wait_for_tensorflow():
    code = "import sys; import mvtec_tf.exploration.report as _; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
