"""Families: answers against answers worked by hand and by another route, and the verifier."""

import random
from collections.abc import Callable

import pytest

from frontload.data_tools.synthetic.families import (
    FAMILIES,
    generate,
    level_at,
    verify,
)
from frontload.data_tools.synthetic.problem import is_heldout
from frontload.data_tools.synthetic.vocabulary import CLASS_OF, PROPERTIES
from frontload.data_tools.synthetic.writers import wrong_answer
from frontload.recipes.errors import RecipeError

BY_HAND = {
    "chain": ("eval A 7 B + 2 C - 3 D + 3 E + 2", "1", "A 7 = 7|B + 2 = 9|C - 3 = 6"),
    "add": ("sum A 7 + 3 B 9 + 0 C 4 + 2", "0 7", "A 7 + 3 = 1 0|B 9 + 0 = 1 0"),
    "story": ("tom lamp A has 1 B loses 3 C finds 2", "0", "A has 1 = 1|B loses 3 = 8"),
    "var": (
        "find a given A b is 4 B a is b + 2 C d is a - 1",
        "6",
        "A b is 4 = 4|B a is b + 2 = 6",
    ),
    "stack": (
        "run A push 9 B inc C push 4 D swap E pop",
        "4",
        "A push 9 = 9|B inc = 0|C push 4 = 0 4|D swap = 4 0|E pop = 4",
    ),
    "queue": ("queue A add d B add a C take D add h", "a h", "A add d = d|B add a = d a"),
    "branch": (
        "if A set 9 B even + 2 C odd + 3 D even - 3",
        "9",
        "A set 9 = 9|B even + 2 = 9|C odd + 3 = 2|D even - 3 = 9",
    ),
    "ladder": (
        "wax A liquid B cool C cool D wait E heat F heat G heat",
        "plasma",
        "A liquid = liquid|B cool = solid|C cool = solid|D wait = solid|E heat = liquid",
    ),
    "boxes": (
        "boxes A ring cup B swap C left key D right hat",
        "key hat",
        "A ring cup = ring cup|B swap = cup ring|C left key = key ring",
    ),
    "two_hop": (
        "tell cover A robin B trout",
        "feathers gills",
        "A robin is bird = feathers|B trout is fish = feathers gills",
    ),
    "compare": (
        "most A 1 + 3 B 6 + 1 C 4 + 3",
        "B 7",
        "A 1 + 3 is 4 = A 4|B 6 + 1 is 7 = B 7|C 4 + 3 is 7 = B 7",
    ),
    "sort": ("sort A 4 B 9 C 2", "2 4 9", "A 4 = 4|B 9 = 4 9|C 2 = 2 4 9"),
    "brackets": (
        "close A ( B [ C ] D {",
        "} )",
        "A ( = )|B [ = ] )|C ] = )|D { = } )",
    ),
    "table": (
        "table cup 4 , ring 7 , hat 0 , key 7 : A key B cup",
        "7 4",
        "A key = 7|B cup = 7 4",
    ),
    "path": (
        "path c : a to h , e to b , c to a , f to e",
        "h",
        "c to a = a|a to h = h",
    ),
    "format": (
        "say after ring A 7 B + 2 C - 3",
        "ring 6",
        "A 7 = 7|B + 2 = 9|C - 3 = 6|say after ring = ring 6",
    ),
}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_answers_worked_by_hand(family: str) -> None:
    question, answer, steps = BY_HAND[family]
    solution = FAMILIES[family].solve(question)
    assert solution.answer == answer
    assert "|".join(solution.steps).startswith(steps)
    assert verify(family, question, f"  {answer.replace(' ', '  ')} ")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_verifier_accepts_gold_and_rejects_every_corruption(family: str) -> None:
    rng = random.Random(3)
    low, high = FAMILIES[family].levels
    for draw in range(60):
        level = low + draw % (high - low + 1)
        problem = generate(rng, family, level=level, heldout=bool(draw % 2))
        gold = problem.solution.answer
        assert verify(family, problem.question, gold)
        assert not verify(family, problem.question, wrong_answer(gold, rng))
        assert not verify(family, problem.question, f"{gold} {gold.split()[0]}")
        assert not verify(family, problem.question, "")


def test_long_sums_agree_with_plain_arithmetic() -> None:
    rng = random.Random(4)
    for _ in range(200):
        problem = generate(rng, "add", level=5, heldout=False)
        columns = [
            (int(text.split()[0]), int(text.split()[2])) for text in _operations(problem.question)
        ]
        upper, lower = (int("".join(str(one[k]) for one in columns[::-1])) for k in (0, 1))
        assert problem.solution.answer.replace(" ", "") == f"{upper + lower:06d}"[:2]

        problem = generate(rng, "chain", level=6, heldout=True)
        total = sum(int(text.replace(" ", "")) for text in _operations(problem.question))
        assert problem.solution.answer == str(total % 10)


