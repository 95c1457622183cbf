r"""Finds out which recipe works on your parts with the labels you have: encoders x heads x label budgets x draws.

Every cell of the grid is judged by the protocol clean, and is written when it is done: a stopped call goes on where
it stopped. RUN_DIR/cells.csv holds all figures, RUN_DIR/report.html says what they prove and what not.

--recipe=few_labels (the default) adds the recommended recipe, as the head "few_labels", to those of --heads.

Examples:
  python -m mvtec_tf.bin.label_efficiency --data_dir=DATA/bottle --weights=imagenet --quick --run_dir=results/quick
  python -m mvtec_tf.bin.label_efficiency --data_dir=DATA --weights=imagenet --run_dir=results/labels
  python -m mvtec_tf.bin.label_efficiency --data_dir=DATA --weights=imagenet --encoders=start,results/simclr \
      --heads=logistic,rbf_svm --budgets=0,0.1,10d --seeds=10 --run_dir=results/encoders
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.settings import LabelEfficiencySettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.label_efficiency.label_efficiency", LabelEfficiencySettings, checks.of_label_efficiency)
