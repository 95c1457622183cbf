"""An operator's day in short: a lamp dims, the page is killed twice, and nothing is lost, doubled or missed."""

import pytest

from mvtec_tf.data.toy.factory import write_toy_factory
from mvtec_tf.jobs.fit import fit
from mvtec_tf.jobs.settings import FitSettings
from mvtec_tf.serving.export import export_run
from tools import operator_day


@pytest.mark.slow
def test_a_day_with_two_kills_is_logged_once_and_its_lamp_is_noticed_in_time(small_encoder, tmp_path, capsys):
    write_toy_factory(
        tmp_path / "toy", seed=1, image_size=64, train_good=60, test_good=12, per_defect=2, products=("flange",)
    )
    settings = FitSettings(
        data_dir=(str(tmp_path / "toy"),),
        encoder=str(small_encoder),
        head="mahalanobis",
        label_budget="0",
        run_dir=str(tmp_path / "run"),
    )
    fit(settings)
    export_run(tmp_path / "run", "flange", tmp_path / "models")
    told = ["--parts=100", "--defects=4", "--dims_at=60", "--kills=2"]
    with pytest.raises(SystemExit) as ended:
        operator_day.main([f"--models={tmp_path / 'models'}", f"--project={tmp_path / 'page'}", *told])
    said = capsys.readouterr().out
    assert "100 parts, 2 kills, " in said
    assert ": 100 in the log, 0 missing or twice, 0 verdicts twice, 0 verdicts of no part, 0 refused" in said
    assert "the first alarm within 100 parts and not before: True" in said
    assert not ended.value.code, said
