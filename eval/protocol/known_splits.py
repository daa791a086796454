"""The splits that the suites read: how many rows each has, and the files people have them in."""

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.text.document import read_objects
from frontload.eval.protocol.data_root import SplitName
from frontload.recipes.errors import RecipeError

Reader = Callable[[Path], Iterator[dict[str, Any]]]
MMLU_FIELDS = 6  # question, four options, the number of the right one


@dataclass(frozen=True, kw_only=True)
class KnownSplit:
    """One split, or one of each part where `part` is a star."""

    dataset: str
    part: str
    split: str
    num_rows: int  # of all its parts together
    required: str  # fields without which a row cannot be asked or graded, with commas
    file: str = ""  # in which people have it; {part} stands for the part; "" = the hub alone
    reader: Reader | None = None

    def local_files(self, folder: Path) -> dict[str, Path]:
        """Part -> file of a folder of local files; empty when there is none."""
        if not self.file:
            return {}
        if self.part != "*":
            path = folder / self.file
            return {self.part: path} if path.is_file() else {}
        before, _, after = Path(self.file).name.partition("{part}")
        paths = sorted((folder / self.file).parent.glob(f"{before}*{after}"))
        return {path.name.removeprefix(before).removesuffix(after): path for path in paths}

    def missing_field(self, row: dict[str, Any]) -> str:
        """The first required field that a row lacks; "" when it has them all."""
        return next((name for name in self.required.split(", ") if row.get(name) is None), "")

    def is_of(self, name: SplitName) -> bool:
        """Whether a split in a root is this one, or one of its parts."""
        return (name.dataset, name.split) == (self.dataset, self.split)

    def name(self, part: str) -> SplitName:
        return SplitName(dataset=self.dataset, part=part, split=self.split)


def jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file as they are."""
    for _, row in read_objects(path, error_type=RecipeError):
        yield row


def gzip_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a release of EvalPlus as they are."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)
    except (OSError, EOFError, ValueError) as error:
        raise RecipeError(
            f"benchmark rows {path}",
            found=f"cannot be read ({error})",
            rule="it is a gzip file with one JSON object a line, as EvalPlus releases it",
            do="fetch it again",
        ) from error


def aime_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows as NeMo-Skills ships them, with the field names of the hub."""
    for row in jsonl_rows(path):
        expected = row.pop("expected_answer", None)
        yield row if expected is None else {**row, "answer": expected}


