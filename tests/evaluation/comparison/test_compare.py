"""Methods are compared on the same images only, by the difference itself, and nothing is read into noise."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from mvtec_tf.errors import LeakError, UsageError, UserError
from mvtec_tf.evaluation import metrics
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.comparison import pictures as comparison_figures
from mvtec_tf.evaluation.comparison import report as comparison_report
from mvtec_tf.evaluation.comparison.compare import ALL, CATEGORY, MEANS, compare, mcnemar_test
from mvtec_tf.evaluation.comparison.contenders import read_methods
from mvtec_tf.evaluation.intervals import TOO_FEW, Bootstrap, Resampling
from mvtec_tf.evaluation.table import Predictions, Row, write_predictions
from mvtec_tf.evaluation.thresholds import Rule


def _rows(seed=0, distance=1.0, count=60, first=0, categories=("bottle", "screw"), grouped=False, missing=()):
    """Rows of `count` images a category, half of them defective, and calibrate rows beside them.

    Of the screws, the evaluate rows of the images in `missing` are left out.
    Half of a score is the image's own difficulty, the same whatever the seed.
    """
    rng, rows = np.random.default_rng([seed, 7]), []
    for category in categories:
        for split, total in (("evaluate", count), ("calibrate", 20)):
            for i in range(first, first + total):
                label = i % 2
                hard = np.random.default_rng([i, len(category), len(split)]).normal()
                score = hard + 0.7 * rng.normal() + distance * label
                path = f"{category}/{split}/{i}.png"
                defect = ("good", "crack")[label]
                group = f"{split} {i // 3}" if grouped else ""
                if not (i in missing and (category, split) == ("screw", "evaluate")):
                    rows.append(Row(path, category, defect, label, split, float(score), group))
    return rows


def _csv(path, rows):
    write_predictions(path, Predictions.from_rows(rows))
    return str(path)


def _run(path, rows, labels=None, **kwargs):
    """A run directory; returns its path."""
    path.mkdir(parents=True)
    table = Predictions.from_rows(rows)
    write_predictions(path / "predictions.csv", table)
    document = assess(table, bootstrap=Bootstrap(0), **kwargs).as_json()
    (path / "metrics.json").write_text(json.dumps(document))
    if labels is not None:
        (path / "run.json").write_text(json.dumps({"labels_used": labels}))
    return str(path)


@pytest.fixture
def pair(tmp_path):
    return [
        _csv(tmp_path / "a.csv", _rows(1, 1.5)),
        _csv(tmp_path / "b.csv", _rows(2, 1.0)),
    ]


def _compared(texts, resamples=60):
    return compare(read_methods(texts), bootstrap=Bootstrap(resamples))


def test_each_methods_figures_are_those_of_its_own_report(tmp_path, pair):
    compared = _compared(pair)
    for standing, rows in zip(compared.standings, (_rows(1, 1.5), _rows(2, 1.0)), strict=True):
        judged = assess(Predictions.from_rows(rows), bootstrap=Bootstrap(60))
        assert standing.figures[ALL] == judged.overall.metrics
        assert standing.figures[CATEGORY, "screw"] == judged.categories["screw"].metrics
        assert standing.verdict == judged.overall.verdict
        for name in metrics.NAMES:
            mean = standing.figures[MEANS][name]
            assert dataclasses.astuple(mean) == pytest.approx(dataclasses.astuple(judged.mean[name])), name


def test_the_order_of_rows_and_the_spelling_of_paths_do_not_matter(tmp_path, pair):
    rows = [dataclasses.replace(row, path="./" + row.path) for row in reversed(_rows(2, 1.0))]
    other = _csv(tmp_path / "c.csv", rows)
    one, two = _compared(pair), _compared([pair[0], other])
    assert one.standings[1].differences == two.standings[1].differences


def test_the_interval_of_a_difference_is_that_of_differences_on_the_same_resampled_images(pair):
    compared = _compared(pair)
    tables = [Predictions.from_rows(rows).part("evaluate") for rows in (_rows(1, 1.5), _rows(2, 1.0))]
    limits = [standing.scopes[0].threshold.value for standing in compared.standings]
    order = np.argsort(tables[0].path)
    tables = [table.select(order) for table in tables]
    first = tables[0]
    resampling = Resampling(first.path, first.category, first.group, first.label, Bootstrap(60))
    slow = {"roc_auc": [], "f1": []}
    for counts in np.concatenate(list(resampling.chunks())).astype(int):
        labels = np.repeat(first.label, counts)
        scores = [np.repeat(table.score, counts) for table in tables]
        areas = [sklearn_metrics.roc_auc_score(labels, score) for score in scores]
        f1 = [sklearn_metrics.f1_score(labels, s >= limit) for s, limit in zip(scores, limits, strict=True)]
        slow["roc_auc"].append(areas[1] - areas[0])
        slow["f1"].append(f1[1] - f1[0])
    for name, values in slow.items():
        found = compared.standings[1].differences[ALL][name]
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-9)
        values = [standing.figures[ALL][name].value for standing in compared.standings]
        assert found.value == pytest.approx(values[1] - values[0], abs=1e-12)


def test_a_difference_on_the_same_images_is_surer_than_two_intervals_let_one_think(pair):
    compared = _compared(pair, 400)
    widths = [s.figures[ALL]["roc_auc"].high - s.figures[ALL]["roc_auc"].low for s in compared.standings]
    difference = compared.standings[1].differences[ALL]["roc_auc"]
    assert difference.high - difference.low < np.hypot(*widths)


@pytest.mark.parametrize(("differing", "shown"), [(4, False), (5, False), (6, True)])
def test_calls_of_a_few_objects_that_differ_show_nothing(tmp_path, differing, shown):
    """Of four defects that one of two methods finds alone, resamples without any are rare; McNemar's p is 0.12."""

    def rows(missed):
        scores = [(f"a/{i}.png", i % 2, float(i % 2 and i >= 2 * missed)) for i in range(60)]
        made = [Row(path, "a", ("good", "crack")[label], label, "evaluate", score, "") for path, label, score in scores]
        return [
            *made,
            *(Row(f"a/c{i}.png", "a", ("good", "crack")[i % 2], i % 2, "calibrate", i % 2, "") for i in range(20)),
        ]

    compared = _compared([_csv(tmp_path / f"{missed}.csv", rows(missed)) for missed in (differing, 0)], 400)
    difference = compared.standings[1].differences[ALL]["balanced_accuracy"]
    assert difference.value == pytest.approx(differing / 60)
    assert (difference.low is not None and difference.low > 0) is shown
    assert (compared.standings[1].calls[0].p_value < 0.05) is shown
    assert ("neither is shown to be better" in comparison_report.sentences(compared)[0]) is not shown


