"""Small indexes and a recipe over them: 40 documents of base, 12 of ldq, 5 of shq."""

import json
from pathlib import Path

import numpy as np

from frontload.data_tools.disk.indexed import IndexedReader, IndexedWriter

S = 16
DOCUMENTS = {"base": 40, "ldq": 12, "shq": 5}

RECIPE = """
seed: 3
sequence_tokens: 16
global_batch_sequences: 1
sources:
  base: {reading: one_pass, max_epochs: 1, declared_tokens: 100_000, declared_samples: 0}
  ldq: {reading: one_pass, max_epochs: 1, declared_tokens: 50_000, declared_samples: 500}
  shq: {reading: repeatable, max_epochs: 4, declared_tokens: 20_000, declared_samples: 10}
mixes:
  lmq: {members: [ldq, shq], weighting: token}
phases:
  a: {tokens: 400, shares: {base: 1}}
  b: {tokens: 480, shares: {base: 0.6, lmq: 2/5}}
"""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text)
    return file


def write_source(
    prefix: Path, num_documents: int, *, dtype: type[np.generic] = np.uint16, parts: int = 1
) -> Path:
    """Documents of 20 to 59 tokens, each cut into `parts` sequences."""
    rng = np.random.default_rng(num_documents)
    with IndexedWriter(prefix, np.dtype(dtype)) as writer:
        for number in range(num_documents):
            length = 20 + number * 7 % 40
            tokens = rng.integers(0, 100, length).astype(dtype)
            cuts = [length // parts] * (parts - 1)
            writer.add_document(tokens, [*cuts, length - sum(cuts)])
    return prefix


def write_sources(folder: Path) -> dict[str, Path]:
    return {name: write_source(folder / name, count) for name, count in DOCUMENTS.items()}


def given(prefixes: dict[str, Path]) -> list[str]:
    """The command line's --index with every source."""
    return ["--index", *(f"{name}={prefix}" for name, prefix in prefixes.items())]


def phase_inputs(folder: Path, prefixes: dict[str, Path]) -> list[list[int]]:
    """Inputs and label of every sample of a phase's folder, read from the files alone."""
    plan = json.loads((folder / "plan.json").read_text())
    streams = []
    for source in plan["sources"]:
        reader = IndexedReader(prefixes[source["name"]])
        order = np.load(folder / f"{source['name']}.order.npy")
        streams.append(np.concatenate([reader.document(int(one)) for one in order]))
    size = plan["sequence_tokens"]
    samples = np.load(folder / "samples.npy")
    return [streams[number][at : at + size + 1].tolist() for number, at in samples]
