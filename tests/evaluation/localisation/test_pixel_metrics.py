"""Heat maps against masks: figures that agree with scikit-learn and with a slow double loop, and defined edge cases."""

import dataclasses
import itertools
import json
import pathlib
import unicodedata

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from sklearn import metrics as sklearn_metrics

from mvtec_tf.data import pillow_images
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import image_files
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.intervals import Bootstrap, Resampling
from mvtec_tf.evaluation.localisation import heatmaps, pixel_metrics, pixel_section
from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps
from mvtec_tf.evaluation.table import Predictions, Row
from mvtec_tf.files import sha256

NONE = Bootstrap(0)


class _Set:
    """Images, masks and heat maps in a folder, added one by one."""

    def __init__(self, folder):
        self.folder = folder
        self.rows, self.files, self.heat, self.masks = [], {}, {}, {}

    def add(self, path, heat, mask=None, *, category="bottle", group="", save_heat=True, image=True):
        """A defective image if there is a mask (a Path or "" is taken as it is), else a good one."""
        label = int(mask is not None)
        row = Row(path, category, "crack" if label else "good", label, "evaluate", 0.0, group)
        image_file = mask_file = ""
        if image:
            image_file = self.folder / "images" / path
            image_file.parent.mkdir(parents=True, exist_ok=True)
            height, width = heat.shape if mask is None or isinstance(mask, str) else mask.shape
            Image.fromarray(np.zeros((height, width), np.uint8)).save(image_file)
        if isinstance(mask, np.ndarray):
            mask_file = (self.folder / "masks" / path).with_suffix(".png")
            mask_file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(mask_file)
            self.masks[path] = mask
        if save_heat:
            heatmaps.write(self.folder / "maps", path, heat)
        self.rows.append(row)
        self.heat[path] = np.asarray(heat, np.float32)
        self.files[path] = ImageFiles(str(image_file), str(mask_file))
        return self

    @property
    def table(self):
        return Predictions.from_rows(self.rows)

    def measure(self, bootstrap=NONE, files=None):
        maps = HeatMaps(self.folder / "maps", "maps")
        return pixel_metrics.measure(self.table, files or self.files, maps, bootstrap)

    def pixels(self):
        """All heat and truth of the set, flat."""
        heat = np.concatenate([heat.ravel() for heat in self.heat.values()])
        masks = [self.masks.get(path, np.zeros(heat.shape, bool)).ravel() for path, heat in self.heat.items()]
        return heat, np.concatenate(masks)


def _value(found, name):
    return found.overall.metrics[name].value


def _random_set(folder, seed=0, levels=None, images=6):
    """Good and defective images with several regions each; with `levels`, heat of so few values that most tie."""
    rng = np.random.default_rng(seed)
    made = _Set(folder)
    for i in range(images):
        height, width = 20 + i, 24
        mask = ndimage.binary_dilation(rng.random((height, width)) > 0.98, iterations=1 + i % 2) if i % 3 else None
        heat = rng.normal(size=(height, width))
        if mask is not None:
            heat += 1.5 * mask * rng.random()
        if levels:
            heat = np.round(heat * levels) / levels
        made.add(f"bottle/test/{i}.png", heat, mask)
    return made