def test_a_method_compared_with_itself_differs_in_nothing_and_is_not_said_to_be_better(tmp_path, pair):
    again = _csv(tmp_path / "again.csv", _rows(1, 1.5))
    compared = _compared([pair[0], again])
    differences = compared.standings[1].differences[ALL]
    assert {metric.value for metric in differences.values()} <= {0.0, None}
    assert compared.standings[1].calls[0] == mcnemar_test(0, 0)
    assert comparison_report.direction(differences["roc_auc"], "roc_auc") == ""
    assert "neither is shown to be better" in comparison_report.sentences(compared)[0]


def test_of_three_defects_no_interval_of_a_difference_says_that_one_is_better(tmp_path):
    defects = [f"c/evaluate/{number}.png" for number in (1, 3, 5)]
    tables = []
    for seed, distance in ((1, 4), (2, 0)):
        rows = _rows(seed, distance, categories=("c",))
        few = [row for row in rows if row.split != "evaluate" or not row.label or row.path in defects]
        tables.append(_csv(tmp_path / f"{seed}.csv", few))
    compared = _compared(tables)
    differences = compared.standings[1].differences[ALL]
    assert all(differences[name].low is None for name in ("roc_auc", "f1", "balanced_accuracy", "recall"))
    assert differences["specificity"].low is not None
    value = differences["balanced_accuracy"].value
    said = f"a difference of {value:+.3f} ({TOO_FEW}), so neither is shown to be better."
    assert said in comparison_report.sentences(compared)[0]


def test_a_clearly_worse_method_is_said_to_be_worse_whichever_way_a_metric_points(tmp_path, pair):
    compared = _compared([pair[0], _csv(tmp_path / "c.csv", _rows(3, 0.0))])
    worse = compared.standings[1]
    for name in ("roc_auc", "balanced_accuracy", "mcc", "cost"):
        assert comparison_report.direction(worse.differences[ALL][name], name) == "worse", name
    sentences = comparison_report.sentences(compared)
    assert "so c.csv is worse" in sentences[0]
    assert "c.csv is no better" in sentences[1]


