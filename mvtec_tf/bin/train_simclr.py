"""Trains a SimCLR encoder on good images only and exports it, frozen.

Example:
  python -m mvtec_tf.bin.train_simclr --data_dir=DATA/bottle --run_dir=results/bottle_simclr
"""

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.training.recipes import ContrastiveSettings

run_flags.define_data_flags((run_flags.CLEAN, run_flags.STUDY))
run_flags.define_run_dir()
run_flags.define_cache()
run_flags.define_recipe(ContrastiveSettings)


def main() -> None:
    settings = run_flags.recipe_from_flags(ContrastiveSettings)

    from mvtec_tf.data.decoding.image_store import ImageStore
    from mvtec_tf.graphs import saved_model
    from mvtec_tf.jobs import run_steps
    from mvtec_tf.study import protocol as study
    from mvtec_tf.training.contrastive import train_simclr

    store = ImageStore(settings.image_size, run_flags.FLAGS.cache, run_flags.FLAGS.max_pixels)
    good = tuple(record for record in run_steps.scan() if record.split == "train")
    good, skipped = run_steps.usable(good, store.readable)
    if run_flags.FLAGS.protocol == run_flags.STUDY:
        good = study.pretrain_part(good, settings.seed)
    run = run_steps.open_run("train_simclr", good, skipped, ("saved_model",))
    print(f"{len(good)} good training images; test images are not looked at.", flush=True)
    images = store.load(good)
    if not run.saved_model.exists():
        with run.timed("train"):
            encoder = train_simclr(run, settings, images)
        seen = [{"path": record.path, "group": record.group, "category": record.category} for record in good]
        card = {"run": run.record["settings"], "pretrain_images": seen}
        saved_model.write_encoder(run.saved_model, encoder, card, max_pixels=run_flags.FLAGS.max_pixels)
    run.finish()
    print(f"Encoder: {run.saved_model}")
    print(run.path)


if __name__ == "__main__":
    entry.run(main)
