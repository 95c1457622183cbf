"""How a threshold is chosen, as flags of every binary that judges: the trainings and `evaluate` alike."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from absl import flags

from mvtec_tf.errors import UsageError

if TYPE_CHECKING:
    from mvtec_tf.evaluation.recorded import Judging

FLAGS = flags.FLAGS
# The flags defined here belong to the binary that asks for them, and show in its --help.
flags.disclaim_key_flags()
_TARGETS = ("target_recall", "target_specificity")
_METHODS = ("youden", "smooth_youden", "best_f1", *_TARGETS, "least_cost")
_NAMES = ("threshold_method", "threshold_per", *_TARGETS, "cost_miss", "cost_false_alarm")


def define(*more: str) -> None:
    """--threshold_method, --threshold_per, --target_recall, --target_specificity and the costs.

    What contradicts itself is refused when the command line is read, before any work.

    Args:
      more: "threshold" for a --threshold that is given instead.
    """
    if "threshold" in more:
        flags.DEFINE_float(
            "threshold", None, "A score that reaches it is called defective. Unset: chosen on the calibrate rows."
        )
    flags.DEFINE_enum(
        "threshold_method",
        None,
        _METHODS,
        "How the threshold is chosen on the calibrate rows; smooth_youden: the best balanced accuracy of smoothed "
        "scores, for few labels. Unset: youden, or what a --target_... flag says.",
    )
    flags.DEFINE_enum(
        "threshold_per",
        None,
        ("model", "category"),
        "One threshold for the model, or one of each category. Unset: for the model.",
    )
    flags.DEFINE_float("target_recall", None, "Share of the defective images to find, e.g. 0.95.")
    flags.DEFINE_float("target_specificity", None, "Share of the good images to let pass, e.g. 0.95.")
    flags.DEFINE_float("cost_miss", None, "What a defective image that is called good costs. Unset: 1.", 0)
    flags.DEFINE_float("cost_false_alarm", None, "What a good image that is stopped costs. Unset: 1.", 0)
    flags.register_multi_flags_validator((*_NAMES, *more), _check)


def rule_and_costs() -> dict[str, Any]:
    """The arguments `rule` and `costs` of `judge`, as the flags say."""
    # Not above: a command line is read and refused without what these import.
    from mvtec_tf.evaluation.metrics import Costs
    from mvtec_tf.evaluation.thresholds import Rule

    values = {name: FLAGS[name].value for name in _NAMES}
    method, target = _method(values)
    return {"rule": Rule(method, values["threshold_per"] or "model", target), "costs": Costs(*_costs(values))}


def as_judged(own: "Judging | None") -> dict[str, Any]:
    """The arguments `threshold`, `rule` and `costs` of `judge`: as the flags say, and where they say nothing as `own`.

    Args:
      own: how the maker of the table judged it.
    """
    found = {"threshold": FLAGS.threshold} | rule_and_costs()
    if own is None:
        return found
    if FLAGS.threshold is None and FLAGS.threshold_per is None and not method_is_given():
        found |= {"threshold": own.threshold, "rule": own.rule}
    given = {name: FLAGS[f"cost_{name}"].value for name in ("miss", "false_alarm")}
    costs = dataclasses.replace(own.costs, **{name: value for name, value in given.items() if value is not None})
    return found | {"costs": costs}


def method_is_given() -> bool:
    """Whether the flags say how the threshold is chosen."""
    return any(FLAGS[name].value is not None for name in ("threshold_method", *_TARGETS))


def _costs(values: dict[str, Any]) -> tuple[float, float]:
    return tuple(1.0 if values[name] is None else values[name] for name in ("cost_miss", "cost_false_alarm"))


def _method(values: dict[str, Any]) -> tuple[str, float | None]:
    """The method, and the wanted share of those that need one."""
    targets = [name for name in _TARGETS if values[name] is not None]
    method = values["threshold_method"] or (targets[0] if targets else "youden")
    return method, values[targets[0]] if targets else None


def _check(values: dict[str, Any]) -> bool:
    message = _contradiction(values)
    if message:
        # Not absl's own error: it would put the values of all these flags before the message.
        raise UsageError(message)
    return True


def _contradiction(values: dict[str, Any]) -> str:
    """What is wrong with the flags taken together, "" if nothing is."""
    targets = [name for name in _TARGETS if values[name] is not None]
    method, target = _method(values)
    threshold = values.get("threshold")
    if threshold is not None:
        if not math.isfinite(threshold):
            return f"--threshold={threshold}: expected a finite number."
        if values["threshold_method"] or targets or values["threshold_per"] == "category":
            return "--threshold is given, so none is chosen: leave it out, or the other threshold flags."
    if len(targets) > 1:
        return "--target_recall and --target_specificity: one threshold cannot have both. Give one of them."
    if targets and method != targets[0]:
        return f"--{targets[0]} does not go with --threshold_method={method}. Leave out one of them."
    if method in _TARGETS and not targets:
        return f"--threshold_method={method} needs --{method}, a share such as 0.95."
    if target is not None and not 0 < target <= 1:
        return f"--{method}={target}: expected a share above 0 and up to 1, such as 0.95."
    costs = _costs(values)
    if not all(map(math.isfinite, costs)) or not any(costs):
        return f"--cost_miss={costs[0]:g} and --cost_false_alarm={costs[1]:g}: expected finite costs, not both 0."
    return ""
