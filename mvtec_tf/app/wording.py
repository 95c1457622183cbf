"""What the page says: each text by its key, numbers as its language writes them, errors in its own words."""

import functools
import json
import pathlib
import string
from collections.abc import Mapping
from typing import Any

from mvtec_tf.errors import UserError

_FOLDER = pathlib.Path(__file__).parent / "words"
_COMMA = str.maketrans(".,", ",.")


class WordedError(UserError):
    """An error that the page says in its own words.

    Args:
      key: of the words.
      values: that stand in them.
    """

    def __init__(self, key: str, **values: Any) -> None:
        super().__init__(key)
        self.values = values


@functools.cache
def texts(language: str) -> Mapping[str, str]:
    """Every text of a language, by key."""
    return json.loads((_FOLDER / f"{language}.json").read_text(encoding="utf-8"))


class Words(string.Formatter):
    """The words of one language.

    Args:
      language: of the page.
    """

    def __init__(self, language: str) -> None:
        self._texts, self._commas = texts(language), language != "en"

    def format_field(self, value: Any, format_spec: str) -> str:
        """A value as a text of this language."""
        told = super().format_field(value, format_spec)
        return told.translate(_COMMA) if self._commas and isinstance(value, (int, float)) else told

    def __contains__(self, key: str) -> bool:
        """Whether there is a text of this key."""
        return key in self._texts

    def __call__(self, key: str, **values: Any) -> str:
        """A text; values that are numbers are formatted as it says."""
        return self.vformat(self._texts[key], (), values)

    def told(self, error: Exception) -> str:
        """What an error says: the text of its key, or the program's own, which is English and said to be."""
        key = str(error)
        return self(key, **getattr(error, "values", {})) if key in self else self("in_english", reason=key)
