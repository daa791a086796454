"""`frontload data questions`: documents to prompts for RL, by a model or by gaps in sentences."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import batched
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import file_sha256, replacing
from frontload.data_tools.disk.publish import make_folder
from frontload.data_tools.generation import question_pairs as pairs
from frontload.data_tools.generation.documents import (
    DroppedDocument,
    SourceDocument,
    source_documents,
)
from frontload.data_tools.generation.extraction import extracted_pairs
from frontload.data_tools.generation.question_pairs import DroppedPair, Pair, Readers
from frontload.data_tools.prompts.length import PromptLimit, load_limit
from frontload.data_tools.prompts.rl_parquet import Prompt, write_prompts
from frontload.data_tools.text.messages import Message
from frontload.data_tools.text.words import question_key
from frontload.eval.protocol.answers import Generated
from frontload.eval.protocol.samples import open_samples
from frontload.launch.evaluation.answerers import SERVERS, choose_answerer
from frontload.launch.generation import options as given
from frontload.launch.generation.replies import (
    ASKED_AT_ONCE,
    Asker,
    AskingSettings,
    LostReply,
    Question,
)
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError

EXTRACT = "extract"
"""The backend that asks no model."""

PAIRS, PROMPTS = "pairs.jsonl", "prompts.parquet"
SOURCE = "documents"  # data_source of the prompts
REPLY_TOKENS = 1_024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `questions`."""
    given.add_source(parser)
    given.add_backend(parser, tokens=REPLY_TOKENS, also=f"; or {EXTRACT}, which asks no model")
    parser.add_argument(
        "--prompt-tokens", type=int, required=True, metavar="N", help="longer prompts are dropped"
    )
    parser.add_argument("--instruction", default="", help="added to every prompt (default none)")
    parser.set_defaults(run=run_questions)


@dataclass(frozen=True, kw_only=True)
class AskedDocument:
    """A document with who asks about it."""

    document: SourceDocument
    readers: Readers


@dataclass(frozen=True, kw_only=True)
class FoundPair:
    """A pair with its document, and who asks."""

    document: SourceDocument
    domain: str
    persona: str
    pair: Pair

    def to_json(self) -> dict[str, Any]:
        """Its line, in the columns of Webscale-RL's own set."""
        return {
            "pretrain_text": self.document.text,
            "domain": self.domain,
            "persona": self.persona,
            "question": self.pair.question,
            "answer": self.pair.answer,
            "source": f"{self.document.file.name}:{self.document.number}",
        }


@dataclass(kw_only=True)
class _Counts:
    """How many rows and pairs were seen, and why each of the others gave nothing."""

    rows: int = 0
    pairs: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, one: DroppedDocument) -> None:
        """Counts a drop and keeps its line."""
        self.dropped[one.reason] += 1
        self.lines.append(one.to_json())


def run_questions(options: argparse.Namespace) -> int:
    """Asks what is missing, then writes OUT/prompts.parquet, pairs.jsonl and the manifest.

    Raises: RecipeError for wrong input, or documents that give no prompt; StageError when the
            backend fails.
    """
    sampling, files = given.sampling_of(options), given.source_files(options)
    limit = _limit(options)
    is_model = options.backend != EXTRACT
    chosen = _chosen(options) if is_model else None
    asked = {
        "model": chosen.answerer.identity if chosen else EXTRACT,
        "temperature": sampling.temperature if chosen else 0.0,
        "top_p": sampling.top_p if chosen else 1.0,
        "max_reply_tokens": sampling.max_new_tokens if chosen else 0,
        "seed": options.seed if chosen else 0,
        "json_key": options.json_key,
        "most_words": options.most_words,
        "instruction": options.instruction,
        **limit.describe(),
        "inputs": [{"name": file.name, "sha256": file_sha256(file)} for file in files],
    }
    make_folder(options.out, asked="--out")
    given.check_same_request(options.out, asked)
    counts = _Counts()
    documents = source_documents(files, key=options.json_key, most_words=options.most_words)
    if chosen is None:
        found = list(_unique(_extracted(documents, counts), counts))
    else:
        with _rounds(options, chosen.answerer) as rounds:
            blocks = batched(documents, ASKED_AT_ONCE)
            everything = (pair for block in blocks for pair in rounds.pairs(block, counts))
            found = list(_unique(everything, counts))
    prompts = list(_fitting(found, limit, instruction=options.instruction, counts=counts))
    _write(options.out, found, prompts=prompts, counts=counts, asked=asked)
    return 0


