"""What the cells of a column say of an order: numbers, times or dates, all of one form, and nothing that is a guess."""

import datetime
import decimal
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mvtec_tf.errors import UserError

EXPECTED = (
    "one value for each part, all of one form: numbers (12.5, or 12,5), ISO 8601 (2026-10-25T06:00), times of day "
    "(8:59, 08:59:30, 8:59 PM) or dates with the year in four digits (25.10.2026 06:00, 2026/10/25 06:00)"
)
# 1,234 is another number to a German than to an American.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})?")


def _number(cell: str) -> decimal.Decimal:
    # What `Decimal` takes beyond these, such as nan and 1_000, has no place in an order, or not a sure one.
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", cell, re.ASCII):
        raise ValueError(cell)
    # Exact: nanoseconds since 1970 are more than a float can tell apart.
    return decimal.Decimal(cell)


def _with_comma(cell: str) -> decimal.Decimal:
    if "." in cell:
        raise ValueError(cell)
    return _number(cell.replace(",", "."))


def _iso(zone: bool) -> Callable[[str], datetime.datetime]:
    def read(cell: str) -> datetime.datetime:
        moment = datetime.datetime.fromisoformat(cell)
        # A date alone is midnight to the library; beside times it is a mixture.
        if len(cell) <= len("2026-10-25") or (moment.tzinfo is not None) != zone:
            raise ValueError(cell)
        return moment

    return read


def _written(*forms: str) -> Callable[[str], datetime.datetime]:
    def read(cell: str) -> datetime.datetime:
        for form in forms:
            try:
                return datetime.datetime.strptime(cell, form)
            except ValueError:
                continue
        raise ValueError(cell)

    return read


_COMMA = "numbers with a decimal comma"
# The first that all cells have is meant.
_FORMS: dict[str, Callable[[str], Any]] = {
    "numbers": _number,
    _COMMA: _with_comma,
    "ISO 8601 dates": datetime.date.fromisoformat,
    "ISO 8601 times": _iso(zone=False),
    "ISO 8601 times with a zone": _iso(zone=True),
    # Apart: 8:59 beside 1:00:05 may be minutes and seconds.
    "times of day (hours, minutes)": _written("%H:%M"),
    "times of day (hours, minutes, seconds)": _written("%H:%M:%S", "%H:%M:%S.%f"),
    "times of day (AM, PM)": _written("%I:%M %p", "%I:%M:%S %p"),
}
# Not day and month between slashes: their order is another one in another country. The last is Exif's.
for _date in ("%d.%m.%Y", "%Y/%m/%d", "%Y:%m:%d"):
    _example = datetime.date(2026, 10, 25).strftime(_date)
    _FORMS[f"dates as {_example}"] = _written(_date)
    _FORMS[f"times as {_example} 06:00"] = _written(
        f"{_date} %H:%M", f"{_date} %H:%M:%S", f"{_date} %H:%M:%S.%f"
    )


def read(cells: Sequence[tuple[str, str]]) -> tuple[str, list[Any]]:
    """Reads what sets parts in order.

    Args:
      cells: (where it stands, what is written) of each part, at least one.

    Returns:
      The form that all cells have, in words, and their values, which can be compared.

    Raises:
      UserError: a cell has no form that is known or another one than those before it, may be either of two numbers, or
        says what all the others say.
    """
    furthest, values = "", []
    for form, value_of in _FORMS.items():
        found = list(_read_on(value_of, cells))
        if not furthest or len(found) > len(values):
            furthest, values = form, found
    if len(values) < len(cells):
        where, cell = cells[len(values)]
        before = f" after {furthest} such as {cells[len(values) - 1][1]!r}" if values else ""
        raise UserError(f"{where}: found {cell!r}{before}. Expected {EXPECTED}.")
    if furthest == _COMMA and all(_THOUSANDS.fullmatch(cell) for _, cell in cells):
        either = [next((one for one in cells if ("," in one[1]) == comma), None) for comma in (True, False)]
        if all(either):
            (where, cell), (_, other) = either
            raise UserError(
                f"{where}: found {cell!r} beside {other!r}, which may be {cell.replace(',', '.')} or "
                f"{cell.replace(',', '')}. Write one or the other."
            )
    if len(cells) > 1 and all(value == values[0] for value in values):
        where, cell = cells[0]
        raise UserError(f"{where}: all {len(cells)} parts say {cell!r}, which is no order. Expected {EXPECTED}.")
    return furthest, values


def _read_on(value_of: Callable[[str], Any], cells: Sequence[tuple[str, str]]) -> Iterator[Any]:
    """The cells' values up to the first that has another form."""
    for _, cell in cells:
        try:
            yield value_of(cell)
        except ValueError:
            return
