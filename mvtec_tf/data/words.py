"""The words by which people call a good part, a defective one, and the folders of a data set."""

import re
import unicodedata
from collections.abc import Iterable, Mapping

from mvtec_tf.data.record import DEFECTIVE, GOOD, MASKS, TEST, TRAIN, VALIDATION
from mvtec_tf.errors import UserError

# Of folders and of labels alike, written as by `bare`.
_GOOD = frozenset(
    (
        *(GOOD, "ok", "okay", "io", "pass", "passed", "normal", "gut", "gutteil", "gutteile", "inordnung"),
        *("bon", "bonne", "bons", "bonnes", "conforme", "conformes", "conformi", "buono", "buona", "buoni", "buone"),
        *("bueno", "buena", "buenos", "buenas"),
    )
)
_DEFECTIVE = frozenset(
    (
        *(DEFECTIVE, "defect", "defects", "bad", "ng", "nok", "nio", "notok", "notgood", "fail", "failed", "faulty"),
        *("reject", "rejected", "anomaly", "anomalies", "anomalous", "abnormal", "schlecht", "schlechtteil"),
        *("schlechtteile", "fehlerhaft", "defekt", "ausschuss", "nichtinordnung", "mauvais", "mauvaise", "mauvaises"),
        *("defectueux", "defectueuse", "defectueuses", "nonconforme", "nonconformes", "nonconformi", "ko"),
        *("difettoso", "difettosa", "difettosi", "difettose", "scarto", "scarti", "malo", "mala", "malos", "malas"),
        *("defectuoso", "defectuosa", "defectuosos", "defectuosas", "noconforme"),
    )
)
# 0 and 1 as they stand in a column of decimals, of pandas or of Excel where the comma is the point.
_NUMBER = re.compile(r"([01])(?:[.,]0+)?")
# Without "tests", which a folder of anything may be called.
_SPLITS = {
    TRAIN: frozenset((TRAIN, "training", "trainset", "trainingset", "traindata", "trainingdata")),
    # MVTec AD 2 publishes the labels of one of its three.
    TEST: frozenset((TEST, "testing", "testset", "testingset", "testdata", "testingdata", "testpublic")),
    VALIDATION: frozenset((VALIDATION, "val", "validationset", "valset", "validationdata")),
}
# "Mask" alone may be a kind of defect, as on a circuit board.
_MASKS = frozenset(("groundtruth", "groundtruths"))
# These say "good" in other words and languages, or nearly, written as by `bare`. They are refused as a type of defect,
# and as good ones too: somebody has to say which.
_SOUND_GOOD = frozenset(
    (
        *("0", "intact", "perfect", "healthy", "clean", "correct", "negative", "neg", "approved", "none", "nothing"),
        *("accept", "accepted", "acceptable", "passing", "golden", "goldensample", "goldensamples", "reference"),
        *("references", "referenz", "falsealarm", "falsealarms", "falsepositive", "falsepositives", "fehlalarm"),
        *("fehlalarme", "einwandfrei", "bom", "boa", "goed", "godkand", "godkendt", "godkjent"),
        *("dobry", "dobra", "dobre", "\u0433\u043e\u0434\u0435\u043d", "\u0433\u043e\u0434\u043d\u044b\u0435"),
        *("\u826f\u54c1", "\u6b63\u5e38", "\u5408\u683c"),
    )
)
# A negation before a word for defect, or a word for "free" behind it, in the larger languages of Europe; of words
# without accents, with a space for all that is no letter and no digit. "un" is German, or the article of others.
_FAULT = (
    "(?:defe[ck]t|defaut|difett|defeit|fehler|befund|fault|fail|flaw|damag|schade|schadig|beschadig|mangel|anomal"
    "|error|erreur|gebrek|fout|fejl|feil|fel|skad|wad|vad|zavad|\u0434\u0435\u0444\u0435\u043a\u0442|\u0431\u0440\u0430\u043a)"
)
_NEGATION = (
    "(?:no|non|not|without|zero|kein|keine|keinen|nicht|ohne|sans|pas|aucun|aucune|sin|ningun|senza|nessun|sem|nenhum|geen"
    "|zonder|utan|inga|ingen|uden|uten|bez|brak|\u0431\u0435\u0437|\u043d\u0435\u0442)"
)
_FAULTLESS = re.compile(
    rf"(?:\b{_NEGATION} ?(?:(?:de|d|any) )?|\bun|\A0+ ){_FAULT}"
    rf"|\b{_FAULT}\w*?(?: ?(?:free|frei|fri|vrij)|less|los|loos)\b"
)
_GOOD_IN_A_NAME = frozenset((GOOD, "goods", "ok", "okay", "gut", "gute"))
_TURNED_ROUND = frozenset(("no", "not", "non", "nicht", "in", "un"))
# What programs and people write where they know nothing; pandas writes "nan".
_PLACEHOLDERS = frozenset(
    (
        *("nan", "<na>", "na", "n/a", "#n/a", "none", "null", "nil", "-", "--", "?", "n.a.", "k.a."),
        *("#ref!", "#value!", "#name?", "#div/0!", "#num!", "#null!", "#wert!", "#bezug!"),
    )
)
# No name of an object, though it may be one of a type of defect; written as by `bare`.
_UNKNOWN = frozenset(
    (
        *("unknown", "unspecified", "undefined", "unassigned", "tbd", "unbekannt", "inconnu", "inconnue"),
        *("desconocido", "sconosciuto", "desconhecido", "onbekend", "okand", "ukendt", "ukjent", "nieznany", "neznamy"),
    )
)
# A long number in a column that is no text: Excel keeps so few digits that many objects get one name.
_SHORTENED = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)


