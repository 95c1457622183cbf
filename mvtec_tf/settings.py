"""What a job is asked for, as plain data: one definition for Python, the command line, run.json and flags.txt.

A job's settings are a frozen dataclass whose docstring says what each attribute means; nothing heavy is imported, so
that a command line is shown and refused at once. The metadata of a field may say:

  least, most: bounds of a number; `above` a bound that it must exceed.
  outcome: False where the value does not decide what comes out (a cache), so that another one resumes the same run.
  paths: True for a list of paths, in which a comma may be part of a name.
  arguments: True for what stands behind the flags of a command line.
"""

import csv
import dataclasses
import difflib
import inspect
import io
import math
import numbers
import os
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from mvtec_tf.errors import UsageError, UserError

# Kind of a setting -> what its values are, also in words.
_KINDS: Mapping[type, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: ((str, os.PathLike), "a text"),
    tuple: ((tuple, list), "a list of texts"),
}


def field(default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A field with metadata, see the module."""
    return dataclasses.field(default=default, metadata=metadata)


def apart(default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A field that does not decide what comes out."""
    return field(default, outcome=False, **metadata)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One value that can be set.

    Attributes:
      name: its name on the command line; strengths of an augmentation are `augment_NAME`.
      path: attribute names from the settings to the value.
      kind: bool, int, float, str, or tuple for a list of texts.
      optional: whether None is a value of its own: nothing was said.
      choices: the values that there are, or () if any.
      default: its default, `dataclasses.MISSING` if it must be given.
      words: what it means.
      metadata: see the module.
    """

    name: str
    path: tuple[str, ...]
    kind: type
    optional: bool
    choices: tuple[str, ...]
    default: Any
    words: str
    metadata: Mapping[str, Any]

    def value_of(self, settings: Any) -> Any:
        """Its value in an instance."""
        for step in self.path:
            settings = getattr(settings, step)
        return settings


def settings_of(owner: type, prefix: str = "", path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """All that can be set of a dataclass, those of its inner dataclasses among them."""
    hints, words = typing.get_type_hints(owner), _documented_attributes(owner)
    for field in dataclasses.fields(owner):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from settings_of(hint, "augment_", (*path, field.name))
            continue
        optional = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        if optional:
            (hint,) = (one for one in typing.get_args(hint) if one is not type(None))
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        kind = str if choices else typing.get_origin(hint) or hint
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        yield Setting(
            prefix + field.name,
            (*path, field.name),
            kind,
            optional,
            choices,
            default,
            # Python -OO leaves no docstrings to read.
            words.get(field.name, "") if sys.flags.optimize > 1 else words[field.name],
            field.metadata,
        )


def build(owner: type, values: Mapping[str, Any]) -> Any:
    """An instance from values by their names on the command line.

    Raises:
      UsageError: a value is out of its bounds.
    """
    own, inner = {}, {}
    for setting in settings_of(owner):
        value = values[setting.name]
        check(setting, value)
        value = tuple(value) if setting.kind is tuple and value is not None else value
        if len(setting.path) == 1:
            own[setting.path[0]] = value
        else:
            inner.setdefault(setting.path[0], {})[setting.path[1]] = value
    hints = typing.get_type_hints(owner)
    try:
        inner = {name: hints[name](**found) for name, found in inner.items()}
    except UserError as error:
        raise UsageError(f"`augment_...`: {error}") from error
    return owner(**own, **inner)


def of_keywords(owner: type, given: Mapping[str, Any], own: Mapping[str, Any]) -> Any:
    """An instance from the arguments of a Python call, which may have paths and numbers where texts are wanted.

    Args:
      owner: dataclass of the settings.
      given: keyword arguments that a user wrote.
      own: settings that arguments of the function itself say.

    Raises:
      TypeError: there is no such setting, and the nearest is named; one is missing; or one is said by both.
      UsageError: a value is out of its bounds.
    """
    known = {setting.name: setting for setting in settings_of(owner)}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            # Forty names behind the nearest one would hide it.
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(sorted(known))}."
            raise TypeError(f"no setting {name!r}. {hint}")
        if name in own:
            raise TypeError(f"`{name}` is what other arguments of this function say, see its help. Leave it out.")
    given = {**given, **own}
    missing = [name for name, one in known.items() if one.default is dataclasses.MISSING and name not in given]
    if missing:
        raise TypeError(f"{', '.join(missing)} must be given.")
    return build(owner, {name: _of_kind(one, given.get(name, one.default)) for name, one in known.items()})


def texts(name: str, items: Any) -> tuple[str, ...]:
    """Paths, numbers and texts as texts; a single text or path as a list of one.

    Raises:
      TypeError: they are something else, which has a text too (`None`, `b'line'`), but none that was meant.
    """
    if isinstance(items, (str, os.PathLike)):
        return (_text(items),)
    several = isinstance(items, Iterable) and not isinstance(items, (bytes, Mapping))
    given = list(items) if several else [items]
    wrong = [one for one in given if not _has_text(one)] if several else given
    if wrong:
        raise TypeError(f"`{name}`: expected a text or path, or several. Received: {wrong[0]!r:.100}")
    return tuple(map(_text, given))


def _of_kind(setting: Setting, value: Any) -> Any:
    """A value as the setting has it."""
    if value is not None and setting.kind is tuple:
        if isinstance(value, str) and not setting.metadata.get("paths"):
            # As at a command line.
            value = next(csv.reader([value]), [])
        return texts(setting.name, value)
    if setting.kind is str and _has_text(value):
        return _text(value)
    # NumPy's numbers become Python's, which JSON knows; what is of another kind is refused by `check`.
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return setting.kind(value) if is_number and isinstance(value, _KINDS[setting.kind][0]) else value


def _has_text(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike, numbers.Number)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def check_all(settings: Any) -> None:
    """Raises UsageError for a value that is out of its bounds or is none of its choices."""
    for setting in settings_of(type(settings)):
        check(setting, setting.value_of(settings))


def check(setting: Setting, value: Any) -> None:
    """Raises UsageError if the value is of another kind, out of the setting's bounds or none of its choices."""
    if value is None and setting.optional:
        return
    kind, expected = _KINDS[setting.kind]
    # To Python True is a number.
    if not isinstance(value, kind) or isinstance(value, bool) != (setting.kind is bool):
        raise UsageError(f"`{setting.name}`={value!r}: expected {expected}.")
    if setting.choices and value not in setting.choices:
        raise UsageError(f"`{setting.name}`={value}: expected one of {', '.join(setting.choices)}.")
    if setting.metadata.get("paths") and not all(map(str.strip, value)):
        raise UsageError(
            f"`{setting.name}`={','.join(value)}: an empty name, which would be the folder that this is called from. "
            "Take the comma away, or write a dot."
        )
    if setting.kind not in (int, float):
        return
    if not math.isfinite(value):
        raise UsageError(f"`{setting.name}`={value}: expected a finite number.")
    least, above, most = (setting.metadata.get(name) for name in ("least", "above", "most"))
    if least is not None and not value >= least:
        raise UsageError(f"`{setting.name}`={value}: must be {least} or more.")
    if above is not None and not value > above:
        raise UsageError(f"`{setting.name}`={value}: must be above {above}.")
    if most is not None and not value <= most:
        raise UsageError(f"`{setting.name}`={value}: must be {most} or less.")


def refuse_unread(said: Any, names: Iterable[str], why: str, unsaid: Mapping[str, Any] | None = None) -> None:
    """Raises UsageError if settings that nothing reads have another value than where nothing is said.

    A flagfile of a run says all of them, so that a default is no request.

    Args:
      said: settings, as they were given.
      names: those that nothing reads.
      why: what is asked for beside them, in words.
      unsaid: what stands for None.
    """
    values = {one.name: one.default for one in settings_of(type(said))} | dict(unsaid or {})
    given = [name for name in names if getattr(said, name) not in (None, (), values[name])]
    if given:
        listed = ", ".join(f"`{name}`={in_words(getattr(said, name))}" for name in given)
        raise UsageError(f"{listed}: {why}, so that it would change nothing. Leave it out.")


def in_words(value: Any) -> str:
    """A value as it is written at a command line."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value).lower()


def recorded(settings: Any) -> dict[str, Any]:
    """Everything that decides the outcome, by name, as JSON values."""
    return {
        setting.name: _as_json(setting.value_of(settings))
        for setting in settings_of(type(settings))
        if setting.metadata.get("outcome", True)
    }


def defaults(owner: type) -> dict[str, Any]:
    """The defaults of everything that need not be given, by name, as JSON values."""
    return {
        setting.name: _as_json(setting.default)
        for setting in settings_of(owner)
        if setting.default is not dataclasses.MISSING
    }


def flagfile(settings: Any) -> str:
    """The text of a flagfile that repeats the job."""
    lines = []
    for setting in sorted(settings_of(type(settings)), key=lambda one: one.name):
        value = setting.value_of(settings)
        if value is None:
            continue
        if setting.kind is bool:
            lines.append(f"--{setting.name}" if value else f"--no{setting.name}")
        elif setting.kind is tuple:
            row = io.StringIO()
            csv.writer(row, lineterminator="").writerow(value)
            lines.append(f"--{setting.name}={row.getvalue()}")
        else:
            lines.append(f"--{setting.name}={value}")
    return "\n".join(lines) + "\n"


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _documented_attributes(owner: type) -> dict[str, str]:
    """name -> description, from the `Attributes:` sections of the class's docstring and of its bases'."""
    found: dict[str, str] = {}
    for one in reversed(owner.__mro__):
        text = inspect.getdoc(one) if "__doc__" in vars(one) else None
        if not text or "Attributes:\n" not in text:
            continue
        section = text.split("Attributes:\n", 1)[1].split("\n\n", 1)[0]
        entries = re.split(r"^  (?=\w+: )", section, flags=re.MULTILINE)[1:]
        for entry in entries:
            name, words = entry.split(": ", 1)
            found[name] = " ".join(words.split())
    return found
