"""English in letters: numbers, ordinals, years, clock times and prices, in British usage."""

UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
MONTHS = ("January February March April May June July August September October November December").split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
# The words whose ordinal is not made with -th alone.
IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def cardinal(number: int) -> str:
    """Number in letters, 0 to 999 999: 105 is "one hundred and five".

    Raises:
        ValueError: the number is outside that range.
    """
    if not 0 <= number <= 999_999:
        raise ValueError(f"{number} cannot be spelled; give a number from 0 to 999999")
    if number < 20:
        return UNITS[number]
    if number < 100:
        tens, unit = divmod(number, 10)
        return f"{TENS[tens]}-{UNITS[unit]}" if unit else TENS[tens]
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{UNITS[hundreds]} hundred" + (f" and {cardinal(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    link = "" if not rest else " and " if rest < 100 else " "
    return f"{cardinal(thousands)} thousand" + (link + cardinal(rest) if rest else "")


def ordinal(number: int) -> str:
    """Ordinal in letters, 1 to 99: 21 is "twenty-first".

    Raises:
        ValueError: the number is outside that range.
    """
    if not 1 <= number <= 99:
        raise ValueError(f"no ordinal for {number}; give a number from 1 to 99")
    head, dash, last = cardinal(number).rpartition("-")
    if last in IRREGULAR_ORDINALS:
        last = IRREGULAR_ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return head + dash + last


def year(number: int) -> str:
    """Year in letters, 1100 to 2099: "nineteen oh six", "two thousand and six", "twenty twelve".

    Raises:
        ValueError: the year is outside that range.
    """
    if not 1100 <= number <= 2099:
        raise ValueError(f"no spelling for the year {number}; give a year from 1100 to 2099")
    century, rest = divmod(number, 100)
    if century == 20 and rest < 10:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def clock(hour: int, minute: int) -> str:
    """Clock time as it is said, hours 1 to 12, minutes in fives: "quarter past three", "ten to eight".

    Raises:
        ValueError: the hour or the minute is not one of these.
    """
    check_clock(hour, minute)
    if minute == 0:
        return f"{cardinal(hour)} o'clock"
    words = {15: "quarter", 30: "half"}
    if minute <= 30:
        return f"{words.get(minute, cardinal(minute))} past {cardinal(hour)}"
    left = 60 - minute
    return f"{words.get(left, cardinal(left))} to {cardinal(next_hour(hour))}"


def timetable(hour: int, minute: int) -> str:
    """Time as a timetable gives it, hours 13 to 23, minutes 1 to 59: "fourteen oh five".

    Raises:
        ValueError: the hour or the minute is not one of these.
    """
    check_timetable(hour, minute)
    return f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}"


def price(euros: int, cents: int = 0) -> str:
    """Price in letters: "one euro fifty", "twelve euros"."""
    words = f"{cardinal(euros)} {'euro' if euros == 1 else 'euros'}"
    return f"{words} {cardinal(cents)}" if cents else words


def with_article(words: str) -> str:
    """The words after "a" or "an"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def next_hour(hour: int) -> int:
    """The hour after it on a clock face of twelve."""
    return hour % 12 + 1


def check_clock(hour: int, minute: int) -> None:
    """Refuse a time that a clock face does not show in steps of five minutes."""
    if not 1 <= hour <= 12 or minute not in range(0, 60, 5):
        raise ValueError(
            f"no clock time {hour}:{minute}; hours go from 1 to 12, minutes from 0 to 55 in fives"
        )


def check_timetable(hour: int, minute: int) -> None:
    """Refuse a full hour, which has its own wording, and what a clock face of twelve hours can show."""
    if not 13 <= hour <= 23 or not 1 <= minute <= 59:
        raise ValueError(f"no timetable time {hour}:{minute}; hours go from 13 to 23, minutes from 1 to 59")