def _operations(question: str) -> list[str]:
    text = question
    for label in "ABCDEFGH":
        text = text.replace(f" {label} ", "|")
    return text.split("|")[1:]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_level_is_reached_and_means_more_operations(family: str) -> None:
    low, high = FAMILIES[family].levels
    assert {level_at(family, share / 100) for share in range(101)} == set(range(low, high + 1))
    rng = random.Random(5)
    lengths = [
        [len(generate(rng, family, level=level, heldout=False).question.split()) for _ in range(30)]
        for level in range(low, high + 1)
    ]
    means = [sum(group) / len(group) for group in lengths]
    assert means == sorted(set(means))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_level_outside_the_range_is_refused(family: str) -> None:
    with pytest.raises(RecipeError, match="outside its range"):
        generate(random.Random(0), family, level=FAMILIES[family].levels[1] + 1, heldout=False)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_level_has_questions_on_both_sides_of_the_split(family: str) -> None:
    """At least ten different ones: small levels are where training and evaluation once met."""
    low, high = FAMILIES[family].levels
    rng = random.Random(6)
    for level in range(low, high + 1):
        drawn = {FAMILIES[family].draw(rng, level) for _ in range(1500)}
        heldout = sum(is_heldout(FAMILIES[family].matter(question)) for question in drawn)
        assert heldout >= 10, f"level {level}: {heldout} of {len(drawn)}"
        assert 0.1 < heldout / len(drawn) < 0.35


@pytest.mark.parametrize(
    ("family", "one", "other"),
    [
        ("var", "find a given A b is 4 B a is b + 2", "find h given A c is 4 B h is c + 2"),
        ("story", "tom lamp A has 1 B loses 3", "amy hat A has 1 B loses 3"),
        ("ladder", "wax A gas B heat", "iron A gas B heat"),
        ("table", "table cup 4 , hat 9 : A cup", "table hat 9 , cup 4 : A cup"),
        ("path", "path a : a to b , c to d", "path a : c to d , a to b"),
    ],
)
def test_matter_ignores_what_the_answer_does_not_depend_on(
    family: str, one: str, other: str
) -> None:
    kind = FAMILIES[family]
    assert kind.matter(one) == kind.matter(other)
    assert kind.solve(one).answer == kind.solve(other).answer
    last = one.rpartition(" ")[0]
    changed = {"ladder": "cool", "table": "hat", "path": "e"}.get(family, "1")
    assert kind.matter(one) != kind.matter(f"{last} {changed}")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_questions_of_one_matter_have_one_answer(family: str) -> None:
    rng = random.Random(7)
    low, high = FAMILIES[family].levels
    answers: dict[str, str] = {}
    for draw in range(1500):
        question = FAMILIES[family].draw(rng, low + draw % (high - low + 1))
        answer = FAMILIES[family].solve(question).answer
        assert answers.setdefault(FAMILIES[family].matter(question), answer) == answer


def test_facts_come_from_the_table() -> None:
    for name, of_class in PROPERTIES.items():
        for animal, kind in CLASS_OF.items():
            assert verify("two_hop", f"tell {name} A {animal}", of_class[kind])


def _bracket_answer(question: str) -> str:
    """By crossing out pairs until none is left, then from the end."""
    pairs = ("()", "[]", "{}", "<>")
    left = "".join(word for word in question.split()[1:] if not word.isalpha())
    while any(pair in left for pair in pairs):
        for pair in pairs:
            left = left.replace(pair, "")
    return " ".join(next(pair[1] for pair in pairs if pair[0] == one) for one in reversed(left))


def _path_answer(question: str) -> str:
    """The one sink that is reached from the start: by the closure of the edges."""
    words = question.split()
    edges = set(zip(words[3::4], words[5::4], strict=True))
    reached = {words[1]}
    for _ in edges:
        reached |= {end for start, end in edges if start in reached}
    (sink,) = reached - {start for start, _ in edges}
    return sink


def _compare_answer(question: str) -> str:
    words = question.split()[1:]
    sums = {
        label: int(left) + int(right)
        for label, left, right in zip(words[::4], words[1::4], words[3::4], strict=True)
    }
    label = max(sums, key=lambda one: (sums[one], -ord(one)))
    return f"{label} {sums[label]}"


def _table_answer(question: str) -> str:
    words = question.split()
    asked = words[words.index(":") + 2 :: 2]
    return " ".join(words[words.index(thing) + 1] for thing in asked)


def _format_answer(question: str) -> str:
    instruction, _, operations = question.removeprefix("say ").partition(" A ")
    digits = operations.replace("B", "").replace("C", "").replace("D", "").replace(" ", "")
    total = str(eval(digits) % 10)  # a sum of the digits and signs above
    name, *word = instruction.split()
    return " ".join({"twice": [total, total], "before": [total, *word]}.get(name, [*word, total]))


@pytest.mark.parametrize(
    ("family", "answer"),
    [
        ("brackets", _bracket_answer),
        ("path", _path_answer),
        ("compare", _compare_answer),
        ("table", _table_answer),
        ("format", _format_answer),
        ("sort", lambda question: " ".join(sorted(filter(str.isdigit, question)))),
    ],
)
def test_answers_by_another_route(family: str, answer: Callable[[str], str]) -> None:
    rng = random.Random(8)
    low, high = FAMILIES[family].levels
    for draw in range(300):
        level = low + draw % (high - low + 1)
        problem = generate(rng, family, level=level, heldout=bool(draw % 2))
        assert problem.solution.answer == answer(problem.question), problem.question
        assert problem.solution.states[-1] == problem.solution.answer


def test_a_bracket_that_closes_nothing_is_no_question() -> None:
    with pytest.raises(ValueError, match="closes nothing"):
        FAMILIES["brackets"].solve("close A ( B ]")


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="nearest: 'stack'"):
        verify("stak", "run A push 1", "1")
