"""Checkpoints of any size without Megatron, and a small tokenizer file, to convert in tests."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from frontload.megatron_ext.checkpoints.files import write_model
from frontload.megatron_ext.hf.megatron import CheckpointWriter
from frontload.megatron_ext.hf.names import groups
from frontload.recipes.schema import Model

SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|answer|>", "<|unk|>")


def write_checkpoint(
    folder: Path, model: Model, *, dtype: torch.dtype = torch.float32, scale: float = 1.0
) -> Path:
    """A checkpoint artifact of normal numbers of spread `scale`, written tensor by tensor."""
    (folder / "weights").mkdir()
    links = [link for group in groups(model) for link in group.links if not link.is_copy]
    slots = [slot for link in links for slot in link.megatron]
    generator = torch.Generator().manual_seed(1)
    with CheckpointWriter(folder / "weights") as writer:
        for slot in slots:
            writer.declare(slot.name, slot.shape, dtype)
        for slot in slots:
            numbers = torch.randn(slot.shape, generator=generator) * scale
            writer.write_tensor(slot.name, numbers.to(dtype))
        writer.finish()
    write_model(folder, model)
    return folder


def write_tokenizer_file(file: Path, *, special: tuple[str, ...] = SPECIAL_TOKENS) -> Path:
    words = [*special, "what", "is", "3", "+", "4", "7"]
    vocabulary = {word: number for number, word in enumerate(words)}
    library = Tokenizer(models.WordLevel(vocabulary, unk_token=special[-1]))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens([AddedToken(token, special=True) for token in special])
    library.save(str(file))
    return file
