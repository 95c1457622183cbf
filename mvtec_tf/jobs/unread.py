"""Settings that nothing would read beside what else is asked for: refused, since who gives one expects a difference."""

from collections.abc import Iterable, Sequence
from typing import Any

from mvtec_tf import settings as settings_lib
from mvtec_tf.errors import UsageError
from mvtec_tf.heads.settings import NEED_MAPS, READ_BY, HeadSettings
from mvtec_tf.jobs.fields import DEFAULTS

_AVERAGES = "averages patch features"


def refuse(said: Any, names: Iterable[str], why: str) -> None:
    """`settings.refuse_unread` of a job's settings."""
    settings_lib.refuse_unread(said, names, why, DEFAULTS)


def of_heads(said: Any, heads: Sequence[HeadSettings]) -> None:
    """Raises UsageError for numbers of heads that are not among `heads`, and for averages of patches if none sees any.

    Args:
      said: settings with `HeadNumbers` and `FeatureFields`, as they were given.
      heads: those that will be fitted.
    """
    there = {name for head in heads for name in (head.name, *(head.hybrid_of if head.name == "hybrid" else ()))}
    among = f"here is {' and '.join(head.name for head in heads)}" if heads else "no head is asked for"
    for name, heads_that_do in (READ_BY | {"neighbourhood": sorted(NEED_MAPS - {"hybrid"})}).items():
        if not there & set(heads_that_do):
            what = _AVERAGES + " of" if name == "neighbourhood" else "a number of"
            refuse(said, [name], f"{what} {' and '.join(heads_that_do)}, and {among}")


def of_trained_networks(said: Any) -> None:
    """Raises UsageError for a backbone that is taken as it is."""
    if (said.backbone or "").lower().startswith("dinov2"):
        raise UsageError(
            f"`backbone`={said.backbone}: is not trained here, its features are taken as they are: by mvtec-tf "
            "fit, extract-features, label-efficiency and explore. Train a network of keras.applications."
        )


def of_weights(said: Any) -> None:
    """Raises UsageError if part of a weights file is asked for where there is no file."""
    if said.weights in ("imagenet", "none", "preset"):
        refuse(said, ["weights_partial"], f"`weights`={said.weights} is no file")
