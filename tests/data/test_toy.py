"""The toy factory: the layout everyone else reads, truthful masks, and defects that trivial features miss."""

import csv
import filecmp
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from mvtec_tf.data.formats import scan as records
from mvtec_tf.data.toy import factory as toy
from mvtec_tf.errors import UserError
from mvtec_tf.features import baselines
from mvtec_tf.heads.linear import Logistic
from tests.conftest import run_binary

SMALL = {"image_size": 48, "train_good": 4, "test_good": 3, "per_defect": 3}
# Named here once more, so that a renamed category or defect is noticed.
DEFECTS = {"denim": {"broken_yarn", "hole", "stain"}, "flange": {"blocked_hole", "chip", "scratch"}}
ALL_DEFECTS = DEFECTS | {"mesh": {"bent", "broken", "missing"}, "board": {"missing", "scratch", "splash"}}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small") / "toy"
    assert toy.write_toy_factory(root, seed=3, **SMALL) == sorted(DEFECTS)
    return root


@pytest.fixture(scope="module")
def photographs():
    """Every defect, both severities, several seeds: (category, defect, severity, Photograph)."""
    wanted = [
        (category, defect, index, seed)
        for category in ALL_DEFECTS
        for defect in sorted(ALL_DEFECTS[category])
        for index in range(6)
        for seed in (0, 1)
    ]
    return [
        (
            category,
            defect,
            toy.severity(index),
            toy.photograph(category, "test", defect, index, seed=seed, image_size=64),
        )
        for category, defect, index, seed in wanted
    ]


def _files(root):
    return {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}


def _sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def test_the_files_are_exactly_the_mvtec_layout_and_the_two_tables(small):
    expected = {"toy.json"}
    for category, defects in DEFECTS.items():
        expected.add(f"{category}/severity.csv")
        expected |= {f"{category}/train/good/00{i}.png" for i in range(4)}
        expected |= {f"{category}/test/good/00{i}.png" for i in range(3)}
        expected |= {f"{category}/test/{defect}/00{i}.png" for defect in defects for i in range(3)}
        expected |= {f"{category}/ground_truth/{defect}/00{i}_mask.png" for defect in defects for i in range(3)}
    assert set(_files(small)) == expected


def test_the_scanner_reads_it_with_a_mask_for_every_defect(small):
    found = records.scan([small])
    assert len(found) == 2 * (4 + 3 + 3 * 3)
    assert {(r.category, r.defect) for r in found if r.label} == {(c, d) for c in DEFECTS for d in DEFECTS[c]}
    assert all(bool(record.mask) == bool(record.label) for record in found)


def test_images_are_rgb_and_masks_black_and_white_of_the_same_size(small):
    for name, path in _files(small).items():
        if not name.endswith(".png"):
            continue
        with Image.open(path) as image:
            assert image.size == (48, 48), name
            assert image.mode == ("L" if "ground_truth" in name else "RGB"), name
            if "ground_truth" in name:
                assert set(np.unique(np.asarray(image))) == {0, 255}, name


def test_severity_names_every_image_once(small):
    for category in DEFECTS:
        with (small / category / "severity.csv").open(newline="", encoding="utf-8") as file:
            table = {row["path"]: row["severity"] for row in csv.DictReader(file)}
        images = {r.path.removeprefix(f"{category}/"): r for r in records.scan([small / category])}
        assert set(table) == set(images)
        for path, record in images.items():
            assert (table[path] == "good") == (record.label == 0)
        assert set(table.values()) == {"good", "subtle", "gross"}
        with (small / category / "severity.csv").open(encoding="utf-8") as file:
            assert sum(1 for _ in file) == 1 + len(table)


def test_a_mask_is_neither_empty_nor_the_whole_image(photographs):
    for category, defect, severity, drawn in photographs:
        share = np.mean(drawn.mask == 255)
        assert 0.001 < share < 0.35, (category, defect, severity, share)


def test_a_mask_lies_where_the_image_differs_from_the_same_part_without_the_defect(photographs):
    for category, defect, severity, drawn in photographs:
        difference = np.abs(drawn.image.astype(int) - drawn.without_defect.astype(int)).max(axis=2)
        # One level more than the threshold: both pictures were rounded.
        assert difference[drawn.mask == 0].max() <= toy.MASK_LEVELS + 1, (category, defect, severity)
        visible = difference[drawn.mask == 255] >= toy.MASK_LEVELS - 1
        assert visible.mean() > 0.6, (category, defect, severity, visible.mean())
        assert difference.max() > 40, (category, defect, severity)


