"""Fine-tunes the last stage of an encoder on labelled images and drawn defects, kept only if left-out objects gain.

Example:
  python -m mvtec_tf.bin.finetune --data_dir=DATA/bottle --label_budget=0.2 --run_dir=results/bottle_tuned
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.settings import FinetuneRunSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.finetune.finetune", FinetuneRunSettings, checks.of_finetuning)
