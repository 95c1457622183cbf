"""The label-efficiency grid in plain words: the answer first, then what it rests on."""

from collections.abc import Iterable, Sequence

from mvtec_tf.data import protocol
from mvtec_tf.data.protocol import DefectCount
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation import metrics
from mvtec_tf.evaluation.report.summary import TITLES
from mvtec_tf.label_efficiency.findings import COMPARED, GAIN, Findings, Place
from mvtec_tf.label_efficiency.statistics import Estimate


def sentences(found: Findings) -> list[str]:
    """The answer at the leading budget, a thought each: who is best, whether it beats calling everything defective,
    which differences are not shown; then what the intervals are of and what is missing. Those are empty that have
    nothing to say."""
    budget = found.leading_budget
    places = [place for place in found.places if place.budget == budget]
    texts = [_best(found, places, budget), _trivial(places), _not_shown(found, places)]
    return [*texts, _draws(found), _coverage(found), _missing(found)]


def short_budget(budget: str) -> str:
    """For the axis of a plot or the head of a table: `10 %`, `all`, `10 defects`."""
    parsed = protocol.parse_budget(budget)
    if isinstance(parsed, DefectCount):
        return counted(parsed.objects, "defect")
    if parsed is None:
        return "all"
    return f"{100 * parsed:g} %" if parsed else "0"


def long_budget(budget: str) -> str:
    """In a sentence: `with 10 % of the test images labelled`."""
    parsed = protocol.parse_budget(budget)
    if isinstance(parsed, DefectCount):
        return f"with {counted(parsed.objects, 'labelled defective object')} and no labelled good test image"
    if parsed is None:
        return "with the whole pool (half of the test images) labelled"
    return f"with {100 * parsed:g} % of the test images labelled" if parsed else "without any label"


def signed(each: Estimate) -> str:
    """A difference with its interval: `+0.120 [+0.043 to +0.197]`."""
    return _with_limits(each, "+")


def _with_limits(each: Estimate, sign: str = "") -> str:
    if each.metric.value is None:
        return "n/a"
    return metrics.with_limits(each.metric, sign=sign) + (" in every draw" if each.deviation == 0 else "")


def clear(each: Estimate) -> bool:
    """Whether an interval lies above 0, or every draw gives one figure above 0."""
    lowest = each.metric.value if each.deviation == 0 else each.metric.low
    return lowest is not None and lowest > 0


def count(mean: float) -> str:
    """A mean number of images as it is printed."""
    return f"{mean:,.1f}".removesuffix(".0")


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _best(found: Findings, places: Sequence[Place], budget: str) -> str:
    parts = []
    for place in places:
        best = place.standings[0]
        figures = ", ".join(f"{TITLES[name]} {_with_limits(best.estimates[name])}" for name in COMPARED)
        labels = "{} labelled images, {} of them defective".format(*map(count, best.labelled))
        parts.append(f"{found.name(best.method)} on {place.category} ({figures}; {labels})")
    text = long_budget(budget)
    return f"{text[0].upper()}{text[1:]} the highest mean ROC-AUC is that of {listed(parts)}."


def _trivial(places: Sequence[Place]) -> str:
    gains = {place.category: place.standings[0].estimates[GAIN] for place in places}
    parts = [f"{signed(each)} on {category}" for category, each in gains.items()]
    beaten = [category for category, each in gains.items() if clear(each)]
    rest = [category for category in gains if category not in beaten]
    if not rest:
        verdict = "so it beats that"
    elif not beaten:
        verdict = "so it is not shown to beat that"
    else:
        verdict = f"so it beats that on {listed(beaten)} and is not shown to on {listed(rest)}"
    return f"Its F1 differs from that of calling every image defective by {listed(parts)}: {verdict}."


def _not_shown(found: Findings, places: Sequence[Place]) -> str:
    parts = [part for place in places if (part := _pairs_in_words(found, place))]
    if not parts:
        return "With a single head there is nothing to compare it with."
    return f"Differences from it: {'; '.join(parts)}."


def _pairs_in_words(found: Findings, place: Place) -> str:
    by_metric = {name: place.against_best(name) for name in COMPARED}
    others = [standing.method for standing in place.standings[1:]]
    if not others:
        return ""
    lower = {}
    for method in others:
        pairs = [by_metric[name].get(method) for name in COMPARED]
        names = [TITLES[name] for name, pair in zip(COMPARED, pairs, strict=True) if pair and pair.shown]
        lower.setdefault(" and ".join(names), []).append(found.name(method))
    shown = [
        f"in {what} {listed(names)} {'is' if len(names) == 1 else 'are'} shown to differ"
        for what, names in lower.items()
        if what
    ]
    if "" in lower:
        shown.append(f"{listed(lower[''])} {'is' if len(lower['']) == 1 else 'are'} not shown to differ in either")
    return f"on {place.category} {', '.join(shown)}"


def _draws(found: Findings) -> str:
    done, asked = len(found.seeds), len(found.all_seeds)
    so_far = f" so far, of {asked} that were asked for" if done < asked else ""
    text = f"All figures are means over {counted(done, 'draw')} (seeds {_range(found.seeds)}){so_far}."
    if done < 2:
        return f"{text} A single draw has no interval, and no difference can be called real."
    return text


def _range(seeds: Sequence[int]) -> str:
    whole = list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if whole and len(seeds) > 1 else ", ".join(map(str, seeds))


def _coverage(found: Findings) -> str:
    if len(found.seeds) < 2:
        return ""
    return (
        "Intervals are 95 % and cover which images are cut into which half and which of them are labelled; they do not "
        "cover new parts: all draws are of the same photographs, judge many images in common, and are corrected for it "
        "(Nadeau and Bengio, 2003)."
    )


def _missing(found: Findings) -> str:
    if not found.left_out:
        return ""
    return f"{counted(len(found.left_out), 'cell')} could not be computed; they are listed below with their reasons."