def _slow_pro(made, limit=0.3):
    """The per-region overlap curve, threshold by threshold and region by region."""
    heat, truth = made.pixels()
    regions = []
    for path, mask in made.masks.items():
        labelled, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [made.heat[path][labelled == number + 1] for number in range(count)]
    free = heat[~truth]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(heat.tolist()), reverse=True):
        overlap = np.mean([np.mean(region >= threshold) for region in regions])
        points.append((np.mean(free >= threshold), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.mark.parametrize("levels", [None, 1, 3])
def test_pixel_auroc_is_that_of_scikit_learn_and_pro_that_of_a_slow_loop(tmp_path, levels):
    made = _random_set(tmp_path, levels=levels)
    found = made.measure()
    heat, truth = made.pixels()
    assert _value(found, "pixel_auroc") == pytest.approx(sklearn_metrics.roc_auc_score(truth, heat), abs=1e-9)
    assert _value(found, "pro") == pytest.approx(_slow_pro(made), abs=1e-9)


def test_a_perfect_map_gets_one_and_a_map_that_says_nothing_what_is_said_of_it(tmp_path):
    made = _random_set(tmp_path / "a")
    for path in list(made.heat):
        heatmaps.write(tmp_path / "a" / "maps", path, made.masks.get(path, np.zeros(made.heat[path].shape)))
    perfect = made.measure()
    for name in ("pixel_auroc", "pro", "pointing_game"):
        assert _value(perfect, name) == pytest.approx(1, abs=1e-12), name
        assert _value(perfect, name) <= 1, name
    for path, heat in made.heat.items():
        heatmaps.write(tmp_path / "a" / "maps", path, np.full(heat.shape, 7.0))
    constant = made.measure()
    for name, value in pixel_metrics.OF_NO_MAP.items():
        assert _value(constant, name) == pytest.approx(value)
    # Every pixel is the hottest: one drawn among them hits as often as one drawn at random.
    assert _value(constant, "pointing_game") == _value(constant, "pointing_game_at_random")
    assert _value(constant, "pointing_game_gain") == 0


def test_the_pointing_game_counts_the_hottest_pixel_and_shares_out_ties(tmp_path):
    mask = np.zeros((10, 10), bool)
    mask[:2] = True
    hit, miss, half = (np.zeros((10, 10)) for _ in range(3))
    hit[0, 3] = miss[9, 9] = half[1, 1] = half[5, 5] = 1
    made = _Set(tmp_path)
    for i, heat in enumerate((hit, miss, half)):
        made.add(f"bottle/{i}.png", heat, mask)
    made.add("bottle/good.png", hit)
    found = made.measure(Bootstrap(200))
    assert _value(found, "pointing_game") == pytest.approx(1.5 / 3)
    assert _value(found, "pointing_game_at_random") == pytest.approx(0.2)
    gain = found.overall.metrics["pointing_game_gain"]
    assert gain.value == pytest.approx(0.3)
    assert gain.low < gain.value < gain.high
    assert (found.overall.masks, found.overall.good, found.overall.regions) == (3, 1, 3)


def test_every_image_hit_has_the_exact_binomial_limit(tmp_path):
    made = _Set(tmp_path)
    mask = np.eye(8, dtype=bool)
    for i in range(5):
        made.add(f"bottle/{i}.png", mask.astype(float), mask)
    pointing = made.measure(Bootstrap(50)).overall.metrics["pointing_game"]
    assert (pointing.value, pointing.high) == (1.0, 1.0)
    assert pointing.low == pytest.approx(0.025 ** (1 / 5))


def test_no_hit_among_few_images_does_not_prove_that_a_map_points_elsewhere(tmp_path):
    made = _Set(tmp_path)
    mask = np.eye(8, dtype=bool)
    for i in range(5):
        made.add(f"bottle/{i}.png", 1.0 - mask, mask)
    found = made.measure(Bootstrap(50))
    gain = found.overall.metrics["pointing_game_gain"]
    assert gain.value == pytest.approx(-1 / 8)
    assert gain.low <= gain.value < 0 < gain.high
    assert "not shown" in pixel_section.sentence_of(found)


def test_two_hits_of_twelve_on_hairline_cracks_are_oftener_than_chance(tmp_path):
    """Though one resample in nine has none of them: a point drawn at random would hit one image in 50."""
    made = _Set(tmp_path)
    mask = np.zeros((20, 20), bool)
    mask[10, 2:10] = True
    for i in range(12):
        heat = np.zeros((20, 20))
        heat[10 if i < 2 else 12, 5] = 1
        made.add(f"bottle/{i}.png", heat, mask)
    found = made.measure(Bootstrap(200))
    hits, gain = (found.overall.metrics[name] for name in ("pointing_game", "pointing_game_gain"))
    exact = stats.binomtest(2, 12).proportion_ci(0.95, "exact")
    assert (hits.low, hits.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert gain.low == pytest.approx(exact.low - 0.02, abs=1e-9)
    assert "so it points to the defects oftener than chance" in pixel_section.sentence_of(found)


def test_intervals_are_those_of_the_exact_figures_in_the_same_resamples(tmp_path):
    made = _random_set(tmp_path, levels=50, images=14)
    bootstrap = Bootstrap(12, seed=3)
    found = made.measure(bootstrap)
    table = made.table
    # The same draws, and every resample measured anew by copying images.
    resampling = Resampling(table.path, table.category, table.group, table.label, bootstrap)
    aurocs, pros = [], []
    for weights in np.concatenate(list(resampling.chunks())):
        drawn = _Set(tmp_path)
        for path, times in zip(table.path, weights.astype(int), strict=True):
            for copy in range(times):
                drawn.heat[f"{path}{copy}"] = made.heat[path]
                if path in made.masks:
                    drawn.masks[f"{path}{copy}"] = made.masks[path]
        heat, truth = drawn.pixels()
        aurocs.append(sklearn_metrics.roc_auc_score(truth, heat))
        pros.append(_slow_pro(drawn))
    for name, values in (("pixel_auroc", aurocs), ("pro", pros)):
        metric = found.overall.metrics[name]
        np.testing.assert_allclose([metric.low, metric.high], np.quantile(values, [0.025, 0.975]), atol=1e-3)


def test_photographs_of_one_object_are_drawn_together(tmp_path):
    alone, together = _random_set(tmp_path / "a", images=12), _random_set(tmp_path / "b", images=12)
    together.rows = [dataclasses.replace(row, group=f"object {i // 4}") for i, row in enumerate(together.rows)]
    a, b = (made.measure(Bootstrap(100)).overall.metrics["pixel_auroc"] for made in (alone, together))
    assert a.value == b.value
    assert (a.low, a.high) != (b.low, b.high)


def test_categories_are_judged_apart_and_their_mean_is_unweighted(tmp_path):
    rng = np.random.default_rng(0)
    made, parts = _Set(tmp_path / "all"), {}
    for category, strength, count in (("bottle", 2.0, 3), ("screw", 0.3, 6)):
        parts[category] = _Set(tmp_path / category)
        for i in range(count):
            mask = rng.random((12, 12)) > 0.9
            heat = rng.normal(size=mask.shape) + strength * mask
            for target in (made, parts[category]):
                target.add(f"{category}/{i}.png", heat, mask if i else None, category=category)
    found = made.measure(Bootstrap(60))
    for category, alone in parts.items():
        for name in pixel_metrics.NAMES:
            assert found.categories[category].metrics[name].value == alone.measure().overall.metrics[name].value
    heat, truth = made.pixels()
    assert _value(found, "pixel_auroc") == pytest.approx(sklearn_metrics.roc_auc_score(truth, heat), abs=1e-9)
    for name in pixel_metrics.NAMES:
        mean = found.mean[name]
        assert mean.value == pytest.approx(np.mean([scope.metrics[name].value for scope in found.categories.values()]))
        assert mean.low <= mean.value <= mean.high
    form = found.as_json()
    assert set(form["categories"]) == {"bottle", "screw"}
    assert {"value", "low", "high"} <= set(form["mean_over_categories"]["pro"])
    json.dumps(form, allow_nan=False)


def test_one_category_is_all_images(tmp_path):
    found = _random_set(tmp_path).measure(Bootstrap(30))
    assert found.categories == {"bottle": found.overall}
    assert found.mean == found.overall.metrics


def test_a_map_of_another_size_is_resized_bilinearly_to_its_mask_and_counted(tmp_path):
    made = _Set(tmp_path)
    mask = np.zeros((32, 48), bool)
    mask[20:, 30:] = True
    rng = np.random.default_rng(0)
    small = rng.random((8, 12)).astype(np.float32)
    made.add("bottle/0.png", small, mask)
    made.add("bottle/1.png", rng.random((32, 48)))
    made.add("bottle/2.png", np.zeros((4, 4)), image=False)
    made.files["bottle/2.png"] = made.files["bottle/1.png"]
    found = made.measure()
    assert found.resized == 2

    def bilinear(values, size):
        """Pixel centres at half places, edges held, as in the OpenCV and TensorFlow of today."""
        rows, columns = (
            np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1) for n, m in zip(size, values.shape, strict=True)
        )
        return ndimage.map_coordinates(values.astype(float), np.meshgrid(rows, columns, indexing="ij"), order=1)

    np.testing.assert_allclose(pillow_images.resized(small, 32, 48), bilinear(small, (32, 48)), atol=1e-6)
    heat = np.concatenate([bilinear(small, (32, 48)).ravel(), made.heat["bottle/1.png"].ravel(), np.zeros(32 * 48)])
    truth = np.concatenate([mask.ravel(), np.zeros(2 * 32 * 48, bool)])
    assert _value(found, "pixel_auroc") == pytest.approx(sklearn_metrics.roc_auc_score(truth, heat), abs=1e-5)


def test_masks_that_cannot_be_used_are_left_out_by_name_and_the_rest_is_judged(tmp_path):
    made = _random_set(tmp_path)
    reference = made.measure()
    heat = np.ones((20, 24))
    made.add("bottle/empty.png", heat, np.zeros((20, 24), bool))
    made.add("bottle/missing.png", heat, "")
    made.add("bottle/other_size.png", heat, np.ones((10, 12), bool))
    Image.new("L", (24, 20)).save(made.files["bottle/other_size.png"].image)
    made.add("bottle/broken.png", heat, np.ones((20, 24), bool), save_heat=False)
    (tmp_path / "masks" / "bottle" / "broken.png").write_bytes(b"no image")
    found = made.measure()
    reasons = dict(found.left_out)
    assert reasons["bottle/empty.png"] == "its mask is empty: no pixel of it is set"
    assert "has no mask" in reasons["bottle/missing.png"]
    assert reasons["bottle/other_size.png"] == "its mask has 12 x 10 pixels, the image 24 x 20"
    assert "cannot be used" in reasons["bottle/broken.png"]
    assert found.overall == reference.overall
    assert [one["path"] for one in found.as_json()["left_out"]] == list(reasons)


def test_a_category_without_masks_is_named_and_needs_no_maps(tmp_path):
    made = _random_set(tmp_path)
    made.add("screw/0.png", np.ones((8, 8)), "", category="screw", save_heat=False)
    made.add("screw/1.png", np.ones((8, 8)), category="screw", save_heat=False)
    found = made.measure()
    assert found.without_masks == ("screw",)
    assert set(found.categories) == {"bottle"}
    assert found.mean == found.overall.metrics


def test_without_any_usable_mask_figures_are_missing_with_the_reason(tmp_path):
    made = _Set(tmp_path / "a").add("bottle/0.png", np.ones((8, 8)), "")
    (tmp_path / "a" / "maps").mkdir(exist_ok=True)
    nothing = made.measure(Bootstrap(10))
    assert all(metric.value is None and metric.reason for metric in nothing.overall.metrics.values())
    full = _Set(tmp_path / "b").add("bottle/0.png", np.ones((8, 8)), np.ones((8, 8), bool)).measure(Bootstrap(10))
    assert full.left_out == (("bottle/0.png", "its mask marks every pixel of the image"),)
    assert all(metric.value is None and metric.reason for metric in full.overall.metrics.values())
    json.dumps([nothing.as_json(), full.as_json()], allow_nan=False)


def test_without_images_a_good_one_has_the_size_of_its_categorys_masks(tmp_path):
    made = _Set(tmp_path)
    mask = np.zeros((16, 16), bool)
    mask[:4] = True
    made.add("bottle/0.png", np.random.default_rng(0).random((16, 16)), mask)
    made.add("bottle/1.png", np.random.default_rng(1).random((4, 4)))
    without = image_files.with_masks(tmp_path / "masks", made.table, {})
    assert not any(one.image for one in without.values())
    assert made.measure(files=without).resized == 1


@pytest.mark.parametrize("name", ["0.png", "0_mask.png", "0.bmp", "0.tif", "0_mask.BMP", "0/000.png", "0/mask.tif"])
@pytest.mark.parametrize("place", ["", "bottle", "bottle/test/crack", "bo\u0308ttle/test"])
def test_a_folder_of_masks_may_name_them_as_folders_of_images_may(tmp_path, name, place):
    """`masks.Folders` finds them for both; the umlaut is one letter in the table and two on the disk."""
    file = tmp_path / "masks" / place / name
    file.parent.mkdir(parents=True)
    Image.new("L", (4, 4), 255).save(file)
    image = str(pathlib.PurePosixPath(unicodedata.normalize("NFC", place), "0.png"))
    table = Predictions.from_rows([Row(image, "bottle", "crack", 1, "evaluate", 0.0)])
    files = image_files.with_masks(tmp_path / "masks", table, {image: ImageFiles("image.png", "other.png")})
    assert files == {image: ImageFiles("image.png", str(file))}
    assert image_files.unclaimed(tmp_path / "masks", table) == []


def test_of_a_mask_in_several_files_below_a_folder_of_masks_none_is_used_and_each_is_named(tmp_path):
    rows = [Row(f"bottle/{number}.png", "bottle", "crack", 1, "evaluate", 0.0) for number in (0, 1)]
    table = Predictions.from_rows(rows)
    for name in ("0/000.png", "0/001.png", "1/000.png"):
        (tmp_path / "bottle" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 255).save(tmp_path / "bottle" / name)
    found = image_files.with_masks(tmp_path, table, {})
    assert [one.mask for one in found.values()] == ["", str(tmp_path / "bottle" / "1" / "000.png")]
    (said,) = image_files.unclaimed(tmp_path, table)
    assert "2 files are the mask of no image of the table: bottle/0/000.png, bottle/0/001.png." in said


def test_a_folder_of_masks_without_any_of_them_is_refused_with_the_name_that_was_looked_for(tmp_path):
    table = Predictions.from_rows([Row("bottle/0.png", "bottle", "crack", 1, "evaluate", 0.0)])
    with pytest.raises(UserError, match=r"`masks`=.*nothing"):
        image_files.with_masks(tmp_path / "masks", table, {})
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match=r"no mask of any.*bottle/0\.png.*the folder .*bottle/0\."):
        image_files.with_masks(tmp_path / "masks", table, {})


def test_a_map_may_have_its_suffix_after_the_image_s_or_instead_of_it(tmp_path):
    folder = tmp_path / "maps" / "a"
    folder.mkdir(parents=True)
    np.save(folder / "0.png.npy", np.zeros((2, 2), np.float32))
    np.save(folder / "1.npy", np.ones((2, 2), np.float32))
    maps = HeatMaps(tmp_path / "maps", "maps")
    assert maps.read("a/0.png").sum() == 0
    assert maps.read("./a\\1.jpg").sum() == 4
    assert "a/2.png" not in maps
    with pytest.raises(UserError, match=r"no heat map of 1 of the 2 images.*a/2\.png.*Expected .*a/2\.png\.npy"):
        maps.require(["a/0.png", "a/2.png"])
    with pytest.raises(UserError, match=r"the map of a/1\.png and of a/1\.jpg"):
        maps.require(["a/1.png", "a/1.jpg"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((2, 2, 1), np.float32), r"expected one array float32 \[h, w\], found \(2, 2, 1\)"),
        (np.full((2, 2), np.nan, np.float32), "4 of its values are not finite"),
        (np.full((2, 2), 1e300), "not finite float32"),
        (np.zeros((0, 2), np.float32), "expected one array"),
        (np.array([["a"]]), "expected one array"),
        (np.array([[None]], object), "pickled"),
        (b"not numpy", "not a NumPy array"),
        (b"", "not a NumPy array"),
    ],
)
def test_a_map_that_is_none_is_refused_by_name(tmp_path, content, message):
    file = tmp_path / "0.png.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content, allow_pickle=True)
    with pytest.raises(UserError, match=message) as caught:
        HeatMaps(tmp_path, "maps").read("0.png")
    assert "0.png.npy" in str(caught.value)


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path):
    for path in ("../0.png", "a/../../0.png", ".."):
        with pytest.raises(UserError, match="leads out of"):
            heatmaps.place(tmp_path, path)
    assert heatmaps.place(tmp_path, "/data/0.png") == tmp_path / "data" / "0.png.npy"


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for name, found in (("nowhere", "nothing"), ("file", "a file")):
        with pytest.raises(UserError, match=f"`heatmaps`=.*{name}.*found {found}"):
            HeatMaps(tmp_path / name, "maps")