def _chosen(options: argparse.Namespace) -> Any:
    """The model that writes. A checkpoint's own tokenizer is looked up: `--tokenizer` is of the
    model that is trained."""
    own = argparse.Namespace(**vars(options) | {"tokenizer": None})
    is_server = options.backend.startswith(SERVERS)
    return choose_answerer(options if is_server else own, options.backend)


def _limit(options: argparse.Namespace) -> PromptLimit:
    if options.tokenizer is None:
        raise RecipeError(
            "data questions",
            found="no --tokenizer",
            rule="prompts are measured with the tokenizer of the model that is trained on them",
            do="add --tokenizer FOLDER",
        )
    return load_limit(options.tokenizer, options.prompt_tokens)


class Rounds:
    """The four requests of Webscale-RL, each to all documents of a block that have come so far."""

    def __init__(self, askers: dict[str, Asker]) -> None:
        self._askers = askers

    def pairs(
        self, block: Sequence[SourceDocument | DroppedDocument], counts: _Counts
    ) -> Iterator[FoundPair]:
        """The pairs of a block that pass everything, in the order of its documents."""
        counts.rows += len(block)
        for one in block:
            if isinstance(one, DroppedDocument):
                counts.drop(one)
        good = [one for one in block if isinstance(one, SourceDocument)]
        readers = self._readers(self._filtered(good, counts), counts)
        yield from self._checked(self._generated(readers, counts), counts)

    def _filtered(
        self, documents: Sequence[SourceDocument], counts: _Counts
    ) -> list[SourceDocument]:
        requests = [(one.id, pairs.filter_messages(one.text)) for one in documents]
        kept = []
        for one, reply in zip(documents, self._ask("filter", requests), strict=True):
            why = reply.reason if isinstance(reply, LostReply) else pairs.read_filter(reply.text)
            if why is None:
                kept.append(one)
            else:
                counts.drop(one.dropped(str(why)))
        return kept

    def _readers(self, documents: Sequence[SourceDocument], counts: _Counts) -> list[AskedDocument]:
        requests = [(one.id, pairs.identify_messages(one.text)) for one in documents]
        kept = []
        for one, reply in zip(documents, self._ask("identify", requests), strict=True):
            found = _read(reply, pairs.read_readers)
            if isinstance(found, Readers):
                kept.append(AskedDocument(document=one, readers=found))
            else:
                counts.drop(one.dropped(str(found)))
        return kept

    def _generated(self, asked: Sequence[AskedDocument], counts: _Counts) -> list[FoundPair]:
        places = [(one, persona) for one in asked for persona in one.readers.personas]
        requests = [
            (f"{one.document.id}/{persona}", pairs.generate_messages(one.document.text, persona))
            for one, persona in places
        ]
        kept = []
        for (one, persona), reply in zip(places, self._ask("generate", requests), strict=True):
            counts.pairs += 1
            text = one.document.text
            found = _read(reply, lambda said, text=text: pairs.read_pair(said, document=text))
            if isinstance(found, Pair):
                domain = one.readers.domain
                kept.append(
                    FoundPair(document=one.document, domain=domain, persona=persona, pair=found)
                )
            else:
                counts.drop(one.document.dropped(str(found)))
        return kept

    def _checked(self, found: Sequence[FoundPair], counts: _Counts) -> Iterator[FoundPair]:
        requests = [
            (f"{one.document.id}/{one.persona}", pairs.check_messages(one.document.text, one.pair))
            for one in found
        ]
        for one, reply in zip(found, self._ask("check", requests), strict=True):
            why = reply.reason if isinstance(reply, LostReply) else pairs.read_check(reply.text)
            if why is None:
                yield one
            else:
                counts.drop(one.document.dropped(str(why)))

    def _ask(
        self, task: str, requests: Sequence[tuple[str, tuple[Message, ...]]]
    ) -> list[Generated | LostReply]:
        questions = [Question(id=name, messages=messages) for name, messages in requests]
        return [reply for _, reply in self._askers[task].replies(questions)]