def test_a_good_photograph_shows_no_defect():
    for category in DEFECTS:
        drawn = toy.photograph(category, "test", "good", 0, seed=0, image_size=48)
        assert not drawn.mask.any()
        np.testing.assert_array_equal(drawn.image, drawn.without_defect)


def test_subtle_defects_are_smaller_than_gross_ones(photographs):
    for category in DEFECTS:
        for defect in DEFECTS[category]:
            sizes = {
                severity: [
                    np.mean(p.mask == 255) for c, d, s, p in photographs if (c, d, s) == (category, defect, severity)
                ]
                for severity in ("subtle", "gross")
            }
            assert np.mean(sizes["subtle"]) < 0.8 * np.mean(sizes["gross"]), (category, defect, sizes)


def test_a_defect_hardly_changes_the_mean_brightness(photographs):
    for category, defect, severity, drawn in photographs:
        if severity == "subtle":
            means = baselines.mean_brightness(np.stack([drawn.image, drawn.without_defect]))[:, 0]
            # Light alone changes it by 8 % either way.
            assert abs(means[0] / means[1] - 1.0) < 0.03, (category, defect)


def test_good_images_differ_from_one_another():
    for category in DEFECTS:
        images = [toy.photograph(category, "train", "good", i, seed=0, image_size=48).image for i in range(5)]
        for i, one in enumerate(images):
            for other in images[i + 1 :]:
                assert np.abs(one.astype(int) - other).mean() > 5


def test_the_same_seed_gives_the_same_bytes_in_another_process(small, tmp_path):
    again = tmp_path / "again"
    call = f"from mvtec_tf.data.toy import factory as toy; toy.write_toy_factory({str(again)!r}, seed=3, **{SMALL!r})"
    subprocess.run([sys.executable, "-c", call], check=True, env={**os.environ, "PYTHONHASHSEED": "77"})
    assert set(_files(again)) == set(_files(small))
    for name, path in _files(small).items():
        assert filecmp.cmp(path, again / name, shallow=False), name


def test_an_image_does_not_depend_on_how_many_others_are_drawn(small, tmp_path):
    toy.write_toy_factory(tmp_path / "fewer", seed=3, image_size=48, train_good=1, test_good=2, per_defect=2)
    shared = [name for name in _files(tmp_path / "fewer") if name.endswith(".png")]
    assert len(shared) == 2 * (1 + 2 + 2 * 3 * 2)
    for name in shared:
        assert filecmp.cmp(small / name, tmp_path / "fewer" / name, shallow=False), name


def test_no_two_images_are_the_same_and_another_seed_gives_others(small, tmp_path):
    toy.write_toy_factory(tmp_path / "other", seed=4, **SMALL)
    images = [record.file for root in (small, tmp_path / "other") for record in records.scan([root])]
    assert len({_sha256(image) for image in images}) == len(images) == 2 * 32


def test_a_complete_set_of_the_same_settings_is_left_as_it_is(small):
    before = {name: path.stat().st_mtime_ns for name, path in _files(small).items()}
    assert toy.write_toy_factory(small, seed=3, **SMALL) == sorted(DEFECTS)
    assert {name: path.stat().st_mtime_ns for name, path in _files(small).items()} == before


def test_a_set_of_other_settings_is_refused_and_kept(small):
    with pytest.raises(UserError, match=r"other settings.*delete this one"):
        toy.write_toy_factory(small, seed=5, **SMALL)
    assert json.loads((small / "toy.json").read_text())["seed"] == 3


def test_a_set_that_lost_a_file_is_refused_by_name(tmp_path):
    counts = {"image_size": 32, "train_good": 1, "test_good": 1, "per_defect": 1}
    toy.write_toy_factory(tmp_path / "toy", **counts)
    (tmp_path / "toy/flange/ground_truth/chip/000_mask.png").unlink()
    with pytest.raises(UserError, match=r"chip/000_mask\.png"):
        toy.write_toy_factory(tmp_path / "toy", **counts)