def test_images_of_the_table_are_found_by_their_path_or_named(toy, toy_records):
    test = [one for one in toy_records if one.split == "test"]
    table = Predictions.from_rows(
        [Row(one.path, one.category, one.defect, one.label, "evaluate", 0.0) for one in test]
    )
    files = image_files.from_records(toy_records, table, "`data_dir`=D")
    assert image_files.categories_with_masks(table, files) == ("denim", "flange")
    for path, label in zip(table.path, table.label, strict=True):
        assert bool(files[path].mask) == bool(label)
    stranger = Predictions.from_rows([Row("x/test/good/0.png", "x", "good", 0, "evaluate", 0.0)])
    with pytest.raises(UserError, match=r"`data_dir`=D: 1 of the 1 images of the table are not there, such as x/test"):
        image_files.from_records(toy_records, stranger, "`data_dir`=D")
    digests = {one.path: sha256(one.file) for one in test}
    assert image_files.from_records(toy_records, dataclasses.replace(table, digests=digests), "`data_dir`=D") == files
    digests[test[1].path] = digests[test[0].path]
    with pytest.raises(UserError, match=rf"not the images that were scored: 1 of .*{test[1].path} first"):
        image_files.from_records(toy_records, dataclasses.replace(table, digests=digests), "`data_dir`=D")
    table.label[0] = 1 - table.label[0]
    with pytest.raises(UserError, match="has the label"):
        image_files.from_records(toy_records, table, "`data_dir`=D")
