"""German in letters: numbers, ordinals, years, clock times, prices, and noun phrases in three cases."""

from typing import Literal

from experiments.generators.english import check_clock, check_timetable, next_hour
from experiments.generators.nouns import Adjective, Noun

Case = Literal["nom", "acc", "dat"]

UNITS = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn "
    "siebzehn achtzehn neunzehn"
).split()
TENS = ("", "", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig")
MONTHS = "Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split()
WEEKDAYS = "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag".split()

INDEFINITE = {
    "nom": {"m": "ein", "f": "eine", "n": "ein"},
    "acc": {"m": "einen", "f": "eine", "n": "ein"},
    "dat": {"m": "einem", "f": "einer", "n": "einem"},
}
DEFINITE = {
    "nom": {"m": "der", "f": "die", "n": "das", "pl": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "pl": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "pl": "den"},
}
# Adjective endings after "ein" (mixed), after "der" (weak; every plural has -en), and in a bare plural.
MIXED = {
    "nom": {"m": "er", "f": "e", "n": "es"},
    "acc": {"m": "en", "f": "e", "n": "es"},
    "dat": {"m": "en", "f": "en", "n": "en"},
}
WEAK = {
    "nom": {"m": "e", "f": "e", "n": "e"},
    "acc": {"m": "en", "f": "e", "n": "e"},
    "dat": {"m": "en", "f": "en", "n": "en"},
}
BARE_PLURAL = {"nom": "e", "acc": "e", "dat": "en"}


def cardinal(number: int) -> str:
    """Number in letters as it is counted, 0 to 999 999: 101 is "hunderteins".

    A leading "ein" of hundred and thousand is left out, as in speech; inside a number it is said:
    "tausendeinhundert".

    Raises:
        ValueError: the number is outside that range.
    """
    if not 0 <= number <= 999_999:
        raise ValueError(f"{number} cannot be spelled; give a number from 0 to 999999")
    if number < 1000:
        return _below_thousand(number)
    thousands, rest = divmod(number, 1000)
    head = "" if thousands == 1 else _joined(_below_thousand(thousands))
    tail = "" if rest == 0 else _below_thousand(rest)
    return f"{head}tausend{'ein' if tail.startswith('hundert') else ''}{tail}"


def _below_thousand(number: int) -> str:
    if number < 20:
        return UNITS[number]
    if number < 100:
        tens, unit = divmod(number, 10)
        return f"{_joined(UNITS[unit])}und{TENS[tens]}" if unit else TENS[tens]
    hundreds, rest = divmod(number, 100)
    head = "" if hundreds == 1 else UNITS[hundreds]
    return f"{head}hundert{_below_thousand(rest) if rest else ''}"


def _joined(words: str) -> str:
    """The form before another part of the number: "eins" loses its s."""
    return words[:-1] if words.endswith("eins") else words


def ordinal_stem(number: int) -> str:
    """Ordinal without its ending, 1 to 99: 3 is "dritt", 21 is "einundzwanzigst".

    Raises:
        ValueError: the number is outside that range.
    """
    if not 1 <= number <= 99:
        raise ValueError(f"no ordinal for {number}; give a number from 1 to 99")
    irregular = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht"}
    return irregular.get(number, cardinal(number) + ("t" if number < 20 else "st"))


def year(number: int) -> str:
    """Year in letters, 1100 to 2099: "neunzehnhundertvierundachtzig", "zweitausendsechs".

    Raises:
        ValueError: the year is outside that range.
    """
    if not 1100 <= number <= 2099:
        raise ValueError(f"no spelling for the year {number}; give a year from 1100 to 2099")
    if number >= 2000:
        return cardinal(number)
    century, rest = divmod(number, 100)
    return f"{cardinal(century)}hundert{cardinal(rest) if rest else ''}"


def clock(hour: int, minute: int) -> str:
    """Clock time as it is said, hours 1 to 12, minutes in fives: "halb sieben", "fünf nach halb neun".

    Raises:
        ValueError: the hour or the minute is not one of these.
    """
    check_clock(hour, minute)
    if minute == 0:
        return f"{_joined(cardinal(hour))} Uhr"
    this, following = cardinal(hour), cardinal(next_hour(hour))
    special = {
        15: f"Viertel nach {this}",
        25: f"fünf vor halb {following}",
        30: f"halb {following}",
        35: f"fünf nach halb {following}",
        45: f"Viertel vor {following}",
    }
    if minute in special:
        return special[minute]
    return f"{cardinal(minute)} nach {this}" if minute < 30 else f"{cardinal(60 - minute)} vor {following}"


def timetable(hour: int, minute: int) -> str:
    """Time as a timetable gives it, hours 13 to 23, minutes 1 to 59: "vierzehn Uhr fünf".

    Raises:
        ValueError: the hour or the minute is not one of these.
    """
    check_timetable(hour, minute)
    return f"{cardinal(hour)} Uhr {cardinal(minute)}"


def price(euros: int, cents: int = 0) -> str:
    """Price in the accusative, the case of all that costs: "einen Euro fünfzig", "zwölf Euro"."""
    words = "einen Euro" if euros == 1 else f"{before_noun(euros)} Euro"
    return f"{words} {cardinal(cents)}" if cents else words


def before_noun(number: int) -> str:
    """Number before a plural noun.

    Raises:
        ValueError: the number is 1, or ends in 01, where speakers differ ("hundertein", "hunderteins").
    """
    if number % 100 == 1:
        raise ValueError(f"{number} before a noun has no single right form; take another number")
    return cardinal(number)


def indefinite(noun: Noun, adjective: Adjective | None, case: Case) -> str:
    """Singular after "ein": "einen roten Apfel"."""
    ending = MIXED[case][noun.gender]
    return _phrase(INDEFINITE[case][noun.gender], adjective, ending, _singular(noun, case))


def definite(noun: Noun, adjective: Adjective | None, case: Case) -> str:
    """Singular after "der": "dem alten Koffer"."""
    return _phrase(DEFINITE[case][noun.gender], adjective, WEAK[case][noun.gender], _singular(noun, case))


def counted(noun: Noun, adjective: Adjective | None, case: Case, number: int) -> str:
    """Plural after a number of two or more: "zwei alten Koffern"."""
    return _phrase(before_noun(number), adjective, BARE_PLURAL[case], plural(noun, case))


def definite_counted(noun: Noun, adjective: Adjective | None, case: Case, number: int) -> str:
    """Plural after "die" and a number of two or more: "die zwei alten Koffer"."""
    words = f"{DEFINITE[case]['pl']} {before_noun(number)}"
    return _phrase(words, adjective, "en", plural(noun, case))


def plural(noun: Noun, case: Case) -> str:
    """Plural of a noun; the dative adds -n where the plural ends in neither -n nor -s."""
    return noun.plural + ("n" if case == "dat" and noun.plural[-1] not in "ns" else "")


def _singular(noun: Noun, case: Case) -> str:
    return noun.oblique if case != "nom" and noun.oblique else noun.singular


def _phrase(determiner: str, adjective: Adjective | None, ending: str, noun: str) -> str:
    return " ".join([determiner, *([adjective.stem + ending] if adjective else []), noun])
