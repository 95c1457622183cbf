"""What to do after a label-efficiency grid: which head to take, whether to label more, whether to photograph more."""

import math

from mvtec_tf.evaluation.intervals import LEVEL
from mvtec_tf.features.recipe import RECIPES
from mvtec_tf.label_efficiency.findings import COMPARED, Findings, Method, Place, Standing, gain
from mvtec_tf.label_efficiency.grid import order_of
from mvtec_tf.label_efficiency.words import count, short_budget, signed

# A balanced accuracy that is known to this much can be decided by.
WANTED = 0.05
# Budgets of this order are no shares, see `grid.order_of`: what they buy more of is not what a share buys.
_COUNTS_OF_DEFECTS = 2
_FIGURE = "balanced_accuracy"


def next_step(found: Findings, place: Place) -> str:
    """What to do for one category, in a few sentences.

    Args:
      found: the whole grid.
      place: the category at the leading budget.
    """
    method = taken(found, place)
    by_budget = {
        each.budget: standing
        for each in found.of_category(place.category)
        for standing in each.standings
        if standing.method == method and order_of(each.budget)[0] < _COUNTS_OF_DEFECTS
    }
    here = next(standing for standing in place.standings if standing.method == method)
    parts = [f"take {found.name(method)}", _labels(place.budget, here, by_budget), _photographs(here)]
    return f"What to do next for {place.category}: {'; '.join(parts)}."


def taken(found: Findings, place: Place) -> Method:
    """The best, or the recommended recipe where nothing is shown to be better than it."""
    best = place.standings[0].method
    not_worse = {pair.second for pair in place.against_best(COMPARED[0]).values() if not pair.shown}
    not_worse &= {pair.second for pair in place.against_best(COMPARED[1]).values() if not pair.shown}
    recipes = [method for method in found.methods if method[1] in RECIPES and method in {best, *not_worse}]
    return best if best in recipes or not recipes else recipes[0]


def _labels(budget: str, here: Standing, by_budget: dict[str, Standing]) -> str:
    larger = [other for other in by_budget if order_of(other) > order_of(budget)] if budget in by_budget else []
    if not larger:
        return "whether more labels would help was not asked: add larger shares to `budgets`"
    gains = {other: gain(by_budget[other], here, _FIGURE) for other in sorted(larger, key=order_of)}
    if any(more.p_value is None for more in gains.values()):
        return "whether more labels would help needs several draws: `seeds`=10"
    helping = [other for other, more in gains.items() if more.metric.value > 0 and more.p_value < 1 - LEVEL]
    if not helping:
        most = max(larger, key=order_of)
        labels = count(by_budget[most].labelled[0])
        return f"more labels are not shown to help (balanced accuracy {signed(gains[most])} with {labels} of them)"
    # The least of those that help, unless a larger one is shown to help still more.
    wanted = helping[0]
    for other in helping[1:]:
        more = gain(by_budget[other], by_budget[wanted], _FIGURE)
        if more.p_value is not None and more.metric.value > 0 and more.p_value < 1 - LEVEL:
            wanted = other
    number = math.ceil(by_budget[wanted].labelled[0] - here.labelled[0])
    return (
        f"label {number} more test images (`label_budget`={wanted}, {short_budget(wanted)}: balanced accuracy "
        f"{signed(gains[wanted])})"
    )


def _photographs(here: Standing) -> str:
    """How many more, for an interval of balanced accuracy that is narrow enough: its width falls with the root."""
    figure = here.estimates[_FIGURE].metric
    if figure.low is None:
        return "repeat it with `seeds`=10 before counting photographs"
    reach = max(figure.high - figure.value, figure.value - figure.low)
    if reach <= WANTED:
        return f"no more photographs are needed to know the balanced accuracy to {WANTED:g}"
    images = sum(result.evaluated_images + result.pool_images for result in here.results) / len(here.results)
    more = math.ceil(images * ((reach / WANTED) ** 2 - 1))
    return (
        f"photograph about {more:,} more test images, good and defective in the same shares, to know the balanced "
        f"accuracy to {WANTED:g} instead of {reach:.2f}"
    )
