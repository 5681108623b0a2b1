"""Carrier sentences of the numbers task: English and German, with slots that `phrases` fills.

A slot is ``{name.form}``; a digit after the name (``{person2.dat}``) asks for another phrase of that kind.
The first letter is made a capital when a sentence is filled. German clauses have their verb where it belongs:
second in a main clause, last in a subordinate one, with separable prefixes, infinitives and participles at
the end.
"""

from collections.abc import Mapping
from types import MappingProxyType

CARRIERS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "quantity": (
            ("{person.en} {action.en}.", "{person.nom} {action.finite} {action.rest}."),
            (
                "on {weekday.en} {person.en} {action.en}.",
                "am {weekday.de} {action.finite} {person.nom} {action.rest}.",
            ),
            (
                "{person.en} wants to {action.en_base} {soon.en}.",
                "{person.nom} will {soon.de} {action.infinitive}.",
            ),
            (
                "{person.en} is travelling to {city.en} with {luggage.en}.",
                "{person.nom} reist mit {luggage.dat} nach {city.de}.",
            ),
            ("there are {sights.en} {place.en}.", "{place.de} gibt es {sights.acc}."),
            (
                "{person.en} {giving.en} {person2.en} {gift.en}.",
                "{person.nom} {giving.de} {person2.dat} {gift.acc}.",
            ),
            ("{the_animals.en} belong to {person.en}.", "{the_animals.nom} gehören {person.dat}."),
            ("{person.en} is looking after {animals.en}.", "{person.nom} kümmert sich um {animals.acc}."),
            (
                "{people.en} are waiting in front of {the_building.en}.",
                "{people.nom} warten vor {the_building.dat}.",
            ),
            ("{person.en} is reading {nth_text.en} aloud.", "{person.nom} liest {nth_text.acc} vor."),
        ),
        "large": (
            ("our town has {large.en} inhabitants.", "unsere Stadt hat {large.de} Einwohner."),
            (
                "in {year.en}, {large.en} people lived in this region.",
                "im Jahr {year.de} lebten {large.de} Menschen in dieser Region.",
            ),
            (
                "the factory produces {large.en} {products.en} a month.",
                "die Fabrik stellt im Monat {large.de} {products.de} her.",
            ),
            (
                "the library owns {large.en} books about {city.en}.",
                "die Bibliothek besitzt {large.de} Bücher über {city.de}.",
            ),
            (
                "{the_building.en} was built in {year.en}.",
                "{the_building.nom} wurde im Jahr {year.de} gebaut.",
            ),
            ("{adult.en} was born in {birth_year.en}.", "{adult.nom} wurde im Jahr {birth_year.de} geboren."),
            ("{person.en} is waiting in room {room.en}.", "{person.nom} wartet in Zimmer {room.de}."),
            (
                "the road to {city.en} is {large.en} metres long.",
                "die Straße nach {city.de} ist {large.de} Meter lang.",
            ),
            ("{adult.en} is {age.en} years old.", "{adult.nom} ist {age.de} Jahre alt."),
        ),
        "date": (
            ("today is {weekday.en}, {date.en}.", "heute ist {weekday.de}, der {date.nom}."),
            (
                "on {date.en} {person.en} {action.en}.",
                "am {date.weak} {action.finite} {person.nom} {action.rest}.",
            ),
            (
                "{event.en} begins on {weekday.en}, {date.en}.",
                "{event.de} beginnt am {weekday.de}, dem {date.weak}.",
            ),
            ("{event.en} lasts {days.en}.", "{event.de} dauert vom {days.start} bis zum {days.end}."),
            (
                "{the_building.en} has been closed since {date.en}.",
                "{the_building.nom} ist seit dem {date.weak} geschlossen.",
            ),
            ("we are staying in {city.en} until {date.en}.", "wir bleiben bis zum {date.weak} in {city.de}."),
            ("{person.en}'s birthday is on {date.en}.", "{person.nom} hat am {date.weak} Geburtstag."),
            (
                "{person.en} has not read the letter of {date.en}.",
                "{person.nom} hat den Brief vom {date.weak} nicht gelesen.",
            ),
            (
                "{adult.en} was born on {date.en} {birth_year.en}.",
                "{adult.nom} wurde am {date.weak} {birth_year.de} geboren.",
            ),
            ("on {date.en} {adult.en} turns {age.en}.", "am {date.weak} wird {adult.nom} {age.de}."),
        ),
        "clock": (
            (
                "on {weekday.en} {show.en} begins at {clock.en}.",
                "am {weekday.de} beginnt {show.de} um {clock.de}.",
            ),
            (
                "on {weekday.en} {person.en} gets up at {clock.en}.",
                "am {weekday.de} steht {person.nom} um {clock.de} auf.",
            ),
            (
                "{vehicle.en} to {city.en} leaves at {timetable.en}.",
                "{vehicle.de} nach {city.de} fährt um {timetable.de} ab.",
            ),
            (
                "{vehicle.en} from {city.en} arrives at {timetable.en}.",
                "{vehicle.de} aus {city.de} kommt um {timetable.de} an.",
            ),
            (
                "{shop.en} is open from {opening.en} until {closing.en}.",
                "{shop.de} ist von {opening.de} bis {closing.de} geöffnet.",
            ),
            (
                "at {clock.en} {person.en} calls {person2.en}.",
                "um {clock.de} ruft {person.nom} {person2.acc} an.",
            ),
            (
                "{person.en} has to be at the station at {clock.en}.",
                "{person.nom} muss um {clock.de} am Bahnhof sein.",
            ),
            (
                "on {weekday.en} evening {person.en} is coming at about {evening.en}.",
                "am {weekday.de}abend kommt {person.nom} gegen {evening.de}.",
            ),
            (
                "it is already {clock.en}, but {person.en} is still asleep.",
                "es ist schon {clock.de}, aber {person.nom} schläft noch.",
            ),
            (
                "are we meeting at {clock.en} in front of {the_building.en}?",
                "treffen wir uns um {clock.de} vor {the_building.dat}?",
            ),
        ),
        "price": (
            ("{the_thing.en} costs {price.en}.", "{the_thing.nom} kostet {price.de}."),
            (
                "{the_things.en} cost {high_price.en} altogether.",
                "{the_things.nom} kosten zusammen {high_price.de}.",
            ),
            (
                "{person.en} pays {price.en} for {goods.en}.",
                "{person.nom} bezahlt {price.de} für {goods.acc}.",
            ),
            (
                "for {price.en} {person.en} gets {goods.en}.",
                "für {price.de} bekommt {person.nom} {goods.acc}.",
            ),
            ("{person.en} has only {price.en} left.", "{person.nom} hat nur noch {price.de}."),
            (
                "{the_item.en} is {whole_euros.en} more expensive than {the_item2.en}.",
                "{the_item.nom} ist {whole_euros.de} teurer als {the_item2.nom}.",
            ),
            (
                "{person.en} still owes {person2.en} {price.en}.",
                "{person.nom} schuldet {person2.dat} noch {price.de}.",
            ),
            (
                "on {weekday.en} a kilo of {groceries.en} costs {low_price.en}.",
                "am {weekday.de} kostet ein Kilo {groceries.de} {low_price.de}.",
            ),
            (
                "{the_thing.en} that {person.en} wants to {project.en} costs {price.en}.",
                "{the_thing.nom}, {the_thing.relative} {person.nom} {project.de} will, kostet {price.de}.",
            ),
        ),
        "compound": (
            (
                "{person.en} {compound_action.en}.",
                "{person.nom} {compound_action.finite} {compound_action.rest}.",
            ),
            (
                "{soon.en} {person.en} {compound_action.en}.",
                "{soon.de} {compound_action.finite} {person.nom} {compound_action.rest}.",
            ),
            (
                "on {weekday.en} {person.en} orders {drinks.en}.",
                "am {weekday.de} bestellt {person.nom} {drinks.de}.",
            ),
            ("{person.en} brings {person2.en} {soups.en}.", "{person.nom} bringt {person2.dat} {soups.de}."),
            (
                "there are {trees.en} in front of {the_building.en}.",
                "vor {the_building.dat} stehen {trees.nom}.",
            ),
            ("where are {the_compounds.en} from {city.en}?", "wo sind {the_compounds.nom} aus {city.de}?"),
            (
                "on {weekday.en} {person.en} is baking {cakes.en}.",
                "am {weekday.de} backt {person.nom} {cakes.acc}.",
            ),
            (
                "{person.en} bought {a_compound.en} for {person2.en}.",
                "{person.nom} hat {a_compound.acc} für {person2.acc} gekauft.",
            ),
            (
                "{the_item.en} is heavier than {the_item2.en}.",
                "{the_item.nom} ist schwerer als {the_item2.nom}.",
            ),
        ),
        "perfect": (
            ("{past.en} {person.en} {action.en_past}.", "{past.de} hat {person.nom} {action.participle}."),
            ("{ago.en} {person.en} {action.en_past}.", "{ago.de} hat {person.nom} {action.participle}."),
            (
                "on {date.en} {person.en} {action.en_past}.",
                "am {date.weak} hat {person.nom} {action.participle}.",
            ),
            (
                "{person.en} {journey.en} to {city.en} with {luggage.en}.",
                "{person.nom} ist mit {luggage.dat} nach {city.de} {journey.de}.",
            ),
            (
                "{vehicle.en} from {city.en} arrived at {clock.en}.",
                "{vehicle.de} aus {city.de} ist um {clock.de} angekommen.",
            ),
            (
                "{vehicle.en} to {city.en} left at {clock.en}.",
                "{vehicle.de} nach {city.de} ist um {clock.de} abgefahren.",
            ),
            (
                "has {person.en} already {action.en_participle}?",
                "hat {person.nom} schon {action.participle}?",
            ),
            (
                "{past.en} I paid {price.en} for {goods.en}.",
                "{past.de} habe ich {price.de} für {goods.acc} bezahlt.",
            ),
            (
                "{person.en} got up at {clock.en} yesterday.",
                "{person.nom} ist gestern um {clock.de} aufgestanden.",
            ),
        ),
        "clause": (
            (
                "{person.en} is hurrying because {vehicle.en} leaves at {clock.en}.",
                "{person.nom} beeilt sich, weil {vehicle.de} um {clock.de} abfährt.",
            ),
            (
                "{person.en} says that {person2.en} {action.en}.",
                "{person.nom} sagt, dass {person2.nom} {action.final}.",
            ),
            (
                "if the weather is good, {person.en} {action.en}.",
                "wenn das Wetter gut ist, {action.finite} {person.nom} {action.rest}.",
            ),
            (
                "{person.en} knows that {show.en} begins at {clock.en}.",
                "{person.nom} weiß, dass {show.de} um {clock.de} beginnt.",
            ),
            (
                "I do not know whether {the_thing.en} costs {price.en}.",
                "ich weiß nicht, ob {the_thing.nom} {price.de} kostet.",
            ),
            (
                "{person.en} is happy because {person2.en} {animal_action.en_past}.",
                "{person.nom} freut sich, weil {person2.nom} {animal_action.participle} hat.",
            ),
            (
                "{person.en} is going to {city.en} to {errand.en_base}.",
                "{person.nom} fährt nach {city.de}, um {errand.zu_infinitive}.",
            ),
            (
                "before {shop.en} closes at {closing.en}, {person.en} wants to {errand.en_base}.",
                "bevor {shop.de} um {closing.de} schließt, will {person.nom} {errand.infinitive}.",
            ),
            (
                "{person.en} hopes that {event.en} begins on {date.en}.",
                "{person.nom} hofft, dass {event.de} am {date.weak} beginnt.",
            ),
            (
                "although it is already {clock.en}, {person.en} is still working.",
                "obwohl es schon {clock.de} ist, arbeitet {person.nom} noch.",
            ),
        ),
    }
)
