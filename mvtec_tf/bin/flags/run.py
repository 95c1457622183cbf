"""Flags that several binaries share, and flags made of a recipe's own documentation."""

import dataclasses
import inspect
import os
import re
import sys
from typing import Any

from absl import flags

from mvtec_tf.data.decoding.limits import MAX_PIXELS
from mvtec_tf.errors import UsageError, UserError

FLAGS = flags.FLAGS
# The flags defined here belong to the binary that asks for them, and show in its --help.
flags.disclaim_key_flags()
CLEAN, STUDY = "clean", "study"
ERROR, SKIP = "error", "skip"
_SERIALIZER = flags.CsvListSerializer(",")
_CHOICES = {
    "precision": ("auto", "float32", "mixed_bfloat16"),
    "jit": ("auto", "on", "off"),
    "schedule": ("cosine", "cosine_by_epoch"),
}


def define_data_flags(protocols: tuple[str, ...] = (CLEAN,)) -> None:
    """--data_dir, --categories, --protocol (one of `protocols`, the first by default), and the two of images."""
    define_data_dir(required=True)
    flags.DEFINE_list("categories", [], "Only these categories; default: all that are found.")
    flags.DEFINE_enum("protocol", protocols[0], protocols, "Who may see which image.")
    define_image_flags()


def define_data_dir(words: str = "", required: bool = False) -> flags.FlagHolder:
    """--data_dir, a list of paths in which a comma may be part of a path that exists.

    Args:
      words: what it is for; "": where the images are.
      required: whether it must be given.
    """
    words = words or (
        "Category folder (MVTec layout, or good/ and defective/), folder of such, or CSV file; several with commas."
    )
    return flags.DEFINE(_PathsParser(), "data_dir", None, words, serializer=_SERIALIZER, required=required)


def define_image_flags() -> None:
    """--max_pixels, --on_bad_image."""
    flags.DEFINE_integer(
        "max_pixels",
        MAX_PIXELS,
        "Images of more pixels are refused before they are decoded, also by the exported model.",
        1,
    )
    flags.DEFINE_enum(
        "on_bad_image",
        ERROR,
        (ERROR, SKIP),
        "What to do about an image that cannot be used: stop and name it, or leave it out, count it and list it.",
    )


def define_allow_leak() -> None:
    """--allow_leak."""
    flags.DEFINE_boolean(
        "allow_leak", False, "With --protocol=study only: evaluate images whose labels were used, as the study did."
    )


def is_study() -> bool:
    """Whether the study's protocol is asked for.

    Raises:
      UsageError: --allow_leak with another protocol.
    """
    if FLAGS.protocol == STUDY:
        return True
    if FLAGS.allow_leak:
        raise UsageError(
            f"--allow_leak: with --protocol={FLAGS.protocol} a leak is always an error. It goes with --protocol=study."
        )
    return False


def define_run_dir() -> None:
    """--run_dir."""
    flags.DEFINE_string(
        "run_dir", None, "Directory of this run; an unfinished one of the same recipe is resumed.", required=True
    )


def define_cache() -> None:
    """--cache."""
    flags.DEFINE_string("cache", "memory", "Where decoded images are kept: memory, or a folder for large sets.")


def define_recipe(recipe: type) -> None:
    """One flag for each field of a recipe, with its default and the words of its docstring.

    Strengths of the augmentation become --augment_NAME.
    """
    for field, name, default, words in _fields(recipe):
        if name in _CHOICES:
            flags.DEFINE_enum(name, default, _CHOICES[name], words)
        else:
            _DEFINE[field.type](name, default, words)


def recipe_from_flags(recipe: type) -> Any:
    """An instance of the recipe as the command line says.

    Raises:
      UsageError: a number is out of its range.
    """
    values, strengths = {}, {}
    for field, name, _, _ in _fields(recipe):
        (strengths if name.startswith("augment_") else values)[field.name] = FLAGS[name].value
        if not name.startswith("augment_"):
            _check_number(field, FLAGS[name].value)
    try:
        augmentation = _augmentation(recipe)(**strengths)
    except UserError as error:
        raise UsageError(f"--augment_...: {error}") from error
    return recipe(**values, augmentation=augmentation)


def settings_of(*left_out: str) -> dict[str, Any]:
    """All of the program's own flags but those that do not decide the outcome, as JSON values."""
    # What an image that cannot be used leads to shows in which images are used: the data's fingerprint.
    away = {"run_dir", "data_dir", "cache", "on_bad_image", *left_out}
    return {flag.name: flag.value for flag in _own_flags() if flag.name not in away}


def defaults() -> dict[str, Any]:
    """The defaults of all of the program's own flags, as JSON values."""
    return {flag.name: flag.default for flag in _own_flags()}


def flagfile() -> str:
    """A flagfile that repeats this call."""
    lines = [line for flag in _own_flags() for line in flag.serialize().splitlines()]
    return "\n".join(lines) + "\n"


class _PathsParser(flags.ListParser):
    """Separates paths at commas, but none that is part of a name on the disk."""

    def parse(self, argument: str | list[str]) -> list[str]:
        """The paths."""
        # Double quotes around a path, with which flags.txt is written, say more than the disk does.
        if not isinstance(argument, str) or '"' in argument:
            return super().parse(argument)
        pieces, found = argument.split(","), []
        while pieces and argument:
            ends = range(len(pieces), 0, -1)
            count = next((end for end in ends if os.path.exists(",".join(pieces[:end]).strip())), 1)
            found.append(",".join(pieces[:count]).strip())
            pieces = pieces[count:]
        return found


_DEFINE = {bool: flags.DEFINE_boolean, int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}


def _check_number(field: dataclasses.Field, value: Any) -> None:
    if field.type not in (int, float):
        return
    or_zero = "or_zero" in field.metadata
    if not (value > 0 or (or_zero and value == 0)):  # also refuses NaN
        raise UsageError(f"--{field.name}={value}: must be {'0 or more' if or_zero else 'above 0'}.")


def _own_flags() -> list[flags.Flag]:
    by_module = FLAGS.flags_by_module_dict()
    own = [flag for module, found in by_module.items() if _is_ours(module) for flag in found]
    return sorted(own, key=lambda flag: flag.name)


def _is_ours(module: str) -> bool:
    # absl files the flags of the module that was started under its path.
    return module.startswith("mvtec_tf") or module in (sys.argv[0], "__main__")


def _augmentation(recipe: type) -> type:
    (field,) = (field for field in dataclasses.fields(recipe) if field.name == "augmentation")
    return field.type


def _fields(recipe: type) -> list[tuple[dataclasses.Field, str, Any, str]]:
    """(field, flag name, default, help) of a recipe and of its augmentation."""
    found = []
    for owner, prefix in ((recipe, ""), (_augmentation(recipe), "augment_")):
        words = _documented_attributes(owner)
        found += [
            (field, prefix + field.name, field.default, words[field.name])
            for field in dataclasses.fields(owner)
            if field.name != "augmentation"
        ]
    return found


def _documented_attributes(owner: type) -> dict[str, str]:
    """name -> description, from the `Attributes:` section of a class docstring."""
    section = inspect.getdoc(owner).split("Attributes:\n", 1)[1].split("\n\n", 1)[0]
    entries = re.split(r"^  (?=\w+: )", section, flags=re.MULTILINE)[1:]
    pairs = (entry.split(": ", 1) for entry in entries)
    return {name: " ".join(text.split()) for name, text in pairs}
