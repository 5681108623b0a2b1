import pytest

from experiments.generators import english, german, phrases
from experiments.generators.lexicon import VERBS
from experiments.generators.nouns import ADJECTIVES, BY_ENGLISH, NOUNS, Adjective

CARDINALS = [
    (0, "zero", "null"),
    (1, "one", "eins"),
    (6, "six", "sechs"),
    (7, "seven", "sieben"),
    (11, "eleven", "elf"),
    (12, "twelve", "zwölf"),
    (16, "sixteen", "sechzehn"),
    (17, "seventeen", "siebzehn"),
    (20, "twenty", "zwanzig"),
    (21, "twenty-one", "einundzwanzig"),
    (30, "thirty", "dreißig"),
    (60, "sixty", "sechzig"),
    (66, "sixty-six", "sechsundsechzig"),
    (71, "seventy-one", "einundsiebzig"),
    (77, "seventy-seven", "siebenundsiebzig"),
    (100, "one hundred", "hundert"),
    (101, "one hundred and one", "hunderteins"),
    (105, "one hundred and five", "hundertfünf"),
    (121, "one hundred and twenty-one", "hunderteinundzwanzig"),
    (200, "two hundred", "zweihundert"),
    (616, "six hundred and sixteen", "sechshundertsechzehn"),
    (1000, "one thousand", "tausend"),
    (1001, "one thousand and one", "tausendeins"),
    (1100, "one thousand one hundred", "tausendeinhundert"),
    (2105, "two thousand one hundred and five", "zweitausendeinhundertfünf"),
    (7316, "seven thousand three hundred and sixteen", "siebentausenddreihundertsechzehn"),
    (21000, "twenty-one thousand", "einundzwanzigtausend"),
    (100000, "one hundred thousand", "hunderttausend"),
    (101001, "one hundred and one thousand and one", "hunderteintausendeins"),
    (
        999999,
        "nine hundred and ninety-nine thousand nine hundred and ninety-nine",
        "neunhundertneunundneunzigtausendneunhundertneunundneunzig",
    ),
]

ENGLISH_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third "
    "twenty-fourth twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first"
).split()
GERMAN_ORDINALS = (
    "erste zweite dritte vierte fünfte sechste siebte achte neunte zehnte elfte zwölfte dreizehnte "
    "vierzehnte fünfzehnte sechzehnte siebzehnte achtzehnte neunzehnte zwanzigste einundzwanzigste "
    "zweiundzwanzigste dreiundzwanzigste vierundzwanzigste fünfundzwanzigste sechsundzwanzigste "
    "siebenundzwanzigste achtundzwanzigste neunundzwanzigste dreißigste einunddreißigste"
).split()

YEARS = [
    (1750, "seventeen fifty", "siebzehnhundertfünfzig"),
    (1900, "nineteen hundred", "neunzehnhundert"),
    (1901, "nineteen oh one", "neunzehnhunderteins"),
    (1984, "nineteen eighty-four", "neunzehnhundertvierundachtzig"),
    (2000, "two thousand", "zweitausend"),
    (2006, "two thousand and six", "zweitausendsechs"),
    (2012, "twenty twelve", "zweitausendzwölf"),
]

CLOCK_TIMES = [
    ((8, 0), "eight o'clock", "acht Uhr"),
    ((8, 5), "five past eight", "fünf nach acht"),
    ((8, 10), "ten past eight", "zehn nach acht"),
    ((3, 15), "quarter past three", "Viertel nach drei"),
    ((8, 20), "twenty past eight", "zwanzig nach acht"),
    ((8, 25), "twenty-five past eight", "fünf vor halb neun"),
    ((6, 30), "half past six", "halb sieben"),
    ((8, 35), "twenty-five to nine", "fünf nach halb neun"),
    ((8, 40), "twenty to nine", "zwanzig vor neun"),
    ((3, 45), "quarter to four", "Viertel vor vier"),
    ((7, 50), "ten to eight", "zehn vor acht"),
    ((8, 55), "five to nine", "fünf vor neun"),
    ((1, 0), "one o'clock", "ein Uhr"),
    ((1, 5), "five past one", "fünf nach eins"),
    ((12, 30), "half past twelve", "halb eins"),
    ((12, 45), "quarter to one", "Viertel vor eins"),
]

