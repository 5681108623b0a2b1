"""The nouns of the numbers task, with gender and plural, its compounds, and the adjectives that suit them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun in both languages.

    Attributes:
        gender: m, f or n.
        oblique: accusative and dative singular where they differ from the nominative: "Hasen".
    """

    en: str
    en_plural: str
    gender: str
    singular: str
    plural: str
    oblique: str = ""


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective; stem is the German word before an ending (teuer has the stem teur)."""

    en: str
    stem: str


def table(text: str) -> list[list[str]]:
    """The cells of a text whose lines are rows and whose commas separate columns."""
    return [[cell.strip() for cell in line.split(",")] for line in text.strip().splitlines()]


NOUNS: dict[str, tuple[Noun, ...]] = {
    group: tuple(Noun(*row) for row in table(text))
    for group, text in {
        "thing": """
            book, books, n, Buch, Bücher
            table, tables, m, Tisch, Tische
            chair, chairs, m, Stuhl, Stühle
            lamp, lamps, f, Lampe, Lampen
            suitcase, suitcases, m, Koffer, Koffer
            bag, bags, f, Tasche, Taschen
            shirt, shirts, n, Hemd, Hemden
            coat, coats, m, Mantel, Mäntel
            hat, hats, m, Hut, Hüte
            bottle, bottles, f, Flasche, Flaschen
            plate, plates, m, Teller, Teller
            cup, cups, f, Tasse, Tassen
            knife, knives, n, Messer, Messer
            picture, pictures, n, Bild, Bilder
            clock, clocks, f, Uhr, Uhren
            key, keys, m, Schlüssel, Schlüssel
            box, boxes, f, Kiste, Kisten
            bicycle, bicycles, n, Fahrrad, Fahrräder""",
        "animal": """
            dog, dogs, m, Hund, Hunde
            cat, cats, f, Katze, Katzen
            horse, horses, n, Pferd, Pferde
            cow, cows, f, Kuh, Kühe
            bird, birds, m, Vogel, Vögel
            sheep, sheep, n, Schaf, Schafe
            pig, pigs, n, Schwein, Schweine
            duck, ducks, f, Ente, Enten
            hare, hares, m, Hase, Hasen, Hasen""",
        "fruit": """
            apple, apples, m, Apfel, Äpfel
            pear, pears, f, Birne, Birnen
            cherry, cherries, f, Kirsche, Kirschen
            strawberry, strawberries, f, Erdbeere, Erdbeeren
            tomato, tomatoes, f, Tomate, Tomaten
            plum, plums, f, Pflaume, Pflaumen""",
        "food": """
            egg, eggs, n, Ei, Eier
            potato, potatoes, f, Kartoffel, Kartoffeln
            onion, onions, f, Zwiebel, Zwiebeln
            carrot, carrots, f, Karotte, Karotten
            cake, cakes, m, Kuchen, Kuchen
            bread roll, bread rolls, n, Brötchen, Brötchen""",
        "building": """
            house, houses, n, Haus, Häuser
            church, churches, f, Kirche, Kirchen
            school, schools, f, Schule, Schulen
            tower, towers, m, Turm, Türme
            hotel, hotels, n, Hotel, Hotels
            museum, museums, n, Museum, Museen
            theatre, theatres, n, Theater, Theater
            castle, castles, n, Schloss, Schlösser
            station, stations, m, Bahnhof, Bahnhöfe""",
        "people": """
            child, children, n, Kind, Kinder
            woman, women, f, Frau, Frauen
            man, men, m, Mann, Männer
            guest, guests, m, Gast, Gäste
            visitor, visitors, m, Besucher, Besucher
            tourist, tourists, m, Tourist, Touristen, Touristen
            worker, workers, m, Arbeiter, Arbeiter
            boy, boys, m, Junge, Jungen, Jungen
            girl, girls, n, Mädchen, Mädchen""",
        "text": """
            letter, letters, m, Brief, Briefe
            page, pages, f, Seite, Seiten
            chapter, chapters, n, Kapitel, Kapitel
            sentence, sentences, m, Satz, Sätze
            story, stories, f, Geschichte, Geschichten
            poem, poems, n, Gedicht, Gedichte""",
    }.items()
}
BY_ENGLISH = {noun.en: noun for nouns in NOUNS.values() for noun in nouns}

# Head of a compound: its modifiers. The linking element depends on both words: Birnbaum, but Birnenkuchen.
_COMPOUNDS = {
    "compound": {
        "table, tables, m, Tisch, Tische": "kitchen=Küchen, garden=Garten",
        "chair, chairs, m, Stuhl, Stühle": "kitchen=Küchen, garden=Garten, office=Büro",
        "lamp, lamps, f, Lampe, Lampen": "kitchen=Küchen, garden=Garten, wall=Wand",
        "clock, clocks, f, Uhr, Uhren": "kitchen=Küchen, wall=Wand, station=Bahnhofs",
        "coat, coats, m, Mantel, Mäntel": "winter=Winter, summer=Sommer, leather=Leder",
        "bag, bags, f, Tasche, Taschen": "leather=Leder, travel=Reise, school=Schul",
        "knife, knives, n, Messer, Messer": "bread=Brot, kitchen=Küchen",
        "glass, glasses, n, Glas, Gläser": "wine=Wein, water=Wasser, beer=Bier",
        "bottle, bottles, f, Flasche, Flaschen": "wine=Wein, water=Wasser, beer=Bier",
        "key, keys, m, Schlüssel, Schlüssel": "house=Haus, car=Auto",
        "book, books, n, Buch, Bücher": "school=Schul, children's=Kinder, history=Geschichts",
    },
    "ticket": {
        "ticket, tickets, f, Karte, Karten": "train=Zugfahr, bus=Busfahr, concert=Konzert, theatre=Theater",
    },
    "cake": {
        "cake, cakes, m, Kuchen, Kuchen": (
            "apple=Apfel, cherry=Kirsch, pear=Birnen, lemon=Zitronen, plum=Pflaumen, "
            "chocolate=Schokoladen, birthday=Geburtstags"
        ),
    },
    "tree": {
        "tree, trees, m, Baum, Bäume": "apple=Apfel, cherry=Kirsch, pear=Birn, plum=Pflaumen",
    },
    "juice": {
        "juice, juices, m, Saft, Säfte": "apple=Apfel, orange=Orangen, cherry=Kirsch, pear=Birnen",
    },
    "soup": {
        "soup, soups, f, Suppe, Suppen": "tomato=Tomaten, potato=Kartoffel, onion=Zwiebel, fish=Fisch",
    },
}


def _compounds(heads: dict[str, str]) -> tuple[Noun, ...]:
    return tuple(
        Noun(f"{en} {head[0]}", f"{en} {head[1]}", head[2], first + head[3].lower(), first + head[4].lower())
        for line, modifiers in heads.items()
        for head in table(line)
        for en, first in (pair.split("=") for pair in modifiers.split(", "))
    )


NOUNS.update({group: _compounds(heads) for group, heads in _COMPOUNDS.items()})

_PLAIN = "new=neu, old=alt, small=klein, big=groß, cheap=billig, expensive=teur"
_ADJECTIVES = {
    "thing": f"{_PLAIN}, red=rot, blue=blau, black=schwarz, white=weiß",
    "animal": "young=jung, old=alt, small=klein, big=groß, black=schwarz, white=weiß, brown=braun",
    "fruit": "fresh=frisch, ripe=reif, sweet=süß, sour=saur, small=klein, big=groß, red=rot, green=grün",
    "food": "fresh=frisch, small=klein, big=groß, cheap=billig, expensive=teur",
    "building": "old=alt, small=klein, big=groß, beautiful=schön, famous=berühmt, white=weiß",
    "people": "friendly=freundlich, tired=müd, happy=glücklich, hungry=hungrig",
    "compound": _PLAIN,
    "ticket": "cheap=billig, expensive=teur, new=neu",
    "cake": "fresh=frisch, small=klein, big=groß, round=rund, sweet=süß",
    "tree": "young=jung, old=alt, small=klein, big=groß, beautiful=schön",
}
ADJECTIVES = {
    group: tuple(Adjective(*pair.split("=")) for pair in text.split(", "))
    for group, text in _ADJECTIVES.items()
}