def mmlu_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a subject of MMLU from its CSV file; a first row of column names is left out."""
    with open(path, encoding="utf-8", newline="") as lines:
        for number, fields in enumerate(csv.reader(lines), start=1):
            if number == 1 and fields[:1] == ["question"]:
                continue
            yield _mmlu_row(fields, f"{path}:{number}")


def _mmlu_row(fields: list[str], where: str) -> dict[str, Any]:
    letter = fields[-1].strip() if len(fields) == MMLU_FIELDS else ""
    place = "ABCD".find(letter) if len(letter) == 1 and letter in "ABCD" else "0123".find(letter)
    if len(letter) != 1 or place < 0:
        raise RecipeError(
            where,
            found=f"{len(fields)} columns, the last {fields[-1][:20] if fields else ''!r}",
            rule="a question of MMLU has itself, four options, and A to D or 0 to 3",
            do="mend the row, or fetch the file again",
        )
    return {"question": fields[0], "choices": fields[1:5], "answer": place}


KNOWN: tuple[KnownSplit, ...] = (
    KnownSplit(
        dataset="openai/gsm8k",
        part="main",
        split="train",
        num_rows=7_473,
        required="question, answer",
        file="gsm8k_train.jsonl",
        reader=jsonl_rows,
    ),
    KnownSplit(
        dataset="openai/gsm8k",
        part="main",
        split="test",
        num_rows=1_319,
        required="question, answer",
        file="gsm8k_test.jsonl",
        reader=jsonl_rows,
    ),
    KnownSplit(
        dataset="HuggingFaceH4/MATH-500",
        part="default",
        split="test",
        num_rows=500,
        required="problem, answer",
        file="math500.jsonl",
        reader=jsonl_rows,
    ),
    KnownSplit(
        dataset="HuggingFaceH4/aime_2024",
        part="default",
        split="train",
        num_rows=30,
        required="problem, answer",
        file="aime24.jsonl",
        reader=aime_rows,
    ),
    KnownSplit(
        dataset="math-ai/aime25",
        part="default",
        split="test",
        num_rows=30,
        required="problem, answer",
        file="aime25.jsonl",
        reader=aime_rows,
    ),
    KnownSplit(
        dataset="cais/mmlu",
        part="*",
        split="dev",
        num_rows=285,
        required="question, choices, answer",
        file="mmlu/dev/{part}_dev.csv",
        reader=mmlu_rows,
    ),
    KnownSplit(
        dataset="cais/mmlu",
        part="*",
        split="test",
        num_rows=14_042,
        required="question, choices, answer",
        file="mmlu/test/{part}_test.csv",
        reader=mmlu_rows,
    ),
    KnownSplit(
        dataset="google/IFEval",
        part="default",
        split="train",
        num_rows=541,
        required="key, prompt, instruction_id_list, kwargs",
        file="ifeval.jsonl",
        reader=jsonl_rows,
    ),
    KnownSplit(
        dataset="evalplus/humanevalplus",
        part="default",
        split="test",
        num_rows=164,
        required="task_id, prompt, entry_point, canonical_solution, base_input, plus_input",
        file="HumanEvalPlus.jsonl.gz",
        reader=gzip_rows,
    ),
    KnownSplit(
        dataset="evalplus/mbppplus",
        part="default",
        split="test",
        num_rows=378,
        required="task_id, prompt, entry_point, canonical_solution, base_input, plus_input",
        file="MbppPlus.jsonl.gz",
        reader=gzip_rows,
    ),
    KnownSplit(
        dataset="TIGER-Lab/MMLU-Pro",
        part="default",
        split="validation",
        num_rows=70,
        required="question, options, cot_content, category",
    ),
    KnownSplit(
        dataset="TIGER-Lab/MMLU-Pro",
        part="default",
        split="test",
        num_rows=12_032,
        required="question, options, answer, answer_index, category",
    ),
    KnownSplit(
        dataset="allenai/ai2_arc",
        part="ARC-Challenge",
        split="train",
        num_rows=1_119,
        required="question, choices, answerKey",
    ),
    KnownSplit(
        dataset="allenai/ai2_arc",
        part="ARC-Challenge",
        split="validation",
        num_rows=299,
        required="question, choices, answerKey",
    ),
    KnownSplit(
        dataset="allenai/ai2_arc",
        part="ARC-Challenge",
        split="test",
        num_rows=1_172,
        required="question, choices, answerKey",
    ),
    KnownSplit(
        dataset="Rowan/hellaswag",
        part="default",
        split="train",
        num_rows=39_905,
        required="ctx_a, ctx_b, activity_label, endings, label",
    ),
    KnownSplit(
        dataset="Rowan/hellaswag",
        part="default",
        split="validation",
        num_rows=10_042,
        required="ctx_a, ctx_b, activity_label, endings, label",
    ),
    KnownSplit(
        dataset="allenai/winogrande",
        part="winogrande_xl",
        split="train",
        num_rows=40_398,
        required="sentence, option1, option2, answer",
    ),
    KnownSplit(
        dataset="allenai/winogrande",
        part="winogrande_xl",
        split="validation",
        num_rows=1_267,
        required="sentence, option1, option2, answer",
    ),
    KnownSplit(
        dataset="EleutherAI/race",
        part="high",
        split="test",
        num_rows=1_045,
        required="article, problems",
    ),
    KnownSplit(
        dataset="Idavidrein/gpqa",
        part="gpqa_diamond",
        split="train",
        num_rows=198,
        required="Question, Correct Answer, Incorrect Answer 1, "
        "Incorrect Answer 2, Incorrect Answer 3",
    ),
    KnownSplit(
        dataset="livecodebench/code_generation_lite",
        part="release_v6",
        split="test",
        num_rows=454,
        required="question_content, starter_code, public_test_cases, private_test_cases",
    ),
)
"""Every split that a suite of recipes/suites reads, and those that lm-eval opens beside them."""


def known_datasets() -> list[str]:
    """Names of the data sets, in the order of `KNOWN`."""
    return list(dict.fromkeys(one.dataset for one in KNOWN))
