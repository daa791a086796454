"""Answers of a model as append-only lines: what is asked once is on the disk, however a run ends.

    {"key": "...", "model": "...", "task": "gsm8k", "item": "gsm8k/17", "prompt": "...", "seed": 1,
     "sample": 3, "text": "...", "num_tokens": 212, "finish": "stop"}

A line is one write to the file: a killed process leaves whole lines, and at most one torn end,
which the next run cuts and counts. After a power cut the lines of the last seconds may be gone.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import replacing
from frontload.data_tools.disk.publish import disk_told
from frontload.eval.protocol.answers import Generated, Loglikelihood
from frontload.recipes.errors import ArtifactError, RecipeError

SEEDS = 2**31  # every server takes a seed below it


@dataclass(frozen=True, kw_only=True)
class SampleName:
    """What an answer is an answer to: everything that could make it another one."""

    model: str  # identity of the weights and the tokenizer
    task: str
    item: str
    prompt: str  # digest of the prompt or of the options
    settings: str  # of the sampling, with the stop texts; "" where options are scored
    seed: int  # of the evaluation
    sample: int  # number of the answer, or of the option

    @property
    def key(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def draw_seed(self) -> int:
        """The seed of its draws: of the evaluation's seed, the item and the sample alone."""
        text = json.dumps([self.seed, self.item, self.sample])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % SEEDS


Answered = Generated | Loglikelihood


class SampleFile:
    """The answers of one file, by key. Open it with `open_samples`."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self._handle = path, handle
        self.num_torn = 0
        self.answers: dict[str, Answered] = {}
        self._read()

    def add(self, name: SampleName, answer: Answered) -> None:
        """Writes one line, whole, and hands it to the system."""
        if name.key in self.answers:
            return
        with disk_told(self.path):
            line = sample_line(name, answer).encode()
            written = os.write(self._handle, line)
            while written < len(line):  # a full disk raises at the next write
                written += os.write(self._handle, line[written:])
        self.answers[name.key] = answer

    def settle(self, names: Iterable[SampleName]) -> None:
        """Puts the finished file in the order of the questions, so that any run's bytes are equal.

        Answers to other questions (an earlier model, another suite) stay behind them.
        """
        listed = list(names)
        lines = [sample_line(name, self.answers[name.key]) for name in listed]
        own = {name.key for name in listed}
        lines += [line for key, line in self._lines() if key not in own]
        with disk_told(self.path), replacing(self.path, "w") as stream:
            stream.writelines(lines)

    def _read(self) -> None:
        """Reads what is there; cuts a line that a kill has torn.

        Raises: ArtifactError for a line in the middle that is none.
        """
        whole = 0
        with open(self.path, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    self.num_torn = 1
                    os.ftruncate(self._handle, whole)
                    break
                key, answer = _parse(line, where=f"{self.path}:{number}")
                self.answers[key] = answer
                whole += len(line)

    def _lines(self) -> Iterator[tuple[str, str]]:
        with open(self.path, encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)["key"], line


@contextmanager
def open_samples(path: Path) -> Iterator[SampleFile]:
    """Opens a file of samples, made when it is not there, for one run at a time.

    Raises: RecipeError when another run has it; ArtifactError when it is damaged.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecipeError(
                str(path),
                found="another run is writing it",
                rule="one run writes a file of samples at a time",
                do="wait until it ends, or name another folder with --out",
            ) from error
        yield SampleFile(path, handle)
    finally:
        os.close(handle)


def sample_line(name: SampleName, answer: Answered) -> str:
    """The one form of a line."""
    row = {"key": name.key, **asdict(name), **asdict(answer)}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _parse(line: bytes, *, where: str) -> tuple[str, Answered]:
    try:
        row: Mapping[str, Any] = json.loads(line)
        kind: type[Generated] | type[Loglikelihood] = Generated if "text" in row else Loglikelihood
        names = kind.__dataclass_fields__
        return str(row["key"]), kind(**{name: row[name] for name in names})
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            where,
            found=f"a line that is no sample ({error!r})"[:160],
            rule="every line but a torn last one is a sample, and is never edited",
            do="delete this line: its question is asked again",
        ) from error
