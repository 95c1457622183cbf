"""Flags made of a job's settings: names, defaults, choices and words all come from the dataclass."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from absl import flags

from mvtec_tf import settings as settings_lib
from mvtec_tf.errors import UsageError

FLAGS = flags.FLAGS
# The flags defined here belong to the binary that asks for them, and show in its --help.
flags.disclaim_key_flags()
_DEFINE = {bool: flags.DEFINE_boolean, int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}


def define(owner: type) -> None:
    """One flag for each setting of the dataclass `owner`."""
    for setting in settings_lib.settings_of(owner):
        if setting.metadata.get("arguments"):
            continue
        # That it must be given is said by `read`, all at once and in words of our own.
        default = None if setting.default is dataclasses.MISSING else setting.default
        if setting.kind is tuple:
            parser = PathsParser() if setting.metadata.get("paths") else flags.ListParser()
            flags.DEFINE(
                parser,
                setting.name,
                None if default is None else list(default),
                setting.words,
                serializer=flags.CsvListSerializer(","),
            )
        elif setting.choices:
            flags.DEFINE_enum(setting.name, default, list(setting.choices), setting.words)
        else:
            _DEFINE[setting.kind](setting.name, default, setting.words)


def read(owner: type, arguments: Sequence[str] = ()) -> Any:
    """The settings as the command line says.

    Args:
      owner: dataclass of the settings.
      arguments: arguments of the command line that are no flags.

    Raises:
      UsageError: a number is out of its bounds, something is missing, or nothing takes arguments that are no flags.
    """
    known = list(settings_lib.settings_of(owner))
    takers = [one.name for one in known if one.metadata.get("arguments")]
    if arguments and not takers:
        raise UsageError(
            f"Unexpected arguments: {' '.join(arguments)}. Flags are written --name=value, a value with spaces in "
            "quotes. Try --help."
        )
    values = {one.name: FLAGS[one.name].value for one in known if one.name not in takers}
    values |= dict.fromkeys(takers, tuple(arguments))
    needed = [one.name for one in known if one.default is dataclasses.MISSING]
    missing = [f"`{name}` is missing" for name in needed if not values[name]]
    if missing:
        raise UsageError(f"{', '.join(missing)}. Try --help.")
    return settings_lib.build(owner, values)


class PathsParser(flags.ListParser):
    """Separates paths at commas, but none that is part of a name on the disk."""

    def parse(self, argument: str | list[str]) -> list[str]:
        """The paths."""
        # Double quotes around a path, with which flags.txt is written, say more than the disk does.
        if not isinstance(argument, str) or '"' in argument:
            return super().parse(argument)
        pieces, found = argument.split(","), []
        while pieces and argument:
            ends = range(len(pieces), 0, -1)
            count = next((end for end in ends if _is_there(",".join(pieces[:end]).strip())), 1)
            found.append(",".join(pieces[:count]).strip())
            pieces = pieces[count:]
        return found


def _is_there(text: str) -> bool:
    """Whether there is such a path, or such paths where a text names them: NAME=PATH, NAME=PATH+PATH."""
    name, named, paths = text.partition("=")
    # What stands before a comma is another item: A,NAME=PATH.
    is_one = bool(named) and "," not in name
    return os.path.exists(text) or (is_one and all(map(os.path.exists, paths.split("+"))))