def _read(reply: Generated | LostReply, read: Any) -> Any:
    """What `read` finds in a reply, or why there is none."""
    return reply.reason if isinstance(reply, LostReply) else read(reply.text)


@contextmanager
def _rounds(options: argparse.Namespace, answerer: Any) -> Iterator[Rounds]:
    """The rounds on the file of replies, which is put in order at the end.

    Verdicts are the likeliest reply; pairs are drawn.
    """
    drawn = given.sampling_of(options)
    greedy = replace(drawn, temperature=0.0, top_p=1.0)
    sampling = {"filter": greedy, "identify": greedy, "generate": drawn, "check": greedy}
    with open_samples(options.out / given.REPLIES) as samples:
        askers = {
            task: Asker(
                answerer,
                samples,
                settings=AskingSettings(task=task, sampling=one, stop=(), seed=options.seed),
            )
            for task, one in sampling.items()
        }
        yield Rounds(askers)
        samples.settle(name for asker in askers.values() for name in asker.names)


def _extracted(
    documents: Iterator[SourceDocument | DroppedDocument], counts: _Counts
) -> Iterator[FoundPair]:
    for one in documents:
        counts.rows += 1
        if isinstance(one, DroppedDocument):
            counts.drop(one)
            continue
        found = list(extracted_pairs(one.text, most=pairs.MOST_PERSONAS))
        counts.pairs += len(found)
        if not found:
            counts.drop(one.dropped("extract: no sentence with a number or a name to ask for"))
        for pair in found:
            yield FoundPair(document=one, domain="other", persona="a reader", pair=pair)


def _unique(found: Iterator[FoundPair], counts: _Counts) -> Iterator[FoundPair]:
    seen: set[str] = set()
    for one in found:
        key = question_key(one.pair.question)
        if key in seen:
            counts.drop(one.document.dropped(str(DroppedPair.TWICE)))
            continue
        seen.add(key)
        yield one


def _fitting(
    found: list[FoundPair], limit: PromptLimit, *, instruction: str, counts: _Counts
) -> Iterator[Prompt]:
    """The prompts that the model has room for; the others leave `found` too."""
    prompts = [_prompt(one, instruction) for one in found]
    misfits = list(limit.misfits(prompt.messages for prompt in prompts))
    for one, why in zip(found, misfits, strict=True):
        if why:
            counts.drop(one.document.dropped(f"prompt: {why}"))
    found[:] = [one for one, why in zip(found, misfits, strict=True) if not why]
    yield from (prompt for prompt, why in zip(prompts, misfits, strict=True) if not why)


def _prompt(one: FoundPair, instruction: str) -> Prompt:
    text = f"{one.pair.question}\n\n{instruction}" if instruction else one.pair.question
    return Prompt(
        data_source=SOURCE,
        messages=(("user", text),),
        ability="general",
        ground_truth=one.pair.answer,
        kind="answer",
        question=one.pair.question,
        options=(),
        source_index=f"{one.document.file.name}:{one.document.number}",
    )


def _write(
    out: Path,
    found: Sequence[FoundPair],
    *,
    prompts: Sequence[Prompt],
    counts: _Counts,
    asked: dict[str, Any],
) -> None:
    """All files, the manifest last; and what a person reads.

    Raises: RecipeError when there is no prompt.
    """
    reasons = dict(sorted(counts.dropped.items()))
    if not prompts:
        raise RecipeError(
            f"data questions --out {out}",
            found=f"{counts.rows} rows, no pair that passes: {json.dumps(reasons)}",
            rule="at least one document gives a question",
            do="give other documents, or a stronger --backend",
        )
    for name, rows in ((PAIRS, [one.to_json() for one in found]), (given.DROPPED, counts.lines)):
        with replacing(out / name, "w") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    manifest = {
        "format": 1,
        "asked": asked,
        "rows": counts.rows,
        "pairs": counts.pairs,
        "prompts": len(prompts),
        "dropped": reasons,
        "domains": dict(sorted(Counter(one.domain for one in found).items())),
        "parquet_sha256": write_prompts(out / PROMPTS, prompts, split="train"),
    }
    write_json(out / given.MANIFEST, manifest)
    print(f"{out / PROMPTS}: {len(prompts)} prompts of {counts.pairs} pairs, {counts.rows} rows")
    for reason, number in reasons.items():
        print(f"left out: {number}, {reason}")
