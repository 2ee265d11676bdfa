"""Generated memories and questions, as long and as varied as real ones; the same every time.

Recall is measured on LoCoMo. These texts are for speed: they need realistic lengths and word frequencies, not meaning.
"""

from random import Random
from typing import Final

VERSION: Final = 1
"""Stored beside a built store: change it whenever a generated text changes."""

_SLOTS: Final[dict[str, tuple[str, ...]]] = {
    slot: tuple(words.split(","))
    for slot, words in {
        "name": "Clara,Tom,Aisha,Lena,Marco,Priya,Jonas,Mei,Oscar,Sofia,Daniel,Ines,Kofi,Ruth,Emil,Nadia,Victor,Greta",
        "kin": "sister,brother,mother,father,cousin,neighbour,colleague,best friend,daughter,son,aunt,partner,manager",
        "city": "Lisbon,Kyoto,Nairobi,Oslo,Chicago,Porto,Hanoi,Leeds,"
        "Quito,Gdansk,Turin,Montreal,Accra,Ghent,Perth,Basel",
        "food": "ramen,lentil soup,pancakes,sushi,aubergine curry,sourdough,"
        "tacos,dumplings,risotto,paella,kimchi,falafel",
        "avoid": "peanuts,gluten,dairy,shellfish,coriander,caffeine,red meat,raw onion,alcohol,mushrooms,soy,sesame",
        "hobby": "pottery,climbing,chess,birdwatching,salsa,photography,"
        "cycling,knitting,rowing,gardening,astronomy,judo",
        "job": "nurse,architect,teacher,plumber,translator,chemist,"
        "baker,pilot,paralegal,data analyst,violinist,surveyor",
        "pet": "a greyhound,two cats,a parrot,an old tortoise,"
        "a rescue dog,three hens,a hamster,a beagle puppy,an iguana",
        "thing": "bicycle,laptop,camera,sofa,guitar,tent,"
        "coffee machine,telescope,raincoat,sewing machine,printer,kayak",
        "month": "January,February,March,April,May,June,July,August,September,October,November,December",
        "mood": "excited,nervous,relieved,proud,tired,hopeful,worried,grateful,annoyed,curious,homesick,overjoyed",
        "show": "a documentary,a detective series,an opera,"
        "a stand-up show,a football match,a jazz concert,a puppet play",
        "place": "the lake,the old town,the library,the mountains,"
        "the harbour,a small farm,the museum,the botanical garden",
        "time": "at seven,on Sundays,after work,before breakfast,twice a week,every other month,in the evening,at noon",
    }.items()
}
_FACTS: Final = (
    "My {kin} {name} moved to {city} in {month} {year} to work as a {job}",
    "I cannot eat {avoid}, so I usually order {food} when we go out",
    "We adopted {pet} in {month} and called the first one {name}",
    "I started {hobby} {time} with {name}, and I am {mood} about it",
    "The {thing} I bought in {city} broke after {number} days and cost {number} euros",
    "Please remind me to call {name} {time} about the trip to {city}",
    "For my birthday in {month} I want to visit {place} near {city} with my {kin}",
    "I work as a {job} and have {number} meetings a week, which makes me {mood}",
    "I prefer a window seat and never fly in {month}",
    "My {kin} is allergic to {avoid} and loves {food}",
    "Last {month} we saw {show} in {city} and {name} fell asleep",
    "My doctor told me to avoid {avoid} and to try {hobby} {time}",
    "I am saving for a new {thing}; I have put aside {number} euros since {month}",
    "We got married at {place} in {city} in {year}",
    "I am learning Portuguese because {name} invited me to {city} next {month}",
    "I sold my {thing} to {name}, who is a {job} in {city}",
    "Our flat in {city} has {number} stairs, so carrying the {thing} up is hard",
    "I was {mood} when my {kin} took up {hobby} at the age of {number}",
    "On {month} {number} I have an appointment at the dentist in {city}",
    "I cook {food} for {name} {time}, always without {avoid}",
)
_TAILS: Final = (
    "",
    "",
    ", and my {kin} {name} came along",
    ". It made me {mood}",
    ". We talked about {hobby} the whole way home",
    ", though I would rather have stayed in {city}",
    ". Later we had {food} at {place}",
    ", which reminded me of {year} when I still lived near {place} and worked as a {job}",
)
_QUESTIONS: Final = (
    "what food does {name} like",
    "which allergies do I have, {avoid} or something else?",
    "When did my {kin} move to {city}?",
    "where did we go in {month}",
    "what do I do {time}",
    "who came with me to {place}?",
    "how much did the {thing} cost",
    "What is the name of the {job} from {city}?",
    "tell me about {hobby}",
    "seat preference on flights",
    "what made me feel {mood} in {year}?",
    "restaurants without {avoid} for dinner with my {kin}",
)


def memories(user: int, count: int) -> list[str]:
    """Return the texts of a user, by the user's number."""
    random = Random(f"memories/{VERSION}/{user}")
    return [_filled(random.choice(_FACTS) + random.choice(_TAILS), random) for _ in range(count)]


def questions(seed: str, count: int) -> list[str]:
    """Return queries; another seed gives others."""
    random = Random(f"questions/{VERSION}/{seed}")
    return [_filled(random.choice(_QUESTIONS), random) for _ in range(count)]


def _filled(template: str, random: Random) -> str:
    values: dict[str, object] = {slot: random.choice(words) for slot, words in _SLOTS.items()}
    return template.format(number=random.randint(2, 900), year=random.randint(1975, 2025), **values)