def is_good(word: str) -> bool:
    """Whether a folder's name, a label or a defect type says "good"."""
    return bare(_unaccented(word)) in _GOOD


def is_defective(word: str) -> bool:
    """Whether a folder's name or a label says "defective" and nothing more."""
    return bare(_unaccented(word)) in _DEFECTIVE


def label_of(word: str) -> int | None:
    """0 for a word for good or the number 0, 1 for one for defective or 1, None for any other."""
    number = _NUMBER.fullmatch(word.strip())
    return int(number[1]) if number else _label_of_word(word)


def is_number(word: str) -> bool:
    """Whether a label is a 0 or 1, also one of decimals."""
    return bool(_NUMBER.fullmatch(word.strip()))


def taken_as(found: Mapping[tuple[str, str], int]) -> str:
    """(word, what it was taken as) -> how often, in words."""
    return ", ".join(f"{word!r} as {meaning} ({count})" for (word, meaning), count in sorted(found.items()))


def _label_of_word(word: str) -> int | None:
    return 0 if is_good(word) else 1 if is_defective(word) else None


def against_folders(labels: Iterable[tuple[str, int]]) -> tuple[str, int, int]:
    """Labels beside what the folders of the images say, by the innermost one called good or defective.

    Args:
      labels: (path within the category, whose own name says nothing of a part; 0 or 1) of each image.

    Returns:
      A sentence's beginning about those that say otherwise, "" if there are none; their number; and that of the others.
    """
    said = [(path, label, folder) for path, label in labels if (folder := _label_of_folders(path)) is not None]
    others = [(path, label) for path, label, folder in said if folder != label]
    if not others:
        return "", 0, len(said)
    count = counted(len(others), "label says", "labels say")
    about = f"{count} otherwise than the folder's name, such as {others[0][1]} for {others[0][0]}"
    return about, len(others), len(said) - len(others)


def _label_of_folders(path: str) -> int | None:
    says = (_label_of_word(step) for step in reversed(path.split("/")[:-1]))
    return next((label for label in says if label is not None), None)


def sounds_good(word: str) -> bool:
    """Whether a name, though no common word for good, says so nearly enough (`good_images`) to be no type of defect."""
    if is_good(word) or is_defective(word):
        return False
    plain = _unaccented(word)
    letters = re.findall(r"[^\W\d_]+", plain)
    if {"".join(letters), bare(plain)} & _SOUND_GOOD or _FAULTLESS.search(re.sub(r"[\W_]+", " ", plain)):
        return True
    return bool(_GOOD_IN_A_NAME & set(letters)) and not _TURNED_ROUND & set(letters)


def is_placeholder(word: str) -> bool:
    """Whether a cell of a table says that there is no value, instead of being empty."""
    return word.strip().casefold() in _PLACEHOLDERS


def is_no_object(group: str) -> bool:
    """Whether the name of a group names no object: a placeholder, or a number that Excel has shortened."""
    name = group.strip()
    return is_placeholder(name) or bare(_unaccented(name)) in _UNKNOWN or bool(_SHORTENED.fullmatch(name))


def refuse_twins(what: str, names: Iterable[str]) -> None:
    """Raises a `UserError` if two names differ only in case, spaces, hyphens, underscores or in how a number is written
    (`5`, `005`, `5.0`): one thing would be two.
    """
    known: dict[str, str] = {}
    for name in sorted(names):
        first = known.setdefault(_spelling(name), name)
        if first != name:
            differ = "case" if first.casefold() == name.casefold() else "case, spaces, hyphens, underscores or zeros"
            raise UserError(
                f"The {what} {first!r} and {name!r} differ in {differ} only. Write both in one way if they are one; if "
                "they are not, give them different names."
            )


def is_masks(word: str) -> bool:
    """Whether a folder of this name holds masks."""
    return bare(word) in _MASKS


def part_of(name: str) -> str:
    """One of `SPLITS`, `GOOD`, `DEFECTIVE` or `MASKS`, whichever a folder of this name is in its category; or ""."""
    split = next((split for split, names in _SPLITS.items() if bare(name) in names), "")
    meanings = {MASKS: is_masks, GOOD: is_good, DEFECTIVE: is_defective}
    return split or next((part for part, says in meanings.items() if says(name)), "")


def bare(word: str) -> str:
    """A word without what people write differently: case, spaces, dots, hyphens, underscores."""
    return re.sub(r"[\s._-]", "", word.casefold())


def composed(name: str) -> str:
    """A name in the one form in which names are compared: macOS's two code points of an umlaut become one."""
    return unicodedata.normalize("NFC", name)


def _unaccented(word: str) -> str:
    apart = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


def _spelling(name: str) -> str:
    plain = re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()
    return re.sub(r"(\A|/)0*(\d+?)(?:[.,]0+)?\Z", r"\1\2", plain)


def percent(share: float) -> str:
    """`95 %`, `2.38 %`."""
    return f"{100 * share:.3g} %"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`, `1,200 images`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listing(names: Iterable[str], most: int = 5, separator: str = ", ", where: str = "") -> str:
    """The first names, and how many more there are.

    Args:
      names: of any number.
      most: so many show what was found without burying the message.
      separator: a comma or a semicolon, and a space.
      where: behind the number of others: where they are named.
    """
    names = list(names)
    more = f"{separator.strip(', ')} and {len(names) - most:,} more{where}" if len(names) > most else ""
    return separator.join(names[:most]) + more
