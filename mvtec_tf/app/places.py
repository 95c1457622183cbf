"""What of this machine and of the network a person at the page may name, and how it is shown without its secrets."""

import os
import urllib.parse
from collections.abc import Sequence

from mvtec_tf.app.wording import WordedError


class NoPlaceError(WordedError):
    """A place that the page does not read or write."""


def shown(address: str) -> str:
    """An address without what is secret in it: user, password and query, also where the path is one."""
    split = urllib.parse.urlsplit(address)
    host, path = split.netloc.rpartition("@")[2], "/..." if "=" in split.path else split.path
    return urllib.parse.urlunsplit((split.scheme, host, path, "", "")) if split.scheme else address


def pause(first: float, failures: int, longest: float) -> float:
    """Seconds until the next try: twice as many after each failure."""
    # A power of all the failures of a weekend is no float any more.
    return min(first * 2 ** min(failures - 1, 30), longest)


def is_address(text: str, schemes: Sequence[str]) -> bool:
    """Whether a text is an address of another host, or another port, and no path."""
    try:
        split = urllib.parse.urlsplit(text)
        # What stands before a later @ would be a password that its own / or # has cut in two.
        whole = "@" not in split.path + split.query + split.fragment and " " not in text
        return split.scheme in schemes and bool(split.hostname) and (split.port or 1) > 0 and whole
    except ValueError:
        return False


def is_any_address(text: str) -> bool:
    """Whether a text is meant as an address, whatever is wrong with it: it may hold a password."""
    return "://" in text


def allowed(place: str, folders: Sequence[str]) -> str:
    """The real path of a place below one of the folders. Raises NoPlaceError if it is below none."""
    if is_any_address(place):
        raise NoPlaceError("no_path")
    real = os.path.realpath(place)
    roots = [os.path.realpath(folder) for folder in folders]
    if not place or not any(os.path.commonpath((real, root)) == root for root in roots):
        raise NoPlaceError("place_not_allowed" if roots else "no_places", place=place, folders=", ".join(roots))
    return real
