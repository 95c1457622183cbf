"""Learning what labelled defects look like, and drawing more, for `train_classifier` to put onto good images."""

import numpy as np
from PIL import Image

from mvtec_tf import files
from mvtec_tf.data import defect_patches, protocol
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.jobs import opening
from mvtec_tf.jobs.settings import GenerateSettings
from mvtec_tf.jobs.train_classifier import clean_parts
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import denoising

MODEL, DRAWN, CUT, PICTURE = "denoiser.keras", "defect_patches.npz", "cut_patches.npz", "defect_patches.png"
# Patches across and down in a half of the picture.
_ACROSS, _DOWN = 12, 4


def generate_defects(settings: GenerateSettings) -> RunDirectory:
    """Cuts patches around the masks of labelled defects that a training would fit, learns and draws such, or goes on.

    Returns:
      The finished run: the model, the patches that it has drawn and those that were cut, and a picture of both.

    Raises:
      UsageError: settings contradict each other.
      UserError: images cannot be used, or no defect that may be seen has a mask.
    """
    store = ImageStore(settings.image_size, max_pixels=settings.max_pixels)
    records, skipped = opening.usable_by_file(settings, opening.scan(settings), settings.max_pixels)
    budget = protocol.parse_budget(settings.label_budget)
    # As `train_classifier` cuts them: neither what is evaluated nor what stops that training is looked at.
    parts = clean_parts(records, budget, settings.validation_share, settings.seed, synthetic=True)
    defective = [record for record in parts.fit if record.label]
    if not defective:
        raise UserError(
            f"None of the {counted(len(parts.fit), 'image')} that may be fitted is a labelled defective one. Give a "
            "larger `label_budget` or a smaller `validation_share`."
        )
    results = (MODEL, DRAWN, CUT, PICTURE)
    masks = [record.mask for record in defective if record.mask]
    with opening.opened("generate_defects", settings, records, skipped, results, masks) as run:
        if run.finished:
            return run
        cut, unused = defect_patches.cut(defective, store.load(defective), settings.seed)
        for path, why in unused:
            print(f"Left out: {path}: {why}.")
        print(f"{counted(len(cut), 'patch', 'patches')} of {len(cut.sources)} labelled defective images.", flush=True)
        run.note(unused_masks=[{"path": path, "reason": why} for path, why in unused])
        with run.timed("train"):
            network = denoising.train_denoiser(run, settings, cut.patches)
        with run.timed("draw"):
            drawn = denoising.drawn(network, cut, settings.patches, settings.seed)
        with files.replacing(run.path / MODEL) as temporary:
            network.save(temporary)
        cut.write(run.path / CUT)
        drawn.write(run.path / DRAWN)
        with files.replacing(run.path / PICTURE) as temporary:
            Image.fromarray(_picture(cut, drawn, settings.seed)).save(temporary, "PNG")
        run.finish(f"Patches: {run.path / DRAWN}; what they were learnt from is above them on {run.path / PICTURE}.")
        return run


def _picture(cut: defect_patches.Bank, drawn: defect_patches.Bank, seed: int) -> np.ndarray:
    """uint8 [H, W, 3]: patches that were cut, and below them drawn ones, the rim of each defect in red."""
    halves, side = [], cut.patches.shape[1]
    for bank in (cut, drawn):
        order = np.random.default_rng(seed).permutation(len(bank))[: _ACROSS * _DOWN]
        tiles = np.full((_ACROSS * _DOWN, side, side, 3), 255, np.uint8)
        for tile, patch in zip(tiles, bank.patches[order], strict=False):
            on = patch[..., 3] > 127
            around = np.pad(on, 1)
            inner = on & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
            tile[:] = np.where((on & ~inner)[..., None], np.array([255, 0, 0], np.uint8), patch[..., :3])
        rows = tiles.reshape(_DOWN, _ACROSS, side, side, 3).swapaxes(1, 2)
        halves += [rows.reshape(_DOWN * side, _ACROSS * side, 3), np.full((4, _ACROSS * side, 3), 255, np.uint8)]
    return np.concatenate(halves[:-1])
