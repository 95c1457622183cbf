"""Exit statuses and messages that other people's scripts rely on."""


import pytest

from tests.conftest import run_binary

BINARIES = (
    "drift",
    "evaluate",
    "explore_data",
    "export",
    "extract_features",
    "fetch_mvtec",
    "fit_baseline",
    "fit_probe",
    "label_efficiency",
    "make_toy",
    "predict",
    "quickstart",
    "train_cnn",
    "train_simclr",
)
TRAINING = ("train_cnn", "train_simclr", "fit_baseline")


@pytest.mark.parametrize("name", BINARIES)
def test_help_is_success_and_shows_an_example(name):
    done = run_binary(name, "--help", check=False)
    assert done.returncode == 0
    assert f"python -m mvtec_tf.bin.{name}" in done.stdout


@pytest.mark.parametrize("name", BINARIES)
@pytest.mark.parametrize("flags", [["--no_such_flag=1"], [], ["stray"]])
def test_wrong_use_is_status_2_and_a_message_without_a_traceback(name, flags):
    done = run_binary(name, *flags, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("ERROR: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("train_cnn", "--precision=float8"),
        ("train_cnn", "--batch_size=0"),
        ("train_cnn", "--epochs=many"),
        ("train_cnn", "--protocol=dirty"),
        ("train_cnn", "--label_budget=0.9"),
        ("train_cnn", "--backbone=resnet99"),
        ("train_simclr", "--temperature=-1"),
        ("train_simclr", "--jit=perhaps"),
        ("fit_baseline", "--features=smell"),
    ],
)
def test_a_flag_that_makes_no_sense_is_status_2_and_named(name, flag, toy, tmp_path):
    done = run_binary(name, f"--data_dir={toy}", f"--run_dir={tmp_path / 'run'}", flag, check=False)
    assert done.returncode == 2, done.stderr
    assert flag.split("=")[0].removeprefix("--") in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TRAINING)
def test_missing_data_is_status_1_and_leaves_nothing_behind(name, tmp_path):
    done = run_binary(name, f"--data_dir={tmp_path / 'nothing'}", f"--run_dir={tmp_path / 'run'}", check=False)
    assert done.returncode == 1
    assert str(tmp_path / "nothing") in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_probe_wants_either_an_encoder_or_weights(toy, tmp_path):
    flags = (f"--data_dir={toy}", f"--run_dir={tmp_path / 'run'}")
    for more in ([], ["--encoder=a", "--weights=none"]):
        done = run_binary("fit_probe", *flags, *more, check=False)
        assert done.returncode == 2
        assert "either --encoder or --weights" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--label_budget=0", "--head=rbf_svm"], "--head=rbf_svm needs labels"),
        (["--task=defect_type", "--head=mahalanobis"], "--head=mahalanobis names no defects"),
        (["--head=hybrid", "--hybrid_of=hybrid"], "--hybrid_of=hybrid"),
        (["--tiles=2by2"], "--tiles=2by2"),
        (["--neighbourhood=2", "--head=padim"], "--neighbourhood=2"),
        (["--head=oracle"], "--head"),
        (["--features=somewhere"], "Leave out --weights"),
        (["--recipe=auto", "--head=logistic"], "--head=logistic: --recipe=few_labels has --head=fused"),
        (["--recipe=auto", "--pooling=mean"], "--pooling=mean: --recipe=few_labels has --pooling=mean,gem8"),
        (["--recipe=auto", "--protocol=study"], "--recipe=auto: --protocol=study"),
    ],
)
def test_flags_of_a_probe_that_do_not_go_together_are_status_2(flags, words, tmp_path):
    where = (f"--data_dir={tmp_path}", f"--run_dir={tmp_path / 'run'}", "--weights=none")
    done = run_binary("fit_probe", *where, *flags, check=False)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_encoder_that_is_none_is_a_clear_message(toy, tmp_path):
    flags = (f"--data_dir={toy}", f"--run_dir={tmp_path / 'run'}", f"--encoder={tmp_path / 'nowhere'}")
    done = run_binary("fit_probe", *flags, check=False)
    assert done.returncode == 1
    assert "nowhere" in done.stderr


def test_a_run_that_is_none_cannot_be_exported(tmp_path):
    done = run_binary("export", f"--run={tmp_path}", "--name=m", f"--saved_models={tmp_path / 'out'}", check=False)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_flagfile_sets_flags_and_the_command_line_overrides_it(toy, tmp_path):
    (tmp_path / "my.flags").write_text(
        f"--data_dir={toy / 'flange'}\n--features=mean_brightness\n--image_size=32\n--seed=3\n"
    )
    run_dir = tmp_path / "run"
    run_binary("fit_baseline", f"--flagfile={tmp_path / 'my.flags'}", "--seed=4", f"--run_dir={run_dir}")
    written = (run_dir / "flags.txt").read_text()
    assert "--features=mean_brightness" in written
    assert "--seed=4" in written
