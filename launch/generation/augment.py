"""`frontload data augment`: documents with the thinking of a model behind them."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import file_sha256, replacing
from frontload.data_tools.disk.publish import make_folder
from frontload.data_tools.generation.documents import (
    DroppedDocument,
    SourceDocument,
    source_documents,
)
from frontload.data_tools.generation.thinking import (
    DOCUMENT,
    REQUEST,
    THINK_END,
    RejectedThinking,
    Reply,
    joined,
    read_thinking,
    thinking_messages,
)
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.protocol.answers import Generated
from frontload.eval.protocol.samples import open_samples
from frontload.launch.evaluation.answerers import choose_answerer
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

DOCUMENTS = "documents.jsonl"
PAPER_TOKENS = 8_192  # arXiv 2509.20186: the longest thinking
COUNTED_AT_ONCE = 1_024  # texts that are encoded at once; ours: some MB of ids


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `augment`."""
    given.add_source(parser)
    given.add_backend(parser, tokens=PAPER_TOKENS)
    parser.add_argument(
        "--request", type=Path, metavar="FILE", help="a text of your own that holds {document} once"
    )
    parser.add_argument(
        "--keep-cut", action="store_true", help="use thinking that the limit of tokens ended"
    )
    parser.set_defaults(run=run_augment)


@dataclass(kw_only=True)
class _Written:
    """What has come of the documents so far."""

    tokenizer: TextTokenizer | None
    documents: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)  # "document", "text"
    tokens: Counter[str] = field(default_factory=Counter)
    _waiting: list[tuple[str, str]] = field(default_factory=list)

    def add(self, document: str, text: str) -> None:
        """Counts one augmented document."""
        self.documents += 1
        self.letters += Counter(document=len(document), text=len(text))
        self._waiting.append((document, text))
        if len(self._waiting) == COUNTED_AT_ONCE:
            self.count()

    def count(self) -> None:
        """Counts the tokens of the texts that wait."""
        if self.tokenizer is not None and self._waiting:
            for name, texts in zip(
                ("document", "text"), zip(*self._waiting, strict=True), strict=True
            ):
                self.tokens[name] += sum(map(len, self.tokenizer.encode_batch(list(texts))))
        self._waiting.clear()

    @property
    def inflation(self) -> float | None:
        """Tokens of the result per token of its documents; by letters without a tokenizer."""
        sizes = self.tokens if self.tokenizer is not None else self.letters
        return sizes["text"] / sizes["document"] if sizes["document"] else None

    def to_json(self) -> Mapping[str, Any]:
        """The counts of a manifest."""
        return {
            "documents": self.documents,
            "dropped": dict(sorted(self.dropped.items())),
            "letters": dict(self.letters),
            "tokens": dict(self.tokens) if self.tokenizer is not None else None,
            "tokenizer_sha256": self.tokenizer.sha256() if self.tokenizer is not None else None,
            "inflation": self.inflation,
        }

    def lines(self, out: Path) -> Iterator[str]:
        """What a person reads at the end."""
        rows = self.documents + self.dropped.total()
        yield f"{out / DOCUMENTS}: {self.documents} of {rows} documents with thinking"
        if self.inflation is not None:
            unit = "tokens" if self.tokenizer is not None else "letters (no tokenizer was named)"
            sizes = self.tokens if self.tokenizer is not None else self.letters
            yield (
                f"{sizes['document']:,} {unit} of documents became {sizes['text']:,}: "
                f"{self.inflation:.2f} times as many. A study's budgets count them all."
            )
        for reason, number in sorted(self.dropped.items()):
            yield f"left out: {number}, {reason}"
        if self.documents < self.dropped.total():
            yield f"most documents were left out: {out / given.DROPPED} names each"


