"""Draws the toy factory: a small data set in the MVTec layout, from a seed, without a download.

Example:
  python -m mvtec_tf.bin.make_toy --out=results/toy --seed=0
"""

from absl import flags

from mvtec_tf.bin import entry

_OUT = flags.DEFINE_string("out", None, "Folder to draw into; a set of the same settings there is reused.")
_SEED = flags.DEFINE_integer("seed", 0, "Which factory.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 128, "Side of the images in pixels.")
_TRAIN_GOOD = flags.DEFINE_integer("train_good", 120, "Good training images of each category.")
_TEST_GOOD = flags.DEFINE_integer("test_good", 60, "Good test images of each category.")
_PER_DEFECT = flags.DEFINE_integer("per_defect", 40, "Test images of each defect type, half of them subtle.")
_PRODUCTS = flags.DEFINE_list(
    "products", ["denim", "flange"], "Which products: denim (a cloth), flange (a part at any angle), mesh (woven wire)."
)
flags.mark_flag_as_required("out")


def main() -> None:
    import pathlib

    from mvtec_tf.data.toy import factory as toy

    root = pathlib.Path(_OUT.value)
    entry.own(_OUT.value, new=True)
    categories = toy.write_toy_factory(
        root,
        seed=_SEED.value,
        image_size=_IMAGE_SIZE.value,
        train_good=_TRAIN_GOOD.value,
        test_good=_TEST_GOOD.value,
        per_defect=_PER_DEFECT.value,
        products=_PRODUCTS.value,
    )
    for category in categories:
        defects = ", ".join(toy.CATEGORIES[category].defects)
        print(
            f"{category}: {_TRAIN_GOOD.value} good images for training, {_TEST_GOOD.value} good and "
            f"{_PER_DEFECT.value} of each defect ({defects}) for testing"
        )
    print(root)


if __name__ == "__main__":
    entry.run(main)
