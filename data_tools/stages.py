"""The stage functions of the data room: wiring from recipe and inputs to files."""

from collections.abc import Iterator
from itertools import batched, chain
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools import curate as curating
from frontload.data_tools import pack as packing
from frontload.data_tools import tokenizer as tokenizers
from frontload.data_tools.blending.ledger import plan_readings
from frontload.data_tools.blending.phases import PhaseFolder, write_phases
from frontload.data_tools.blending.source import read_source
from frontload.data_tools.blending.windows import Reading
from frontload.data_tools.disk.files import read_json, replacing, write_array
from frontload.data_tools.disk.indexed import IndexedWriter, token_dtype
from frontload.data_tools.document import (
    BaseText,
    Conversation,
    read_objects,
    read_rows,
    write_rows,
)
from frontload.data_tools.render import Rendered, encode_documents, encode_rows
from frontload.data_tools.tokenizer import TextTokenizer
from frontload.recipes.artifact import (
    CORPUS_SETS,
    Inputs,
    Workspace,
    corpus_heldout,
    corpus_items,
    corpus_set,
    documents_file,
    index_prefix,
    prompts_file,
    tokenizer_file,
    write_json,
)
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import (
    Blend,
    Index,
    Mix,
    OwnData,
    Pack,
    RlPrompts,
    Synthesis,
    Tokenizer,
)

BATCH_ROWS = 2048


def synthesize(recipe: Synthesis, inputs: Inputs, work: Workspace) -> None:
    """Writes the procedural corpus and its held-out items."""
    from frontload.data_tools.synthetic.corpus import write_corpus

    write_corpus(recipe, work.path)


def write_rl_prompts(recipe: RlPrompts, inputs: Inputs, work: Workspace) -> None:
    """Draws the prompts of reinforcement learning and counts those that training text holds too."""
    from frontload.data_tools.synthetic.rl_prompts import prompt_counts, write_prompts

    corpus = inputs["corpus"]
    prompts = list(write_prompts(recipe))
    trained = (row for name in ("ldq", "shq") for row in read_rows(corpus_set(corpus, name)))
    write_rows(prompts_file(work.path), prompts)
    write_json(work.path / "counts.json", prompt_counts(prompts, trained))


def import_own(recipe: OwnData, inputs: Inputs, work: Workspace) -> None:
    """Reads a user's files into the form of the corpus."""
    from frontload.data_tools.own_data import write_own_corpus

    write_own_corpus(recipe, work.path)


def train_tokenizer(recipe: Tokenizer, inputs: Inputs, work: Workspace) -> None:
    """Trains the tokenizer on the corpus's training sets and counts unknown words of its items."""
    corpus = inputs["corpus"]
    files = [corpus_set(corpus, name) for name in CORPUS_SETS if corpus_set(corpus, name).is_file()]
    if not files:
        raise RecipeError(
            f"tokenizer from corpus {corpus.name}",
            found="none of its training sets",
            rule=f"a corpus holds one or more of {', '.join(CORPUS_SETS)}",
            do="run the corpus stage again",
        )
    trained = tokenizers.train(recipe, files)
    counts: dict[str, Any] = {
        "format": 1,
        "kind": recipe.kind,
        "vocab_size": trained.tokenizer.vocab_size,
        "special_tokens": list(tokenizers.SPECIAL_TOKENS),
        "distinct_words": trained.distinct_words,
        "texts": trained.texts,
        "unknown": {
            file.stem: _count_unknown(trained.tokenizer, file)
            for file in (corpus_items(corpus), corpus_heldout(corpus))
            if file.is_file()
        },
    }
    write_json(work.path / "counts.json", counts)
    with replacing(tokenizer_file(work.path), "w") as stream:
        stream.write(trained.tokenizer.to_json())


def _count_unknown(tokenizer: TextTokenizer, file: Path) -> dict[str, int]:
    """Texts, tokens and unknown tokens in the evaluation texts of a file."""
    counts = {"texts": 0, "tokens": 0, "unknown_tokens": 0}
    rows = (row for _, row in read_objects(file))
    for chunk in batched(rows, BATCH_ROWS):
        texts = [text for row in chunk for text in _texts_inside(row)]
        for ids in tokenizer.encode_batch(texts):
            counts["texts"] += 1
            counts["tokens"] += len(ids)
            counts["unknown_tokens"] += ids.count(tokenizers.UNKNOWN)
    return counts


def _texts_inside(value: Any) -> Iterator[str]:
    read_fields = ("question", "trace", "answer", "context", "options", "exemplars")
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts_inside(part)
    elif isinstance(value, dict):
        for name in read_fields:
            yield from _texts_inside(value.get(name))