def run_augment(options: argparse.Namespace) -> int:
    """Asks for the thinking that is missing, then writes OUT/documents.jsonl and its manifest.

    Raises: RecipeError for wrong input; StageError when the backend fails.
    """
    sampling, files = given.sampling_of(options), given.source_files(options)
    request = _request(options.request)
    chosen = choose_answerer(options, options.backend)
    asked = {
        "model": chosen.answerer.identity,
        "request": request,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_reply_tokens": sampling.max_new_tokens,
        "seed": options.seed,
        "json_key": options.json_key,
        "most_words": options.most_words,
        "keep_cut": options.keep_cut,
        "inputs": [{"name": file.name, "sha256": file_sha256(file)} for file in files],
    }
    out: Path = options.out
    make_folder(out, asked="--out")
    given.check_same_request(out, asked)
    settings = AskingSettings(
        task="augment", sampling=sampling, stop=(THINK_END,), seed=options.seed
    )
    written = _Written(tokenizer=chosen.tokenizer)
    with open_samples(out / given.REPLIES) as samples:
        asker = Asker(chosen.answerer, samples, settings=settings)
        documents = source_documents(files, key=options.json_key, most_words=options.most_words)
        augmented = _augmented(documents, asker, request=request, keeps_cut=options.keep_cut)
        _write(augmented, out, written=written, key=options.json_key)
        samples.settle(asker.names)
    write_json(out / given.MANIFEST, {"format": 1, "asked": asked, **written.to_json()})
    print("\n".join(written.lines(out)))
    return 0


def _write(
    augmented: Iterator[tuple[SourceDocument, str] | DroppedDocument],
    out: Path,
    *,
    written: _Written,
    key: str,
) -> None:
    """Both files, each whole or not at all."""
    with replacing(out / DOCUMENTS, "w") as good, replacing(out / given.DROPPED, "w") as bad:
        for found in augmented:
            if isinstance(found, DroppedDocument):
                written.dropped[found.reason] += 1
                bad.write(json.dumps(found.to_json()) + "\n")
                continue
            document, text = found
            written.add(document.text, text)
            row = document.row | {key: text, "augmented": {"document": document.id}}
            good.write(json.dumps(row, ensure_ascii=False) + "\n")
    written.count()


def _augmented(
    documents: Iterator[SourceDocument | DroppedDocument],
    asker: Asker,
    *,
    request: str,
    keeps_cut: bool,
) -> Iterator[tuple[SourceDocument, str] | DroppedDocument]:
    """Each row of the files in order: a document with its new text, or a drop with its reason."""
    for block in batched(documents, ASKED_AT_ONCE):
        questions = [
            Question(id=one.id, messages=thinking_messages(one.text, request))
            for one in block
            if isinstance(one, SourceDocument)
        ]
        replies = iter([reply for _, reply in asker.replies(questions)])
        for one in block:
            if isinstance(one, DroppedDocument):
                yield one
            else:
                yield _read(one, next(replies), keeps_cut=keeps_cut)


def _read(
    document: SourceDocument, reply: Generated | LostReply, *, keeps_cut: bool
) -> tuple[SourceDocument, str] | DroppedDocument:
    if isinstance(reply, LostReply):
        return document.dropped(reply.reason)
    found = read_thinking(
        Reply(text=reply.text, is_cut=reply.finish == "length"),
        document=document.text,
        keeps_cut=keeps_cut,
    )
    if isinstance(found, RejectedThinking):
        return document.dropped(str(found))
    return document, joined(document.text, found)


def _request(file: Path | None) -> str:
    """The text that asks.

    Raises: RecipeError for one without a place for the document.
    """
    if file is None:
        return REQUEST
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"--request {file}",
            found=f"no text can be read ({error})"[:120],
            rule="it is a file of text in UTF-8",
            do="correct the path",
        ) from error
    if text.count(DOCUMENT) != 1:
        raise RecipeError(
            f"--request {file}",
            found=f"{DOCUMENT} stands {text.count(DOCUMENT)} times in it",
            rule=f"{DOCUMENT} stands once, where the document goes",
            do="correct the file, or leave the flag out",
        )
    return text
