"""The slots of carrier sentences: what each name may be filled with, and how it is drawn."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from experiments.generators import english, german, phrases
from experiments.generators.drawing import Draw
from experiments.generators.lexicon import PAIRS, PERSONS, VERBS
from experiments.generators.nouns import ADJECTIVES, BY_ENGLISH, NOUNS, Adjective
from experiments.generators.phrases import Action, Date, NounPhrase, Pair, Phrase, Span

Sampler = Callable[[Draw], Phrase]

DAYS_IN_MONTH = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
YOUNG_OR_OLD = ("the child", "the girl", "the boy", "our grandmother")
ADULTS = tuple(person for person in PERSONS if person[0] not in YOUNG_OR_OLD)
# What nobody travels for, and what would contradict "is more expensive than".
NO_ERRANDS = ("bring", "pack", "throw away")
PRICE_WORDS = ("cheap", "expensive")
SOLD_BY_WEIGHT = ("apple", "pear", "cherry", "strawberry", "tomato", "plum", "potato", "onion", "carrot")
PRODUCTS = ("book", "chair", "lamp", "suitcase", "shirt", "bottle", "plate", "cup", "knife", "clock")
LUGGAGE = ("suitcase", "bag", "box", "bicycle", "picture", "book", "dog", "cat")
VESSELS = (("glasses", "Gläser", "juice"), ("bottles", "Flaschen", "juice"), ("plates", "Teller", "soup"))
CENTS = (0, 0, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 95, 99)
PERIODS = (("days", "Tagen"), ("weeks", "Wochen"), ("months", "Monaten"), ("years", "Jahren"))


def _countable(number: int) -> int:
    """The number, or one near it: those that end in 01 have no single right form before a German noun."""
    return number + 10 if number > 1 and number % 100 == 1 else number


def _quantity(draw: Draw) -> int:
    """How many things: often one, mostly few."""
    kind = draw.between(1, 10)
    if kind <= 2:
        return 1
    if kind <= 6:
        return draw.between(2, 12)
    return draw.between(13, 99) if kind <= 9 else _countable(draw.between(100, 999))


def _adjective(draw: Draw, group: str, without: tuple[str, ...] = ()) -> Adjective | None:
    fitting = [adjective for adjective in ADJECTIVES[group] if adjective.en not in without]
    return draw.pick(fitting) if draw.chance(0.7) else None


def _counted(*groups: str, low: int = 0, high: int = 0) -> Sampler:
    """Nouns of some groups without "the", from low to high of them; by default any quantity."""

    def sample(draw: Draw) -> NounPhrase:
        group = draw.pick(groups)
        number = draw.between(low, high) if low else _quantity(draw)
        return phrases.counted(draw.pick(NOUNS[group]), _adjective(draw, group), number)

    return sample


def _definite(*groups: str, without: tuple[str, ...] = ()) -> Sampler:
    def sample(draw: Draw) -> NounPhrase:
        group = draw.pick(groups)
        return phrases.definite(draw.pick(NOUNS[group]), _adjective(draw, group, without))

    return sample


def _definite_counted(*groups: str) -> Sampler:
    def sample(draw: Draw) -> NounPhrase:
        group = draw.pick(groups)
        return phrases.definite_counted(draw.pick(NOUNS[group]), _adjective(draw, group), draw.between(2, 30))

    return sample


def _action(*groups: str, without: tuple[str, ...] = (), most: int = 0) -> Sampler:
    """A verb with things of some groups; with most, so many of them at most."""
    verbs = [verb for verb in VERBS if verb.en_base not in without]

    def sample(draw: Draw) -> Action:
        group = draw.pick(groups)
        verb = draw.pick([verb for verb in verbs if group in verb.groups.split()])
        number = draw.between(1, most) if most else _quantity(draw)
        things = phrases.counted(draw.pick(NOUNS[group]), _adjective(draw, group), number)
        return phrases.action(verb, things)

    return sample


def _luggage(draw: Draw) -> NounPhrase:
    noun = BY_ENGLISH[draw.pick(LUGGAGE)]
    group = "animal" if noun in NOUNS["animal"] else "thing"
    return phrases.counted(noun, _adjective(draw, group), draw.between(1, 12))


def _nth_text(draw: Draw) -> NounPhrase:
    """A part of a book by its ordinal, which takes the endings of an adjective."""
    number = draw.between(1, 99)
    ordinal = Adjective(english.ordinal(number), german.ordinal_stem(number))
    return phrases.definite(draw.pick(NOUNS["text"]), ordinal)


def _plural(names: tuple[str, ...]) -> Sampler:
    def sample(draw: Draw) -> Pair:
        noun = BY_ENGLISH[draw.pick(names)]
        return Pair(noun.en_plural, noun.plural)

    return sample


def _meal(*kinds: str) -> Sampler:
    """Two to twelve glasses, bottles or plates of what belongs in them."""
    vessels = [vessel for vessel in VESSELS if vessel[2] in kinds]

    def sample(draw: Draw) -> Pair:
        number = draw.between(2, 12)
        vessel, gefaess, kind = draw.pick(vessels)
        content = draw.pick(NOUNS[kind])
        return Pair(
            f"{english.cardinal(number)} {vessel} of {content.en}",
            f"{german.cardinal(number)} {gefaess} {content.singular}",
        )

    return sample


def _spelled(en: Callable[[int], str], de: Callable[[int], str], low: int, high: int) -> Sampler:
    """A number from low to high, written by one function in each language."""

    def sample(draw: Draw) -> Pair:
        number = draw.between(low, high)
        return Pair(en(number), de(number))

    return sample


def _large(draw: Draw) -> Pair:
    """A number of three to six digits, half of the long ones round."""
    digits = draw.between(3, 6)
    number = draw.between(10 ** (digits - 1), 10**digits - 1)
    if digits > 3 and draw.chance(0.5):
        number -= number % (100 if digits == 4 else 1000)
    number = _countable(number)
    return Pair(english.cardinal(number), german.before_noun(number))


def _date(draw: Draw) -> Date:
    month = draw.between(1, 12)
    return phrases.date(draw.between(1, DAYS_IN_MONTH[month - 1]), month)


def _days(draw: Draw) -> Span:
    month = draw.between(1, 12)
    first = draw.between(1, 20)
    return phrases.days(first, draw.between(first + 1, DAYS_IN_MONTH[month - 1]), month)


def _ago(draw: Draw) -> Pair:
    period, zeitraum = draw.pick(PERIODS)
    number = draw.between(2, 30)
    return Pair(f"{english.cardinal(number)} {period} ago", f"vor {german.cardinal(number)} {zeitraum}")


def _weekday(draw: Draw) -> Pair:
    number = draw.between(0, 6)
    return Pair(english.WEEKDAYS[number], german.WEEKDAYS[number])


def _clock(first: int, last: int, step: int = 5) -> Sampler:
    """A clock time in the hours from first to last, every so many minutes."""

    def sample(draw: Draw) -> Pair:
        hour, minute = draw.between(first, last), step * draw.between(0, 60 // step - 1)
        return Pair(english.clock(hour, minute), german.clock(hour, minute))

    return sample


def _timetable(draw: Draw) -> Pair:
    hour, minute = draw.between(13, 23), draw.between(1, 59)
    return Pair(english.timetable(hour, minute), german.timetable(hour, minute))


def _price(low: int, high: int, cents: tuple[int, ...] = CENTS) -> Sampler:
    def sample(draw: Draw) -> Pair:
        amount = _countable(draw.between(low, high)), draw.pick(cents)
        return Pair(english.price(*amount), german.price(*amount))

    return sample


def _pair(kind: str) -> Sampler:
    return lambda draw: Pair(*draw.pick(PAIRS[kind]))


SLOTS: Mapping[str, Sampler] = MappingProxyType(
    {
        "person": lambda draw: NounPhrase(*draw.pick(PERSONS)),
        "adult": lambda draw: NounPhrase(*draw.pick(ADULTS)),
        "action": _action("thing", "animal", "fruit", "food"),
        "errand": _action("thing", "animal", "fruit", "food", without=NO_ERRANDS, most=12),
        "animal_action": _action("animal"),
        "compound_action": _action("compound", "ticket", "cake"),
        "goods": _counted("thing", "fruit", "food", "compound"),
        "gift": _counted("thing", "fruit", "food"),
        "animals": _counted("animal"),
        "luggage": _luggage,
        "people": _counted("people", low=2, high=99),
        "sights": _counted("building", low=2, high=30),
        "trees": _counted("tree", low=2, high=30),
        "cakes": _counted("cake", low=1, high=6),
        "a_compound": _counted("compound", low=1, high=1),
        "the_building": _definite("building"),
        "the_thing": _definite("thing", "compound"),
        "the_item": _definite("thing", "compound", without=PRICE_WORDS),
        "the_things": _definite_counted("thing", "compound"),
        "the_animals": _definite_counted("animal"),
        "the_compounds": _definite_counted("ticket", "compound"),
        "nth_text": _nth_text,
        "groceries": _plural(SOLD_BY_WEIGHT),
        "products": _plural(PRODUCTS),
        "drinks": _meal("juice"),
        "soups": _meal("soup"),
        "large": _large,
        "room": _spelled(english.cardinal, german.cardinal, 1, 999),
        "age": _spelled(english.cardinal, german.before_noun, 20, 99),
        "year": _spelled(english.year, german.year, 1750, 2019),
        "birth_year": _spelled(english.year, german.year, 1930, 2005),
        "date": _date,
        "days": _days,
        "ago": _ago,
        "weekday": _weekday,
        "clock": _clock(1, 12),
        "opening": _clock(7, 11),
        "closing": _clock(3, 8),
        "evening": _clock(6, 10, step=15),
        "timetable": _timetable,
        "price": _price(1, 99),
        "low_price": _price(1, 12),
        "high_price": _price(100, 999),
        "whole_euros": _price(1, 99, cents=(0,)),
    }
    | {kind: _pair(kind) for kind in PAIRS}
)
