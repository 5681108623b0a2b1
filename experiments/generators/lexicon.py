"""The verbs, persons, places and times of the numbers task, in English and German."""

from dataclasses import dataclass

from experiments.generators.nouns import table


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb with an accusative object and the auxiliary haben.

    Attributes:
        finite: third person of the present, without the separable prefix; the infinitive likewise.
        groups: groups of nouns that can be its object, separated by blanks.
    """

    en_base: str
    en_third: str
    en_past: str
    en_participle: str
    finite: str
    infinitive: str
    participle: str
    prefix: str
    groups: str


_VERBS = """
    buy, buys, bought, bought, kauft, kaufen, gekauft, , thing animal fruit food compound ticket cake
    sell, sells, sold, sold, verkauft, verkaufen, verkauft, , thing animal fruit food compound ticket cake
    give away, gives away, gave away, given away, verschenkt, verschenken, verschenkt, , thing fruit compound
    find, finds, found, found, findet, finden, gefunden, , thing animal compound ticket
    count, counts, counted, counted, zählt, zählen, gezählt, , thing animal fruit food compound ticket
    draw, draws, drew, drawn, zeichnet, zeichnen, gezeichnet, , thing animal fruit
    order, orders, ordered, ordered, bestellt, bestellen, bestellt, , thing food compound ticket cake
    feed, feeds, fed, fed, füttert, füttern, gefüttert, , animal
    pick up, picks up, picked up, picked up, holt, holen, abgeholt, ab, thing animal compound ticket cake
    bring, brings, brought, brought, bringt, bringen, mitgebracht, mit, thing fruit food compound cake
    choose, chooses, chose, chosen, sucht, suchen, ausgesucht, aus, thing animal fruit compound cake
    pack, packs, packed, packed, packt, packen, eingepackt, ein, thing fruit food compound
    throw away, throws away, threw away, thrown away, wirft, werfen, weggeworfen, weg, thing fruit food"""
VERBS = tuple(Verb(*row) for row in table(_VERBS))

# English; German nominative, accusative, dative.
PERSONS = tuple(
    table("""
        the teacher, der Lehrer, den Lehrer, dem Lehrer
        the doctor, die Ärztin, die Ärztin, der Ärztin
        the farmer, der Bauer, den Bauern, dem Bauern
        the student, der Student, den Studenten, dem Studenten
        the child, das Kind, das Kind, dem Kind
        the girl, das Mädchen, das Mädchen, dem Mädchen
        the boy, der Junge, den Jungen, dem Jungen
        my brother, mein Bruder, meinen Bruder, meinem Bruder
        my sister, meine Schwester, meine Schwester, meiner Schwester
        my aunt, meine Tante, meine Tante, meiner Tante
        our uncle, unser Onkel, unseren Onkel, unserem Onkel
        our neighbour, unser Nachbar, unseren Nachbarn, unserem Nachbarn
        our grandmother, unsere Großmutter, unsere Großmutter, unserer Großmutter""")
)

# English and German, side by side; the German of people and things here is the nominative.
PAIRS = {
    kind: tuple((row[0], row[1]) for row in table(text))
    for kind, text in {
        "city": """
            Berlin, Berlin
            Hamburg, Hamburg
            Munich, München
            Cologne, Köln
            Vienna, Wien
            Zurich, Zürich
            Nuremberg, Nürnberg
            Geneva, Genf
            Leipzig, Leipzig""",
        "event": """
            the course, der Kurs
            the exhibition, die Ausstellung
            the festival, das Festival
            the conference, die Konferenz
            the fair, die Messe
            the project, das Projekt""",
        "show": """
            the concert, das Konzert
            the film, der Film
            the lesson, der Unterricht
            the meeting, die Sitzung
            the party, die Feier
            the match, das Spiel""",
        "shop": """
            the bakery, die Bäckerei
            the market, der Markt
            the library, die Bibliothek
            the supermarket, der Supermarkt
            the pharmacy, die Apotheke
            the post office, die Post""",
        "vehicle": """
            the train, der Zug
            the bus, der Bus
            the fast train, der Schnellzug
            the night train, der Nachtzug""",
        "place": """
            in the village, im Dorf
            in the city, in der Stadt
            by the river, am Fluss
            by the sea, am Meer
            in the valley, im Tal""",
        "soon": """
            today, heute
            tomorrow, morgen
            this evening, heute Abend
            tomorrow afternoon, morgen Nachmittag
            next week, nächste Woche
            next month, nächsten Monat""",
        "past": """
            yesterday, gestern
            yesterday evening, gestern Abend
            last week, letzte Woche
            last month, letzten Monat
            last year, letztes Jahr""",
        "journey": """
            travelled, gereist
            flew, geflogen""",
        "giving": """
            gives, gibt
            shows, zeigt
            sends, schickt""",
        "project": """
            buy, kaufen
            sell, verkaufen
            order, bestellen
            pick up, abholen
            give away, verschenken""",
    }.items()
}
