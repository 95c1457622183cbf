"""A setting that nothing would read is refused by its name, before anything is read or written."""

import dataclasses

import pytest

from mvtec_tf import settings as settings_lib
from mvtec_tf.errors import UsageError
from mvtec_tf.heads import make, settings
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.settings import (
    FitSettings,
    JudgeSettings,
    LabelEfficiencySettings,
    PretrainSettings,
    TrainClassifierSettings,
)
from tests.conftest import run_binary

_WHERE = {"data_dir": ("nowhere",), "run_dir": "nowhere"}
# Of each number another one than the default.
_OTHER = {
    "head_c": 2.0,
    "neighbours": 3,
    "memory_bank": 50,
    "coreset_candidates": 60,
    "padim_channels": 7,
    "hybrid_of": ("lda",),
}


@pytest.mark.parametrize("head", settings.HEADS)
@pytest.mark.parametrize("name", _OTHER)
def test_a_number_of_another_head_is_refused_and_one_of_the_head_itself_is_not(head, name):
    said = FitSettings(**_WHERE, weights="none", head=head, **{name: _OTHER[name]})
    if _reads(head, name):
        checks.of_fit(said)
        return
    with pytest.raises(UsageError, match=rf"`{name}`=.* here is {head}, so that it would change nothing"):
        checks.of_fit(said)


def _reads(head, name):
    """Whether a head is made otherwise by another number: asked of the heads themselves, not of the table."""
    plain = settings.HeadSettings(head)
    changed = dataclasses.replace(plain, **{name: _OTHER[name]})
    return _state(make.make_head(plain)) != _state(make.make_head(changed))


def _state(head):
    """Everything that a head is made of, those within it too."""
    if isinstance(head, make.Hybrid):
        return {name: _state(base()) for name, base in head.bases.items()}
    return {name: value for name, value in vars(head).items() if isinstance(value, (int, float, str, tuple))}


@pytest.mark.parametrize(
    "asked",
    [
        {"head": "logistic", "neighbourhood": 5},
        {"head": "rbf_svm", "weights_partial": True},
        {"head": "linear_svm", "task": "defect_type", "heatmaps": True},
        {"head": "linear_svm", "task": "defect_type", "study_head": True},
        *({"protocol": "study", "allow_leak": True, name: value} for name, value in _OTHER.items()),
        {"protocol": "study", "allow_leak": True, "heatmaps": True},
        {"protocol": "study", "allow_leak": True, "study_head": True},
        {"protocol": "study", "allow_leak": True, "pooling": ("gem8",)},
        {"protocol": "study", "allow_leak": True, "target_recall": 0.9},
        {"protocol": "study", "allow_leak": True, "recipe": "few_labels"},
    ],
    ids=str,
)
def test_a_fit_refuses_what_its_head_its_task_or_its_protocol_does_not_read(asked):
    with pytest.raises(UsageError, match=f"`{list(asked)[-1]}`=.*it would change nothing"):
        checks.of_fit(FitSettings(**_WHERE, **({"weights": "none"} | asked)))


@pytest.mark.parametrize("method", ["simclr", "vicreg", "byol"])
def test_a_pretraining_of_batches_of_one_compares_with_nothing_and_is_refused(method):
    with pytest.raises(UsageError, match="`batch_size`=1: a batch needs at least two images"):
        checks.of_pretraining(PretrainSettings(**_WHERE, method=method, batch_size=1))


@pytest.mark.parametrize("job", [TrainClassifierSettings, PretrainSettings])
def test_trainings_refuse_what_they_do_not_read(job):
    check = {TrainClassifierSettings: checks.of_training, PretrainSettings: checks.of_pretraining}[job]
    with pytest.raises(UsageError, match="`weights_partial`=true: `weights`=imagenet is no file"):
        check(job(**_WHERE, weights_partial=True))
    other = {
        TrainClassifierSettings: {"protocol": "study", "allow_leak": True, "target_recall": 0.9},
        PretrainSettings: {"schedule": "cosine_by_epoch", "warmup_share": 0.2},
    }[job]
    with pytest.raises(UsageError, match=f"`{list(other)[-1]}`="):
        check(job(**_WHERE, **other))


@pytest.mark.parametrize(
    "asked",
    [
        {"memory_bank": 50},
        {"neighbourhood": 5},
        {"weights_partial": True},
        {"heads": (), "tiles": "2x2"},
        {"heads": (), "image_size": 96},
        {"cost_review": 0.5},
        {"recipe": "none", "recipe_image_size": 96},
        {"weights": None, "encoders": ("elsewhere",), "recipe_image_size": 96},
    ],
    ids=str,
)
def test_a_grid_refuses_what_none_of_its_heads_nor_its_recipe_reads(asked):
    with pytest.raises(UsageError, match=f"`{list(asked)[-1]}`=.*it would change nothing"):
        checks.of_label_efficiency(LabelEfficiencySettings(**_WHERE, **({"weights": "none"} | asked)))


def test_a_grid_takes_a_number_that_one_of_its_heads_reads():
    heads = ("logistic", "hybrid")
    said = LabelEfficiencySettings(**_WHERE, weights="none", heads=heads, memory_bank=50, neighbourhood=5)
    checks.of_label_efficiency(said)


@pytest.mark.parametrize(
    ("binary", "flags"),
    [
        ("extract_features", ["--weights=none", "--neighbourhood=5"]),
        ("extract_features", ["--weights=imagenet", "--seed=3"]),
    ],
)
def test_an_extraction_refuses_what_its_features_do_not_depend_on(binary, flags, toy, tmp_path):
    done = run_binary(binary, f"--data_dir={toy}", *flags, f"--out={tmp_path / 'out'}", check=False)
    assert done.returncode == 2
    assert f"{flags[-1]}: " in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--categories=flange", "--masks=masks"])
def test_a_table_is_not_judged_with_images_that_are_not_there(flag, small_run, tmp_path):
    table = f"--predictions={small_run[0] / 'predictions.csv'}"
    done = run_binary("evaluate", table, flag, f"--out={tmp_path / 'out'}", check=False)
    assert done.returncode == 2
    assert f"{flag}: " in done.stderr


@pytest.mark.parametrize(
    "flags", [["--poll_seconds=5"], ["--patience=3"], ["--timeout=5"], ["--watch=.", "--concurrency=2"]], ids=str
)
def test_predict_refuses_flags_of_a_way_that_it_does_not_go(flags, exported, tmp_path):
    paths = [] if "--watch=." in flags else ["image.png"]
    done = run_binary("predict", f"--model={exported}", f"--out={tmp_path / 'out.csv'}", *flags, *paths, check=False)
    assert done.returncode == 2
    assert flags[-1] in done.stderr
    assert "it would change nothing" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_a_flagfile_of_a_run_says_by_itself_is_no_request(tmp_path):
    resolved, head, _ = checks.of_fit(FitSettings(**_WHERE, weights="none", head="patchcore", label_budget="0"))
    assert head.name == "patchcore"
    again = dataclasses.replace(resolved, head="logistic", label_budget="0.1")
    assert "--memory_bank=2000" in settings_lib.flagfile(again)
    checks.of_fit(again)


def test_settings_of_every_job_name_what_they_refuse():
    """A name that is misspelt in a list of what is not read would never be refused."""
    known = {one.name for owner in (FitSettings, LabelEfficiencySettings) for one in settings_lib.settings_of(owner)}
    assert set(checks._NOT_OF_THE_STUDY) | set(checks._OF_PLAIN_HEADS) | set(settings.READ_BY) <= known
    assert {"masks", "categories"} <= {one.name for one in settings_lib.settings_of(JudgeSettings)}
