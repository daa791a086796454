"""Prompts for reinforcement learning, in the columns that veRL 0.9.1's RLHFDataset reads."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import file_sha256, replacing
from frontload.data_tools.prompts.length import PromptLimit
from frontload.recipes.errors import RecipeError

ROW_GROUP = 8192  # rows; ours: about 10 MB of prompts in memory while writing


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One question that a rule can grade."""

    data_source: str
    messages: tuple[tuple[str, str], ...]  # (role, text)
    ability: str  # general or math
    ground_truth: str
    kind: str  # how it is graded: choice or answer (frontload.eval.grading.grade.Kind)
    question: str
    options: tuple[str, ...]
    source_index: str  # the row's own index in its file


def write_prompts(path: Path, prompts: Sequence[Prompt], *, split: str) -> str:
    """Writes the prompts as parquet, in their order, and returns the sha256 of the file.

    `extra_info.index` counts the rows of the file: veRL groups and logs by it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(pa)
    with replacing(path) as stream, pq.ParquetWriter(stream, schema) as writer:
        for first, group in enumerate(batched(prompts, ROW_GROUP)):
            rows = [
                row_for_verl(prompt, index=first * ROW_GROUP + offset, split=split)
                for offset, prompt in enumerate(group)
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return file_sha256(path)


def read_messages(path: Path) -> Iterator[tuple[tuple[str, str], ...]]:
    """The (role, text) messages of each prompt of a file.

    Raises: RecipeError for a file that is no parquet, or has no such column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for part in file.iter_batches(batch_size=ROW_GROUP, columns=["prompt"]):
                for row in part.column("prompt").to_pylist():
                    yield tuple((turn["role"], turn["content"]) for turn in row)
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise RecipeError(
            f"prompts {path}",
            found=f"no prompts as veRL reads them ({str(error).partition(chr(10))[0][:80]})",
            rule="they are a parquet file whose column prompt is messages of role and content",
            do="make it with `frontload data crossthink`",
        ) from error


def check_prompts(path: Path, limit: PromptLimit) -> None:
    """Refuses a file of prompts that veRL would cut.

    Raises: RecipeError with how many do not fit, and why.
    """
    misfits = Counter(limit.misfits(read_messages(path)))
    total = misfits.total()
    reasons = {why: count for why, count in misfits.items() if why}
    if reasons:
        raise RecipeError(
            f"prompts {path}",
            found=" and ".join(f"{count} of {total} {why}" for why, count in reasons.items())
            + f", by {limit.tokenizer.file} and its chat template",
            rule="prompts are made with the tokenizer of the model that is trained: veRL keeps the "
            "last tokens of a longer one, without its question",
            do=f"make them again: `frontload data crossthink --tokenizer "
            f"{limit.tokenizer.file.parent} --prompt-tokens {limit.tokens}` drops and counts those "
            "that do not fit; or raise prompt_tokens of the recipe",
        )


def row_for_verl(prompt: Prompt, *, index: int, split: str) -> dict[str, Any]:
    """The row of one prompt, as a reward function of veRL receives it."""
    return {
        "data_source": prompt.data_source,
        "prompt": [{"role": role, "content": text} for role, text in prompt.messages],
        "ability": prompt.ability,
        "reward_model": {"style": "rule", "ground_truth": prompt.ground_truth},
        "extra_info": {
            "split": split,
            "index": index,
            "kind": prompt.kind,
            "question": prompt.question,
            "options": list(prompt.options),
            "source_index": prompt.source_index,
        },
    }


def _schema(pa: Any) -> Any:
    """Every column typed: what a file holds must not depend on the rows that are in it."""
    text = pa.string()
    return pa.schema(
        [
            ("data_source", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            (
                "extra_info",
                pa.struct(
                    [
                        ("split", text),
                        ("index", pa.int64()),
                        ("kind", text),
                        ("question", text),
                        ("options", pa.list_(text)),
                        ("source_index", text),
                    ]
                ),
            ),
        ]
    )