PRICES = [
    ((12, 50), "twelve euros fifty", "zwölf Euro fünfzig"),
    ((1, 0), "one euro", "einen Euro"),
    ((1, 20), "one euro twenty", "einen Euro zwanzig"),
    ((21, 99), "twenty-one euros ninety-nine", "einundzwanzig Euro neunundneunzig"),
    ((100, 0), "one hundred euros", "hundert Euro"),
]

RED, OLD, EXPENSIVE = Adjective("red", "rot"), Adjective("old", "alt"), Adjective("expensive", "teur")
SINGULARS = [
    ("apple", RED, "ein roter Apfel", "einen roten Apfel", "einem roten Apfel"),
    ("bag", OLD, "eine alte Tasche", "eine alte Tasche", "einer alten Tasche"),
    ("book", EXPENSIVE, "ein teures Buch", "ein teures Buch", "einem teuren Buch"),
    ("hare", OLD, "ein alter Hase", "einen alten Hasen", "einem alten Hasen"),
    ("egg", None, "ein Ei", "ein Ei", "einem Ei"),
]
DEFINITES = [
    ("suitcase", OLD, "der alte Koffer", "den alten Koffer", "dem alten Koffer", "den"),
    ("lamp", RED, "die rote Lampe", "die rote Lampe", "der roten Lampe", "die"),
    ("shirt", EXPENSIVE, "das teure Hemd", "das teure Hemd", "dem teuren Hemd", "das"),
    ("boy", None, "der Junge", "den Jungen", "dem Jungen", "den"),
]
PLURALS = [
    ("suitcase", "zwei alte Koffer", "zwei alten Koffern", "die zwei alten Koffer", "den zwei alten Koffern"),
    ("bag", "zwei alte Taschen", "zwei alten Taschen", "die zwei alten Taschen", "den zwei alten Taschen"),
    ("hotel", "zwei alte Hotels", "zwei alten Hotels", "die zwei alten Hotels", "den zwei alten Hotels"),
    ("dog", "zwei alte Hunde", "zwei alten Hunden", "die zwei alten Hunde", "den zwei alten Hunden"),
]


@pytest.mark.parametrize(("number", "in_english", "in_german"), CARDINALS)
def test_cardinals_are_spelled_in_both_languages(number, in_english, in_german):
    assert english.cardinal(number) == in_english
    assert german.cardinal(number) == in_german


def test_no_two_numbers_are_spelled_alike():
    numbers = [*range(12_000), *range(99_900, 101_100), *range(999_000, 1_000_000)]
    assert len({english.cardinal(number) for number in numbers}) == len(numbers)
    assert len({german.cardinal(number) for number in numbers}) == len(numbers)


@pytest.mark.parametrize("spell", [english.cardinal, german.cardinal])
@pytest.mark.parametrize("number", [-1, 1_000_000])
def test_numbers_out_of_range_are_refused(spell, number):
    with pytest.raises(ValueError, match=f"{number} cannot be spelled; give a number from 0 to 999999"):
        spell(number)


def test_ordinals_of_all_days_of_a_month_are_right():
    assert [english.ordinal(day) for day in range(1, 32)] == ENGLISH_ORDINALS
    assert [german.ordinal_stem(day) + "e" for day in range(1, 32)] == GERMAN_ORDINALS


@pytest.mark.parametrize("spell", [english.ordinal, german.ordinal_stem])
def test_ordinals_out_of_range_are_refused(spell):
    with pytest.raises(ValueError, match="no ordinal for 0"):
        spell(0)


@pytest.mark.parametrize(("number", "in_english", "in_german"), YEARS)
def test_years_are_spelled_in_both_languages(number, in_english, in_german):
    assert english.year(number) == in_english
    assert german.year(number) == in_german


@pytest.mark.parametrize(("time", "in_english", "in_german"), CLOCK_TIMES)
def test_clock_times_are_said_as_people_say_them(time, in_english, in_german):
    assert english.clock(*time) == in_english
    assert german.clock(*time) == in_german


@pytest.mark.parametrize("say", [english.clock, german.clock])
@pytest.mark.parametrize("time", [(0, 0), (13, 0), (8, 7)])
def test_times_that_a_clock_face_does_not_show_are_refused(say, time):
    with pytest.raises(ValueError, match=f"no clock time {time[0]}:{time[1]}"):
        say(*time)


def test_timetable_times_name_the_hour_of_the_day():
    assert (english.timetable(14, 20), german.timetable(14, 20)) == (
        "fourteen twenty",
        "vierzehn Uhr zwanzig",
    )
    assert (english.timetable(21, 1), german.timetable(21, 1)) == (
        "twenty-one oh one",
        "einundzwanzig Uhr eins",
    )