def test_a_folder_with_something_else_in_it_is_refused_and_kept(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match=r"no toy factory"):
        toy.write_toy_factory(tmp_path / "photos", **SMALL)
    assert (tmp_path / "photos" / "mine.txt").read_text() == "keep me"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    toy.write_toy_factory(tmp_path / "empty", image_size=32, train_good=1, test_good=1, per_defect=1)
    assert len(records.scan([tmp_path / "empty"])) == 2 * 5


def test_a_write_that_fails_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    save, calls = toy._save, []

    def failing(path, pixels):
        calls.append(path)
        if len(calls) == 5:
            raise OSError("disk full")
        save(path, pixels)

    monkeypatch.setattr(toy, "_save", failing)
    with pytest.raises(OSError, match="disk full"):
        toy.write_toy_factory(tmp_path / "toy", **SMALL)
    assert len(calls) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "value"), [("image_size", 31), ("train_good", 0), ("per_defect", 0), ("seed", -1)])
def test_a_setting_out_of_range_is_named(tmp_path, name, value):
    with pytest.raises(UserError, match=f"`{name}`={value}"):
        toy.write_toy_factory(tmp_path / "toy", **{**SMALL, name: value})
    assert not (tmp_path / "toy").exists()


def test_the_binary_draws_and_prints_the_folder_last(tmp_path):
    flags = ["--image_size=32", "--train_good=1", "--test_good=1", "--per_defect=1", f"--out={tmp_path / 'toy'}"]
    done = run_binary("make_toy", *flags)
    assert done.stdout.splitlines()[-1] == str(tmp_path / "toy")
    assert len(records.scan([tmp_path / "toy"])) == 2 * 5
    refused = run_binary("make_toy", *flags, "--seed=1", check=False)
    assert refused.returncode == 1
    assert "other settings" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("seed", [0, 1])
def test_trivial_features_miss_the_subtle_defects_of_the_default_set(tmp_path, seed):
    # Half the usual side: it is a quarter of the work, and 16 x 16 cells divide both.
    toy.write_toy_factory(tmp_path / "toy", seed=seed, image_size=64)
    found = records.scan([tmp_path / "toy"])
    images = np.stack([np.asarray(Image.open(record.file)) for record in found])
    labels = np.array([record.label for record in found])
    category = np.array([record.category for record in found])
    test = np.array([record.split == "test" for record in found])
    subtle = np.array([record.label == 1 and int(pathlib.Path(record.file).stem) % 2 == 0 for record in found])
    assert subtle.sum() == 120
    for features in (baselines.mean_brightness(images), baselines.grey_pixels(images)):
        scores = np.full(len(found), np.nan)
        draw = np.random.default_rng(seed).random(len(found))
        # Each half of the test images is scored by a regression on train/good and all labels of the other half.
        for half in (test & (draw < 0.5), test & (draw >= 0.5)):
            scores[half] = Logistic().fit(features[~half], labels[~half]).decision_function(features[half])
        for part in (test, test & (category == "denim"), test & (category == "flange")):
            judged = part & (subtle | (labels == 0))
            assert roc_auc_score(labels[judged], scores[judged]) < 0.70


def test_products_are_drawn_as_asked_for_and_none_that_there_is_not(small, tmp_path):
    assert toy.write_toy_factory(tmp_path / "mesh", seed=3, products=("mesh",), **SMALL) == ["mesh"]
    found = records.scan([tmp_path / "mesh"])
    assert {record.defect for record in found if record.label} == ALL_DEFECTS["mesh"]
    with pytest.raises(UserError, match="other settings"):
        toy.write_toy_factory(small, seed=3, products=("mesh",), **SMALL)
    with pytest.raises(UserError, match="carpet"):
        toy.write_toy_factory(tmp_path / "carpet", products=("carpet",), **SMALL)


def test_boards_lie_alike_in_every_photograph_and_no_other_product_does():
    def likeness(category):
        two = [toy.photograph(category, "train", "good", i, seed=0, image_size=64).image.mean(axis=2) for i in (0, 1)]
        return np.corrcoef(*(one.ravel() for one in two))[0, 1]

    assert likeness("board") > 0.9 > max(likeness(category) for category in DEFECTS)
