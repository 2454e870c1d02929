"""What nano can name: classes, colours and the words for them.

Words that the data cannot tell apart share an id. A word that is not here is unknown and is reported to the user,
so a word belongs here only if it was trained, or if leaving it out of the meaning does no harm.
"""

import json
import re

from .spec import ANSWER, PAD, TOKENS, UNK

CLASSES = (
    "person", "bicycle", "car", "motorcycle", "bus", "truck", "van", "dog", "cat", "bottle", "ball", "bag", "chair",
    "cup", "umbrella", "bench", "boat", "bird", "horse", "animal", "other",
)
CLASS = {name: i for i, name in enumerate(CLASSES)}
OTHER = CLASS["other"]  # seen as an object, but not one that can be asked for

_COCO = {
    0: "person", 1: "bicycle", 2: "car", 3: "motorcycle", 5: "bus", 7: "truck", 8: "boat", 13: "bench", 14: "bird",
    15: "cat", 16: "dog", 17: "horse", 24: "bag", 25: "umbrella", 26: "bag", 28: "bag", 32: "ball", 39: "bottle",
    40: "cup", 41: "cup", 56: "chair", **{i: "animal" for i in range(18, 24)},
}
FROM_COCO = [CLASS[_COCO.get(i, "other")] for i in range(80)]

GROUPS = {  # one word for several classes
    "vehicle": {"car", "motorcycle", "bus", "truck", "van"},
    "animal": {"dog", "cat", "bird", "horse", "animal"},
}

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
COLOUR = {name: i for i, name in enumerate(COLOURS)}

# One line an id; the first word is what the phrase generator calls it.
_WORDS = """
neutral the a an any all every each please find show me detect locate is are that which who and there this these one two three some everyone
person people persons pedestrian pedestrians man men woman women human humans guy someone somebody child children kid kids boy girl lady worker workers cyclist shopper
bicycle bicycles bike bikes
car cars automobile sedan taxi suv
motorcycle motorcycles motorbike motorbikes scooter scooters moped
bus buses coach
truck trucks lorry lorries
van vans minivan
dog dogs puppy
cat cats kitten
bottle bottles
ball balls football
bag bags backpack backpacks handbag handbags suitcase suitcases rucksack luggage
chair chairs seat
cup cups mug glass
umbrella umbrellas
bench benches
boat boats ship
bird birds
horse horses
animal animals
vehicle vehicles
jacket jackets coat coats shirt shirts sweater hoodie jumper pullover blouse vest t tshirt
trousers pants jeans shorts leggings skirt
clothes clothing outfit dress suit
wearing dressed wears
with
in
on
of
to
at
left
right
top upper
bottom lower
middle centre center
side half part area image picture frame scene corner
largest biggest
smallest tiniest
leftmost
rightmost
topmost highest uppermost
bottommost lowest
nearest closest
farthest furthest
next near beside by adjacent
above over
below under beneath
front
behind
coloured colored color colour
large big huge
small little tiny
"""
ONE = """largest biggest smallest tiniest leftmost rightmost topmost highest uppermost bottommost lowest nearest closest
farthest furthest""".split()  # one thing is meant by these, however many come close
SYNONYMS = {"grey": ["gray", "silver"], "purple": ["violet"], "blue": ["navy"], "red": ["crimson", "maroon"]}


def build():
    """{word: id}; the order of lines is part of the weights."""
    words = {"<pad>": PAD, "<unk>": UNK}
    lines = [line.split() for line in _WORDS.strip().splitlines()]
    lines += [[colour, *SYNONYMS.get(colour, [])] for colour in COLOURS]
    for i, line in enumerate(lines):
        for word in line:
            words[word] = i + 2
    return words


WORDS = build()
SIZE = max(WORDS.values()) + 1


def tokenise(phrase):
    """As the daemon does: lower case, alphanumeric runs, look-up, pad or cut."""
    ids = [WORDS.get(word, UNK) for word in re.findall(r"[^\W_]+", phrase.lower())][:TOKENS]
    return ids + [PAD] * (TOKENS - len(ids))


def write(path):
    """Words and answer tokens, with their ids, as the daemon reads them."""
    path.write_text(json.dumps(WORDS, indent=0, ensure_ascii=False) + "\n")
    (path.parent / "answers.json").write_text(json.dumps(ANSWER, indent=0) + "\n")
