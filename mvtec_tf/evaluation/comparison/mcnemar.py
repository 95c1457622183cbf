"""McNemar's test: whether two models that call the same images differ in how many they call rightly."""

import dataclasses
import math

# Below this many discordant images the chi-squared approximation is poor (McNemar, Psychometrika
# 1947, as usually taught; e.g. Fleiss, Statistical Methods for Rates and Proportions, chapter 8).
FEW = 25


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Result of the test.

    Attributes:
      only_first: images that only the first model called rightly.
      only_second: images that only the second did.
      p_value: chance of a split at least as uneven if the two were equally good.
      exact: whether it is from the binomial distribution, not from chi-squared.
    """

    only_first: int
    only_second: int
    p_value: float
    exact: bool


def mcnemar_test(only_first: int, only_second: int) -> McNemar:
    """The two-sided test: exact for fewer than 25 discordant images, else chi-squared with Edwards' correction.

    It takes images as independent: with several images of one object the p-value is too small.
    """
    count = only_first + only_second
    exact = count < FEW
    if exact:
        tail = sum(math.comb(count, k) for k in range(min(only_first, only_second) + 1))
        p_value = min(1.0, 2 * tail / 2**count)
    else:
        statistic = max(0, abs(only_first - only_second) - 1) ** 2 / count
        p_value = math.erfc(math.sqrt(statistic / 2))
    return McNemar(only_first, only_second, p_value, exact)
