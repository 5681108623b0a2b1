"""Phrases of a sentence in English and in every German form that a carrier may ask for."""

from dataclasses import dataclass

from experiments.generators import english, german
from experiments.generators.lexicon import Verb
from experiments.generators.nouns import Adjective, Noun

RELATIVE = {"m": "den", "f": "die", "n": "das"}


@dataclass(frozen=True, slots=True)
class Pair:
    """Words with one German form."""

    en: str
    de: str


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """A noun phrase in three cases; relative is the pronoun of a relative clause that has it as object."""

    en: str
    nom: str
    acc: str
    dat: str
    relative: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """A verb with its object.

    Attributes:
        en: third person of the present: "picks up three cats"; base, past and participle likewise.
        finite: the German verb alone, without its prefix: "holt". All other forms hold the object.
        rest: what follows in a main clause: "drei Katzen ab".
        final: the end of a subordinate clause: "drei Katzen abholt".
        infinitive: after a modal verb: "drei Katzen abholen".
        zu_infinitive: after "um": "drei Katzen abzuholen".
        participle: after "hat": "drei Katzen abgeholt".
    """

    en: str
    en_base: str
    en_past: str
    en_participle: str
    finite: str
    rest: str
    final: str
    infinitive: str
    zu_infinitive: str
    participle: str


@dataclass(frozen=True, slots=True)
class Date:
    """A day; nom follows "der" ("dritte Juni"), weak follows "am", "dem" and "zum" ("dritten Juni")."""

    en: str
    nom: str
    weak: str


@dataclass(frozen=True, slots=True)
class Span:
    """Two days, one phrase in English; start follows "vom", end follows "bis zum"."""

    en: str
    start: str
    end: str


Phrase = Pair | NounPhrase | Action | Date | Span


def counted(noun: Noun, adjective: Adjective | None, number: int) -> NounPhrase:
    """Phrase without "the": "an old bag" for 1, "three old bags" for 3."""
    if number == 1:
        return NounPhrase(
            english.with_article(_described(adjective, noun.en)),
            german.indefinite(noun, adjective, "nom"),
            german.indefinite(noun, adjective, "acc"),
            german.indefinite(noun, adjective, "dat"),
        )
    return NounPhrase(
        f"{english.cardinal(number)} {_described(adjective, noun.en_plural)}",
        german.counted(noun, adjective, "nom", number),
        german.counted(noun, adjective, "acc", number),
        german.counted(noun, adjective, "dat", number),
    )


def definite(noun: Noun, adjective: Adjective | None) -> NounPhrase:
    """Singular phrase: "the old bag"."""
    return NounPhrase(
        f"the {_described(adjective, noun.en)}",
        german.definite(noun, adjective, "nom"),
        german.definite(noun, adjective, "acc"),
        german.definite(noun, adjective, "dat"),
        RELATIVE[noun.gender],
    )


def definite_counted(noun: Noun, adjective: Adjective | None, number: int) -> NounPhrase:
    """Plural phrase with a number of two or more: "the three old bags"."""
    return NounPhrase(
        f"the {english.cardinal(number)} {_described(adjective, noun.en_plural)}",
        german.definite_counted(noun, adjective, "nom", number),
        german.definite_counted(noun, adjective, "acc", number),
        german.definite_counted(noun, adjective, "dat", number),
        "die",
    )


def action(verb: Verb, things: NounPhrase) -> Action:
    """The verb with the things as its object."""
    zu = f"{verb.prefix}zu{verb.infinitive}" if verb.prefix else f"zu {verb.infinitive}"
    return Action(
        en=f"{verb.en_third} {things.en}",
        en_base=f"{verb.en_base} {things.en}",
        en_past=f"{verb.en_past} {things.en}",
        en_participle=f"{verb.en_participle} {things.en}",
        finite=verb.finite,
        rest=f"{things.acc} {verb.prefix}".rstrip(),
        final=f"{things.acc} {verb.prefix}{verb.finite}",
        infinitive=f"{things.acc} {verb.prefix}{verb.infinitive}",
        zu_infinitive=f"{things.acc} {zu}",
        participle=f"{things.acc} {verb.participle}",
    )


def date(day: int, month: int) -> Date:
    """A day (from 1) of a month (1 to 12)."""
    name = german.MONTHS[month - 1]
    stem = german.ordinal_stem(day)
    return Date(
        f"the {english.ordinal(day)} of {english.MONTHS[month - 1]}", f"{stem}e {name}", f"{stem}en {name}"
    )


def days(first: int, last: int, month: int) -> Span:
    """From one day to another of the same month."""
    end = date(last, month)
    return Span(f"from the {english.ordinal(first)} to {end.en}", f"{german.ordinal_stem(first)}en", end.weak)


def _described(adjective: Adjective | None, noun: str) -> str:
    return f"{adjective.en} {noun}" if adjective else noun
