"""Per-item results: what is stored, one JSON line an item, and enough to recompute every score."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import replacing
from frontload.data_tools.text.document import read_objects
from frontload.recipes.errors import ArtifactError

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One sampled answer and its grade."""

    text: str  # all that was generated, special tokens written out
    answer: str  # the final answer found in it, "" on a format failure
    correct: bool
    format_failure: str  # "" or the reason
    tokens: int


@dataclass(frozen=True, kw_only=True)
class GeneratedResult:
    """One question with its sampled answers (suite sft: several; few-shot: one)."""

    id: str
    benchmark: str
    category: str
    family: str
    question: str
    gold: str
    inside_shq: bool | None  # None of a benchmark, whose questions are of no family
    hard: bool
    prompt_tokens: int
    num_shots: int  # worked examples in the prompt
    gold_correct: bool  # whether the gold answer, through the same tokenizer and grader, is right
    samples: tuple[Generation, ...]

    @property
    def accuracy(self) -> float:
        """The item's share of right samples: its pass@1."""
        return sum(sample.correct for sample in self.samples) / len(self.samples)


@dataclass(frozen=True, kw_only=True)
class ChoiceResult:
    """One multiple-choice item with the log-likelihood of each option, in nats."""

    id: str
    benchmark: str
    category: str
    prompt_tokens: int  # of the context
    gold: int
    log_likelihoods: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """1 when the first option of highest log-likelihood is the gold one, else 0."""
        return float(self.log_likelihoods.index(max(self.log_likelihoods)) == self.gold)


@dataclass(frozen=True, kw_only=True)
class HeldoutResult:
    """One gold worked answer, teacher-forced: sums over the tokens after `<|assistant|>`."""

    id: str
    family: str
    domain: str
    inside_shq: bool
    is_cut: bool  # longer than the trained context, so its end is not scored
    num_tokens: int
    loss_sum: float  # nats
    num_greedy_tokens: int  # tokens that the model ranks first


Result = GeneratedResult | ChoiceResult | HeldoutResult


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the results were made: the head of the file."""

    suite: str
    num_samples: int
    num_hard_samples: int
    temperature: float
    max_new_tokens: int
    max_sequence_tokens: int  # of the model's training
    num_shots: int
    seed: int
    missing: dict[str, str] = field(default_factory=dict)
    """Benchmark of the suite that has no result here -> its category."""

    def to_json(self) -> dict[str, Any]:
        """Its fields; `missing` where there is something missing."""
        found = asdict(self)
        if not self.missing:
            del found["missing"]
        return found


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """All of one evaluation."""

    protocol: Protocol
    results: tuple[Result, ...]


_KINDS: dict[str, type] = {
    "generated": GeneratedResult,
    "choice": ChoiceResult,
    "heldout": HeldoutResult,
}


def write_results(path: Path, protocol: Protocol, *, results: Iterable[Result]) -> None:
    """Writes the head and one line a result, whole or not at all."""
    names = {kind: name for name, kind in _KINDS.items()}
    with replacing(path, "w") as stream:
        stream.write(_line({"kind": "protocol", "format": FORMAT, **protocol.to_json()}))
        for result in results:
            stream.write(_line({"kind": names[type(result)], **asdict(result)}))


def read_results(path: Path) -> ResultFile:
    """Reads a file written by `write_results`.

    Raises: ArtifactError naming file and line when it is not such a file.
    """
    protocol: Protocol | None = None
    results: list[Result] = []
    for number, row in read_objects(path):
        kind = row.pop("kind", None)
        try:
            if kind == "protocol":
                if row.pop("format") != FORMAT:
                    raise TypeError(f"another format than {FORMAT}")
                protocol = Protocol(**row)
            else:
                results.append(_result(kind, row))
        except (TypeError, KeyError) as error:
            raise ArtifactError(
                f"{path}:{number}",
                found=f"a line of kind {kind!r} that does not read ({error})",
                rule=f"this file is written by the stage `evaluate`, format {FORMAT}",
                do="delete the evaluation's folder and run the stage again",
            ) from error
    if protocol is None:
        raise ArtifactError(
            f"reading {path}",
            found="no protocol line",
            rule="the first line says how the results were made",
            do="delete the evaluation's folder and run the stage again",
        )
    return ResultFile(protocol=protocol, results=tuple(results))


def _result(kind: Any, row: dict[str, Any]) -> Result:
    if kind == "generated":
        row["samples"] = tuple(Generation(**sample) for sample in row["samples"])
    if kind == "choice":
        row["log_likelihoods"] = tuple(row["log_likelihoods"])
    return _KINDS[kind](**row)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True) + "\n"
