"""The closed vocabulary of the procedural corpus: lists that families and texts draw from."""

DIGITS: tuple[str, ...] = tuple("0123456789")
LETTERS: tuple[str, ...] = tuple("abcdefgh")
LABELS: tuple[str, ...] = tuple("ABCDEFGH")
"""Every operation of a question carries a label and a worked step restates it: finding the next
operation is a look-up. Found: without labels no family left the floor after 0.8 M tokens."""

NAMES: tuple[str, ...] = (
    "tom",
    "ann",
    "bob",
    "eva",
    "max",
    "liz",
    "sam",
    "joy",
    "dan",
    "kim",
    "leo",
    "amy",
)
OBJECTS: tuple[str, ...] = (
    "ball",
    "book",
    "lamp",
    "coin",
    "drum",
    "kite",
    "ring",
    "shoe",
    "cup",
    "key",
    "map",
    "hat",
)
PLACES: tuple[str, ...] = (
    "garden",
    "kitchen",
    "school",
    "market",
    "forest",
    "beach",
    "house",
    "library",
)
COLORS: tuple[str, ...] = ("red", "blue", "green", "gold", "pink", "gray")
SKY: tuple[str, ...] = ("sun", "moon", "star", "rain", "wind", "snow")
WORDS: tuple[str, ...] = (*COLORS, *SKY)
CLOSER_OF = {"(": ")", "[": "]", "{": "}", "<": ">"}
SUBSTANCES: tuple[str, ...] = ("water", "wax", "iron", "salt")
PHASES: tuple[str, ...] = (
    "solid",
    "liquid",
    "gas",
    "plasma",
)  # each one melts, boils or ionises into the next

GAINS = {"gets": 1, "finds": 1, "loses": -1, "gives": -1}  # verb of a word problem -> its sign
CODE_WORDS: tuple[str, ...] = ("push", "pop", "inc", "dec", "swap", "add", "take")

CLASS_MEMBERS: dict[str, tuple[str, ...]] = {
    "bird": ("robin", "eagle", "crow", "duck"),
    "fish": ("trout", "shark", "salmon", "eel"),
    "reptile": ("cobra", "gecko", "lizard", "turtle"),
    "amphibian": ("frog", "toad", "newt", "axolotl"),
    "insect": ("ant", "bee", "moth", "beetle"),
    "mammal": ("dog", "cat", "horse", "whale"),
}
CLASS_OF = {animal: kind for kind, animals in CLASS_MEMBERS.items() for animal in animals}
ANIMALS: tuple[str, ...] = tuple(sorted(CLASS_OF))

PROPERTIES: dict[str, dict[str, str]] = {
    "cover": {
        "bird": "feathers",
        "fish": "gills",
        "reptile": "scales",
        "amphibian": "skin",
        "insect": "shell",
        "mammal": "fur",
    },
    "home": {
        "bird": "nest",
        "fish": "sea",
        "reptile": "rock",
        "amphibian": "pond",
        "insect": "hive",
        "mammal": "den",
    },
    "young": {
        "bird": "chick",
        "fish": "fry",
        "reptile": "hatchling",
        "amphibian": "tadpole",
        "insect": "larva",
        "mammal": "pup",
    },
    "motion": {
        "bird": "flight",
        "fish": "swim",
        "reptile": "crawl",
        "amphibian": "hop",
        "insect": "buzz",
        "mammal": "run",
    },
}
"""Property -> class -> value: what base text states and the family `two_hop` asks in two hops."""
