"""Flags that choose a head and set its numbers."""

from absl import flags

from mvtec_tf.heads.settings import HEADS, HeadSettings

FLAGS = flags.FLAGS
flags.disclaim_key_flags()


def define_head_flags() -> None:
    """--head and the numbers of every head."""
    flags.DEFINE_enum(
        "head", "logistic", list(HEADS), "; ".join(f"{name}: {words}" for name, words in HEADS.items()) + "."
    )
    define_number_flags()


def define_number_flags() -> None:
    """The numbers of every head."""
    flags.DEFINE_float("head_c", 1.0, "Inverse strength of the penalty of logistic regression and SVMs.", 1e-9)
    flags.DEFINE_integer("neighbours", 1, "Nearest images or patches whose distances are averaged.", 1)
    flags.DEFINE_integer("memory_bank", 2000, "Patches that patchcore keeps.", 1)
    flags.DEFINE_integer("coreset_candidates", 50_000, "Random patches among which patchcore chooses its memory.", 1)
    flags.DEFINE_integer("padim_channels", 100, "Random channels of a patch that padim looks at.", 1)
    flags.DEFINE_list("hybrid_of", ["lda", "mahalanobis", "patchcore"], "Heads that the hybrid weighs.")


def head_settings(seed: int, name: str | None = None) -> HeadSettings:
    """As the command line says.

    Args:
      seed: of what the head draws.
      name: of the head; None: that of --head.
    """
    return HeadSettings(
        name=name or FLAGS.head,
        c=FLAGS.head_c,
        neighbours=FLAGS.neighbours,
        memory_bank=FLAGS.memory_bank,
        coreset_candidates=FLAGS.coreset_candidates,
        padim_channels=FLAGS.padim_channels,
        hybrid_of=tuple(FLAGS.hybrid_of),
        seed=seed,
    )
