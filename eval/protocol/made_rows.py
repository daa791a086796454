"""Rows that this project makes up in each benchmark's form: they try everything out, judge nothing.

Every question is small arithmetic, so a gold answer is right for a reason and not by hand.
"""

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from frontload.eval.protocol.known_splits import KnownSplit

ROWS_OF_A_PART = 6
MADE_PARTS: Mapping[str, tuple[str, ...]] = {
    "cais/mmlu": ("anatomy", "elementary_mathematics"),
    "TIGER-Lab/MMLU-Pro": ("math", "physics"),  # its categories
}
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn")
THINGS = ("apples", "books", "coins", "stones", "cards", "pens")


def made_rows(split: KnownSplit, part: str) -> list[dict[str, Any]]:
    """The made-up rows of one part of a split: the same ones each time."""
    stream = Random(f"{split.dataset}/{part}/{split.split}")
    writer = _WRITERS[split.dataset]
    return [row for _ in range(ROWS_OF_A_PART) for row in writer(stream, split)]


def made_parts(split: KnownSplit) -> tuple[str, ...]:
    """The parts that made-up rows have."""
    return MADE_PARTS[split.dataset] if split.part == "*" else (split.part,)


def _sum(stream: Random) -> tuple[str, int, str]:
    """A question, its answer and how it is found."""
    first, second = stream.randrange(2, 60), stream.randrange(2, 60)
    name, thing = stream.choice(NAMES), stream.choice(THINGS)
    question = f"{name} has {first} {thing} and gets {second} more. How many {thing} are there?"
    return question, first + second, f"{first} + {second} = {first + second}"


def _options(stream: Random, answer: int, *, count: int) -> tuple[list[str], int]:
    """Different numbers, one of them the answer, and where it stands."""
    others = stream.sample([n for n in range(answer - 9, answer + 10) if n != answer], count - 1)
    place = stream.randrange(count)
    return [str(n) for n in [*others[:place], answer, *others[place:]]], place


def _gsm8k(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    question, answer, steps = _sum(stream)
    yield {"question": question, "answer": f"{steps}\n#### {answer}"}


def _problem(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    question, answer, steps = _sum(stream)
    solution = f"We find ${steps}$, so the answer is $\\boxed{{{answer}}}$."
    yield {"problem": question, "solution": solution, "answer": str(answer)}


def _mmlu(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    question, answer, _ = _sum(stream)
    choices, place = _options(stream, answer, count=4)
    yield {"question": question, "choices": choices, "answer": place}


def _mmlu_pro(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    for category in MADE_PARTS[split.dataset]:
        question, answer, steps = _sum(stream)
        options, place = _options(stream, answer, count=10)
        letter = "ABCDEFGHIJ"[place]
        cot = f"A: Let's think step by step. We find {steps}. The answer is ({letter})."
        yield {
            "question": question,
            "options": options,
            "answer": letter,
            "answer_index": place,
            "cot_content": cot,
            "category": category,
        }


def _arc(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    question, answer, _ = _sum(stream)
    texts, place = _options(stream, answer, count=4)
    labels = ["A", "B", "C", "D"]
    yield {
        "question": question,
        "choices": {"text": texts, "label": labels},
        "answerKey": labels[place],
    }


def _hellaswag(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    question, answer, _ = _sum(stream)
    numbers, place = _options(stream, answer, count=4)
    yield {
        "activity_label": "Counting",
        "ctx_a": question,
        "ctx_b": "there",
        "endings": [f"are {number} of them." for number in numbers],
        "label": str(place),
    }


def _winogrande(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    first, second = stream.sample(NAMES, 2)
    more, less = sorted(stream.sample(range(2, 60), 2), reverse=True)
    yield {
        "sentence": f"{first} has {more} pens and {second} has {less}, so _ has more pens.",
        "option1": first,
        "option2": second,
        "answer": "1",
    }


def _race(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    question, answer, steps = _sum(stream)
    options, place = _options(stream, answer, count=4)
    problems = [{"question": question, "answer": "ABCD"[place], "options": options}]
    yield {"article": f"A list of sums says that {steps}.", "problems": repr(problems)}


def _gpqa(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    question, answer, _ = _sum(stream)
    options, place = _options(stream, answer, count=4)
    wrong = [text for at, text in enumerate(options) if at != place]
    yield {
        "Question": question,
        "Correct Answer": options[place],
        **{f"Incorrect Answer {number}": text for number, text in enumerate(wrong, start=1)},
    }


def _ifeval(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    thing = stream.choice(THINGS)
    yield {
        "key": stream.randrange(1_000_000),
        "prompt": f"Write one sentence about {thing}. Do not use any commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }


def _program(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    more = stream.randrange(2, 60)
    head = f"def add_{more}(number):\n"
    text = f"Returns the number and {more} more."
    is_mbpp = split.dataset == "evalplus/mbppplus"
    yield {
        "task_id": f"Made/{more}",
        "prompt": f'"""\n{text}\nassert add_{more}(1) == {1 + more}\n"""\n'
        if is_mbpp
        else f'{head}    """{text}"""\n',
        "entry_point": f"add_{more}",
        "canonical_solution": f"{head if is_mbpp else ''}    return number + {more}\n",
        "contract": "",
        "base_input": [[1], [2]],
        "plus_input": [[-5], [0], [10**9]],
        "atol": 0,
    }


def _livecodebench(stream: Random, split: KnownSplit) -> Iterator[dict[str, Any]]:
    more = stream.randrange(2, 60)
    tests = [{"input": f"{n}\n", "output": f"{n + more}\n", "testtype": "stdin"} for n in (1, 7)]
    yield {
        "question_content": f"Read one whole number and print it with {more} added.",
        "starter_code": "",
        "public_test_cases": tests[:1],
        "private_test_cases": tests[1:],
    }


_WRITERS: Mapping[str, Callable[[Random, KnownSplit], Iterator[dict[str, Any]]]] = {
    "openai/gsm8k": _gsm8k,
    "HuggingFaceH4/MATH-500": _problem,
    "HuggingFaceH4/aime_2024": _problem,
    "math-ai/aime25": _problem,
    "cais/mmlu": _mmlu,
    "TIGER-Lab/MMLU-Pro": _mmlu_pro,
    "allenai/ai2_arc": _arc,
    "Rowan/hellaswag": _hellaswag,
    "allenai/winogrande": _winogrande,
    "EleutherAI/race": _race,
    "Idavidrein/gpqa": _gpqa,
    "google/IFEval": _ifeval,
    "evalplus/humanevalplus": _program,
    "evalplus/mbppplus": _program,
    "livecodebench/code_generation_lite": _livecodebench,
}