@pytest.mark.parametrize(("amount", "in_english", "in_german"), PRICES)
def test_prices_are_spelled_and_one_euro_is_accusative(amount, in_english, in_german):
    assert english.price(*amount) == in_english
    assert german.price(*amount) == in_german


def test_dates_have_the_endings_of_their_case():
    day = phrases.date(21, 3)
    assert (day.en, day.nom, day.weak) == (
        "the twenty-first of March",
        "einundzwanzigste März",
        "einundzwanzigsten März",
    )
    span = phrases.days(3, 10, 5)
    assert (span.en, span.start, span.end) == ("from the third to the tenth of May", "dritten", "zehnten Mai")


@pytest.mark.parametrize(("noun", "adjective", "nom", "acc", "dat"), SINGULARS)
def test_articles_and_adjectives_agree_with_gender_and_case(noun, adjective, nom, acc, dat):
    phrase = phrases.counted(BY_ENGLISH[noun], adjective, 1)
    assert (phrase.nom, phrase.acc, phrase.dat) == (nom, acc, dat)


@pytest.mark.parametrize(("noun", "adjective", "nom", "acc", "dat", "relative"), DEFINITES)
def test_definite_phrases_take_weak_endings_and_their_relative_pronoun(
    noun, adjective, nom, acc, dat, relative
):
    phrase = phrases.definite(BY_ENGLISH[noun], adjective)
    assert (phrase.nom, phrase.acc, phrase.dat, phrase.relative) == (nom, acc, dat, relative)


@pytest.mark.parametrize(("noun", "bare", "bare_dative", "definite", "definite_dative"), PLURALS)
def test_plurals_have_the_endings_of_their_case(noun, bare, bare_dative, definite, definite_dative):
    counted = phrases.counted(BY_ENGLISH[noun], OLD, 2)
    assert (counted.nom, counted.acc, counted.dat) == (bare, bare, bare_dative)
    known = phrases.definite_counted(BY_ENGLISH[noun], OLD, 2)
    assert (known.nom, known.acc, known.dat) == (definite, definite, definite_dative)


def test_english_phrases_take_an_before_a_vowel():
    assert phrases.counted(BY_ENGLISH["apple"], None, 1).en == "an apple"
    assert phrases.counted(BY_ENGLISH["apple"], RED, 1).en == "a red apple"
    assert phrases.counted(BY_ENGLISH["sheep"], OLD, 12).en == "twelve old sheep"


@pytest.mark.parametrize("number", [1, 101, 2001])
def test_counts_without_a_single_right_german_form_are_refused(number):
    with pytest.raises(ValueError, match=f"{number} before a noun"):
        german.before_noun(number)


def test_compounds_join_with_their_own_linking_element():
    trees = {noun.en: noun.singular for noun in NOUNS["tree"]}
    cakes = {noun.en: noun.singular for noun in NOUNS["cake"]}
    assert (trees["pear tree"], cakes["pear cake"]) == ("Birnbaum", "Birnenkuchen")
    compounds = {noun.en: (noun.gender, noun.singular, noun.plural) for noun in NOUNS["compound"]}
    assert compounds["kitchen table"] == ("m", "Küchentisch", "Küchentische")
    assert compounds["wine glass"] == ("n", "Weinglas", "Weingläser")
    assert compounds["children's book"] == ("n", "Kinderbuch", "Kinderbücher")


def test_separable_verbs_split_and_join_where_german_does():
    pick_up = next(verb for verb in VERBS if verb.en_base == "pick up")
    action = phrases.action(pick_up, phrases.counted(BY_ENGLISH["dog"], OLD, 1))
    assert f"er {action.finite} {action.rest}" == "er holt einen alten Hund ab"
    assert action.final == "einen alten Hund abholt"
    assert action.infinitive == "einen alten Hund abholen"
    assert action.zu_infinitive == "einen alten Hund abzuholen"
    assert action.participle == "einen alten Hund abgeholt"
    buy = next(verb for verb in VERBS if verb.en_base == "buy")
    assert (
        phrases.action(buy, phrases.counted(BY_ENGLISH["dog"], None, 3)).zu_infinitive
        == "drei Hunde zu kaufen"
    )


def test_every_noun_group_of_a_verb_has_nouns_and_adjectives():
    groups = {group for verb in VERBS for group in verb.groups.split()}
    assert groups <= NOUNS.keys() & ADJECTIVES.keys()