def curate(recipe: Mix, inputs: Inputs, work: Workspace) -> None:
    """Writes one named mix of corpus sets and its composition."""
    composition = curating.write_documents(
        recipe,
        inputs["corpus"],
        tokenizer=TextTokenizer.load(inputs["tokenizer"]),
        file=documents_file(work.path),
    )
    write_json(work.path / "composition.json", composition.to_json(recipe.name))


def index(recipe: Index, inputs: Inputs, work: Workspace) -> None:
    """Writes every document's tokens as a Megatron .bin/.idx pair."""
    if recipe.source:
        from frontload.data_tools.raw_stages import index_raw

        index_raw(recipe, inputs, work)
        return
    tokenizer = TextTokenizer.load(inputs["tokenizer"])
    dtype = token_dtype(tokenizer.vocab_size)
    num_tokens = unknown = longest = 0
    with IndexedWriter(index_prefix(work.path), dtype) as writer:
        rows = read_rows(documents_file(inputs["documents"]))
        for chunk in batched(rows, BATCH_ROWS):
            documents = encode_documents(tokenizer, chunk, append_eod=recipe.append_eod)
            lengths = np.array([len(document) for document in documents])
            tokens = np.fromiter(chain.from_iterable(documents), np.int32, int(lengths.sum()))
            writer.add_documents(tokens, lengths)
            num_tokens += len(tokens)
            unknown += int((tokens == tokenizers.UNKNOWN).sum())
            longest = max(longest, int(lengths.max()))
        num_documents = writer.num_documents
    counts = {
        "format": 1,
        "num_documents": num_documents,
        "num_tokens": num_tokens,
        "longest_document_tokens": longest,
        "unknown_tokens": unknown,
        "dtype": dtype.name,
        "vocab_size": tokenizer.vocab_size,
        "append_eod": recipe.append_eod,
    }
    write_json(work.path / "index.json", counts)


def blend(recipe: Blend, inputs: Inputs, work: Workspace) -> None:
    """Writes the windows, the order of documents and the order of samples of one phase."""
    sources = {
        role: read_source(role, index_prefix(folder))
        for role, folder in inputs.items()
        if role != "before"
    }
    earlier: list[Reading] = []
    if "before" in inputs:
        earlier = plan_readings(read_json(inputs["before"] / "plan.json"))
    write_phases([PhaseFolder(recipe=recipe, folder=work.path)], sources, earlier=earlier)


def pack(recipe: Pack, inputs: Inputs, work: Workspace) -> None:
    """Writes packed SFT rows: a sequence is a conversation, a document is a row."""
    if recipe.source:
        from frontload.data_tools.raw_stages import pack_raw

        pack_raw(recipe, inputs, work)
        return
    packing.check_pack(recipe)
    tokenizer = TextTokenizer.load(inputs["tokenizer"])
    rendered, families = _render_conversations(documents_file(inputs["documents"]), tokenizer)
    lengths = [len(conversation.tokens_S) for conversation in rendered]
    packed = packing.pack_lengths(lengths, row_tokens=recipe.sequence_tokens + 1, seed=recipe.seed)
    if not packed.rows:
        raise RecipeError(
            "pack.sequence_tokens",
            found=f"{recipe.sequence_tokens}, and the shortest of {len(lengths)} conversations has"
            f" {min(lengths, default=0)} tokens",
            rule="at least one conversation fits a row (sequence_tokens + 1)",
            do=f"write {max(min(lengths, default=2) - 1, 1)} or more",
        )
    with (
        IndexedWriter(work.path / "tokens", token_dtype(tokenizer.vocab_size)) as tokens,
        IndexedWriter(work.path / "loss_mask", np.dtype(np.uint8)) as loss_mask,
    ):
        for row in packed.rows:
            parts = [rendered[number] for number in row]
            part_lengths = [len(part.tokens_S) for part in parts]
            tokens.add_document(np.concatenate([part.tokens_S for part in parts]), part_lengths)
            masks = np.concatenate([part.loss_mask_S for part in parts])
            loss_mask.add_document(masks, part_lengths)
    num_samples = recipe.tokens // recipe.sequence_tokens
    write_array(
        work.path / "order.npy",
        packing.order_rows(len(packed.rows), num_samples, seed=recipe.seed),
    )
    counts = packing.pack_json(recipe, packed, rendered=rendered, families=families)
    write_json(work.path / "pack.json", counts)


def _render_conversations(file: Path, tokenizer: TextTokenizer) -> tuple[list[Rendered], list[str]]:
    rendered: list[Rendered] = []
    families: list[str] = []
    for chunk in batched(read_rows(file), BATCH_ROWS):
        for row in chunk:
            if isinstance(row, BaseText):
                raise RecipeError(
                    f"packing document {row.id}",
                    found="base text",
                    rule="SFT packs conversations: a question and its answer",
                    do="take base out of the mix's members",
                )
            assert isinstance(row, Conversation)
            families.append(row.family)
        rendered.extend(encode_rows(tokenizer, chunk))
    return rendered, families
