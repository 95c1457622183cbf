"""Trains a small student of a judged model for a device, as LiteRT files in float16 and int8.

The teacher's own record says which images it had seen; those that it was judged on, the student is judged on too, and
nothing is trained or chosen on them.

Example:
  python -m mvtec_tf.bin.distill --teacher=results/bottle --data_dir=DATA/bottle --run_dir=results/bottle_student
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.settings import DistilRunSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.distill.distill", DistilRunSettings, checks.of_distilling)