@pytest.mark.parametrize(("one", "other"), [(0, 0), (0, 1), (3, 9), (12, 12), (0, 24), (10, 15), (40, 12), (25, 0)])
def test_mcnemars_test_agrees_with_the_distributions_it_is_made_of(one, other):
    found = mcnemar_test(one, other)
    assert (found.only_first, found.only_second, found.exact) == (one, other, one + other < 25)
    if found.exact:
        expected = stats.binomtest(one, one + other).pvalue if one + other else 1.0
    else:
        expected = stats.chi2(1).sf(max(0, abs(one - other) - 1) ** 2 / (one + other))
    assert found.p_value == pytest.approx(expected, abs=1e-12)


def test_mcnemars_counts_are_of_images_that_only_one_method_calls_rightly(pair):
    compared = _compared(pair)
    tables = [Predictions.from_rows(rows).part("evaluate") for rows in (_rows(1, 1.5), _rows(2, 1.0))]
    right = [
        (table.score >= standing.scopes[0].threshold.value) == (table.label == 1)
        for table, standing in zip(tables, compared.standings, strict=True)
    ]
    (found,) = compared.standings[1].calls
    assert (found.only_first, found.only_second) == ((right[1] & ~right[0]).sum(), (~right[1] & right[0]).sum())


def test_a_run_is_called_by_the_threshold_it_was_judged_with_and_names_its_labels(tmp_path):
    run = _run(tmp_path / "run", _rows(), labels=12, threshold=0.25)
    inner = _run(tmp_path / "run" / "study_head", _rows(2), threshold=0.5)
    bare = _csv(tmp_path / "bare.csv", _rows(3))
    methods = read_methods([run, inner, bare])
    assert [method.labels_used for method in methods] == [12, 12, None]
    assert [method.runs[0].threshold.whole.value for method in methods[:2]] == [0.25, 0.5]
    assert [method.name for method in methods] == ["run", "study_head", "bare.csv"]
    chosen = methods[2].runs[0].threshold.whole
    assert (chosen.method, chosen.images) == ("youden", 40)


def test_a_runs_thresholds_of_categories_are_used_too(tmp_path):
    run = _run(tmp_path / "run", _rows(), rule=Rule(per="category"))
    recorded = json.loads((tmp_path / "run" / "metrics.json").read_text())
    compared = _compared([run, _csv(tmp_path / "b.csv", _rows(2))])
    counts = compared.standings[0].scopes[0].counts
    assert dataclasses.asdict(counts) == recorded["confusion"]["overall"]


def test_without_calibrate_rows_rankings_are_compared_and_the_rest_says_why(tmp_path, pair):
    rows = [row for row in _rows(4) if row.split == "evaluate"]
    compared = _compared([pair[0], _csv(tmp_path / "c.csv", rows)])
    differences = compared.standings[1].differences[ALL]
    assert differences["roc_auc"].low is not None
    assert "no calibrate rows" in differences["f1"].reason
    assert compared.standings[1].calls == ()
    assert "ROC-AUC" in comparison_report.sentences(compared)[0]
    comparison_report.write(read_methods([pair[0], str(tmp_path / "c.csv")]), tmp_path / "out", bootstrap=Bootstrap(9))


def _changed(rows, **changes):
    return [dataclasses.replace(row, **changes) if row.path == "bottle/evaluate/7.png" else row for row in rows]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_rows(2, missing=range(40, 60)), r"20 only in .*a\.csv \(screw/evaluate/40.png, .* and 17 more\)"),
        (_rows(2, first=1), r"2 only in .*a\.csv .* and 2 only in .*b\.csv"),
        (_rows(2, categories=("bottle",)), r"60 only in .*a\.csv"),
        (_changed(_rows(2), label=0, defect="good"), r"1 evaluation image.* different labels .bottle/evaluate/7.png"),
        (_changed(_rows(2), category="nut"), r"different categories .bottle/evaluate/7.png"),
    ],
)
def test_other_images_labels_or_categories_are_refused_with_names(tmp_path, rows, message):
    texts = [_csv(tmp_path / "a.csv", _rows(1)), _csv(tmp_path / "b.csv", rows)]
    with pytest.raises(UserError, match=message):
        read_methods(texts)


def test_a_leak_in_one_of_the_tables_stops_the_comparison(tmp_path, pair):
    rows = [*_rows(2), Row("bottle/evaluate/7.png", "bottle", "crack", 1, "fit", 0.0)]
    with pytest.raises(LeakError, match=r"bottle/evaluate/7\.png"):
        read_methods([pair[0], _csv(tmp_path / "leak.csv", rows)])


def test_what_is_no_run_and_no_table_is_refused(tmp_path, pair):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    _run(broken, _rows())
    (broken / "metrics.json").write_text('{"threshold": 3}')
    torn = tmp_path / "torn"
    _run(torn, _rows())
    (torn / "metrics.json").write_text('{"threshold"')
    for text, message in (
        (str(tmp_path / "empty"), r"no predictions.csv and no metrics.json"),
        (str(broken), "no threshold in it"),
        (str(torn), "not readable as JSON"),
        (str(tmp_path / "nowhere.csv"), "found nothing"),
    ):
        with pytest.raises(UserError, match=message):
            read_methods([pair[0], text])


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["a.csv"], "at least two"), (["=a.csv", "b"], "lacks a name"), (["x=a.csv+", "b"], "lacks a name or a path")],
)
def test_wrong_use_is_refused(texts, message):
    with pytest.raises(UsageError, match=message):
        read_methods(texts)


def test_two_methods_of_one_name_are_refused_and_two_runs_of_one_name_are_told_apart(tmp_path):
    texts = [_run(tmp_path / str(seed) / "probe", _rows(seed)) for seed in (1, 2)]
    assert [method.name for method in read_methods(texts)] == texts
    with pytest.raises(UsageError, match="two methods are called 'x'"):
        read_methods([f"x={text}" for text in texts])


def test_a_path_that_holds_signs_of_the_syntax_is_taken_as_it_is(tmp_path, pair):
    odd = _csv(tmp_path / "lr=0.1+aug.csv", _rows(2))
    assert read_methods([pair[0], odd])[1].name == "lr=0.1+aug.csv"


@pytest.fixture
def seeds(tmp_path):
    """Three seeds of two methods; the k-th runs of both share their images, other seeds have others."""
    texts = []
    for which, (name, distance, labels) in enumerate((("cnn", 1.5, 40), ("probe@10", 1.0, 8))):
        tables = [_rows(10 * k + which, distance, first=10 * k) for k in range(3)]
        runs = [_run(tmp_path / f"{name}{k}", rows, labels) for k, rows in enumerate(tables)]
        texts.append(f"{name}={'+'.join(runs)}")
    return texts


def test_several_seeds_give_mean_and_deviation_and_the_difference_of_the_means(seeds):
    methods = read_methods(seeds)
    compared = compare(methods, bootstrap=Bootstrap(60))
    areas = [
        [sklearn_metrics.roc_auc_score(run.evaluate.label, run.evaluate.score) for run in method.runs]
        for method in methods
    ]
    for standing, values in zip(compared.standings, areas, strict=True):
        assert standing.figures[ALL]["roc_auc"].value == pytest.approx(np.mean(values))
        assert standing.deviations[ALL]["roc_auc"] == pytest.approx(np.std(values, ddof=1))
    difference = compared.standings[1].differences[ALL]["roc_auc"]
    assert difference.value == pytest.approx(np.mean(areas[1]) - np.mean(areas[0]))
    assert difference.low < difference.value < difference.high
    assert len(compared.standings[1].calls) == 3
    assert compared.groups == 2 * 80  # images 0..59, 10..69 and 20..79 of each category


def test_the_mean_over_seeds_is_surer_than_one_seed(seeds):
    several = compare(read_methods(seeds), bootstrap=Bootstrap(300)).standings[0].figures[ALL]["roc_auc"]
    single = [text.split("+")[0] for text in seeds]
    alone = compare(read_methods(single), bootstrap=Bootstrap(300)).standings[0].figures[ALL]["roc_auc"]
    assert several.high - several.low < alone.high - alone.low


def test_seeds_on_other_images_than_those_of_the_other_method_are_refused(seeds, tmp_path):
    shuffled = seeds[1].split("=")[0] + "=" + "+".join(reversed(seeds[1].split("=")[1].split("+")))
    with pytest.raises(UserError, match="not judged on the same evaluation images"):
        read_methods([seeds[0], shuffled])
    fewer = seeds[1].rsplit("+", 1)[0]
    with pytest.raises(UserError, match="not judged on the same evaluation images"):
        read_methods([seeds[0], fewer])


def test_images_of_one_object_stay_together_also_if_only_one_table_knows_of_it(tmp_path):
    single = _compared([_csv(tmp_path / "a.csv", _rows(1)), _csv(tmp_path / "b.csv", _rows(2))])
    known = _compared([str(tmp_path / "a.csv"), _csv(tmp_path / "c.csv", _rows(2, grouped=True))])
    assert (single.groups, known.groups) == (120, 40)
    # A run of images without groups says of each that it shows itself.
    named = [dataclasses.replace(row, group=row.path) for row in _rows(1)]
    known = _compared([_csv(tmp_path / "d.csv", named), str(tmp_path / "c.csv")])
    assert known.groups == 40


def test_tables_that_do_not_agree_which_images_show_one_object_are_refused(tmp_path):
    grouped = _rows(1, grouped=True)
    renamed = [dataclasses.replace(row, group=f"part {row.group}") for row in grouped]
    others = [dataclasses.replace(row, group=f"{row.split} {len(row.path)}") for row in grouped]
    tables = [_csv(tmp_path / f"{n}.csv", rows) for n, rows in zip("abc", (grouped, renamed, others), strict=True)]
    assert len(read_methods(tables[:2])) == 2
    with pytest.raises(UserError, match=r"b\.csv.* different objects"):
        read_methods(tables[1:])


def test_one_table_is_no_second_method_and_no_second_seed(tmp_path):
    a, b = (_csv(tmp_path / f"{name}.csv", _rows(seed)) for seed, name in enumerate("ab"))
    for texts in ((a, f"again={a}"), (b, f"twice={a}+{tmp_path}/./a.csv")):
        with pytest.raises(UsageError, match="one and the same"):
            read_methods(texts)
    shutil.copy(a, tmp_path / "copy.csv")
    with pytest.raises(UsageError, match=r"a\.csv and .*copy\.csv of twice hold the same predictions"):
        read_methods((b, f"twice={a}+{tmp_path / 'copy.csv'}"))


def test_files_hold_what_was_compared(tmp_path, seeds):
    out = tmp_path / "out"
    comparison_report.write(read_methods(seeds), out, "A <b> title", bootstrap=Bootstrap(30))
    document = json.loads((out / "comparison.json").read_text())
    assert document["reference"] == "cnn"
    probe = document["methods"]["probe@10"]
    assert probe["labels_used"] == 8
    assert set(probe["figures"]["overall"]) == set(metrics.NAMES)
    assert {"value", "low", "high", "deviation"} <= set(probe["figures"]["overall"]["f1"])
    assert set(probe["difference"]["categories"]) == {"bottle", "screw"}
    assert len(probe["mcnemar"]) == 3
    assert document["methods"]["cnn"]["difference"] is None
    lines = (out / "comparison.csv").read_text().splitlines()
    assert lines[0].startswith("method,labels_used,runs,scope,category,metric,value,low,high,deviation,difference")
    assert len(lines) == 1 + 2 * 4 * len(metrics.NAMES)
    page = (out / "report.html").read_text()
    assert "A &lt;b&gt; title" in page
    assert page.count("<img ") == 5
    assert not {"http:", "https:", "<script", "<link"} & set(page.split())
    assert {path.stem for path in (out / "figures").iterdir()} == set(comparison_figures.KINDS)


def test_the_same_runs_give_the_same_bytes(tmp_path, pair):
    for name in ("x", "y"):
        comparison_report.write(read_methods(pair), tmp_path / name, bootstrap=Bootstrap(30))
    files = [path.relative_to(tmp_path / "x") for path in (tmp_path / "x").rglob("*") if path.is_file()]
    assert len(files) == 3 + 4  # without labels there is no label-efficiency curve
    for file in files:
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes(), file


def test_methods_before_an_at_sign_are_points_of_one_curve(tmp_path):
    texts = [
        f"{name}={_run(tmp_path / name, _rows(seed), labels)}"
        for seed, (name, labels) in enumerate((("ssl@5", 5), ("ssl@10", 10), ("cnn", 40)))
    ]
    compared = _compared(texts, 10)
    figure, _ = comparison_figures.KINDS["comparison_labels"][1](compared, compared.standings)
    lines = {line.get_label(): list(line.get_xdata()) for line in figure.axes[0].get_lines()}
    assert lines["ssl"] == [5, 10]
    assert lines["cnn"] == [40]


def test_more_methods_than_colours_are_compared_and_the_first_are_drawn(tmp_path):
    rows = [row for row in _rows(0, count=8, categories=("c",)) if row.split == "evaluate"]
    texts = [_csv(tmp_path / f"{i}.csv", rows) for i in range(comparison_figures.MOST_METHODS + 2)]
    comparison_report.write(read_methods(texts), tmp_path / "out", bootstrap=Bootstrap(5))
    assert "first 7 of 9 methods are drawn" in (tmp_path / "out" / "report.html").read_text()
