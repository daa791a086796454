"""A stranger's Hugging Face model as a decoder: transformers computes, our batches run it.

For models of full attention, whose cache holds keys and values alone.
"""

from copy import copy
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from frontload.megatron_ext.checkpoints.files import first_line
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.recipes.errors import ArtifactError, RecipeError


class TransformersState:
    """Keys and values of every layer, and each row's mask of slots in use and its length.

    Positions are in the keys already, so slots may be padded on either side.
    """

    def __init__(self, cache: Any, *, is_used_BS: Tensor, lengths_B: Tensor) -> None:
        self.cache = cache
        self.is_used_BS = is_used_BS
        self.lengths_B = lengths_B

    def copied(self, rows: Tensor) -> Self:
        """A state of its own with `rows`, in that order, with repeats."""
        made = copy(self)
        made.cache = copy(self.cache)
        made.cache.layers = [copy(layer) for layer in self.cache.layers]
        made.take(rows)
        return made

    def take(self, rows: Tensor) -> None:
        """Keeps `rows`, in that order, with repeats."""
        self.is_used_BS = self.is_used_BS.index_select(0, rows)
        self.lengths_B = self.lengths_B.index_select(0, rows)
        for layer in self.cache.layers:
            layer.keys = layer.keys.index_select(0, rows)
            layer.values = layer.values.index_select(0, rows)

    def join(self, other: Self) -> None:
        """Puts the rows of `other` below its own; no row keeps a slot that every row has empty."""
        self._pack()
        other._pack()
        size = max(self.is_used_BS.shape[1], other.is_used_BS.shape[1])
        self._pad(size)
        other._pad(size)
        self.is_used_BS = torch.cat([self.is_used_BS, other.is_used_BS])
        self.lengths_B = torch.cat([self.lengths_B, other.lengths_B])
        for layer, its in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.keys = torch.cat([layer.keys, its.keys])
            layer.values = torch.cat([layer.values, its.values])

    def reserve(self, num_tokens: int) -> None:
        """The cache grows by itself."""

    def _pack(self) -> None:
        """Moves each row's own slots to the end and drops the slots that no row uses."""
        size = int(self.is_used_BS.sum(1).max())
        order_BS = self.is_used_BS.to(torch.uint8).argsort(stable=True, dim=1)[:, -size:]
        self.is_used_BS = self.is_used_BS.gather(1, order_BS)
        for layer in self.cache.layers:
            _, heads, _, width = layer.keys.shape
            slots = order_BS[:, None, :, None].expand(-1, heads, -1, width)
            layer.keys, layer.values = layer.keys.gather(2, slots), layer.values.gather(2, slots)

    def _pad(self, size: int) -> None:
        missing = size - self.is_used_BS.shape[1]
        self.is_used_BS = F.pad(self.is_used_BS, (missing, 0))
        for layer in self.cache.layers:
            layer.keys = F.pad(layer.keys, (0, 0, missing, 0))
            layer.values = F.pad(layer.values, (0, 0, missing, 0))


class TransformersDecoder:
    """What `inference.generate.Decoder` does, by a model of transformers."""

    def __init__(self, model: Any) -> None:
        self.table_VD: Tensor = model.get_input_embeddings().weight
        self._body = model.base_model
        self._head = model.get_output_embeddings()

    def full(
        self,
        tokens_BS: Tensor,
        lengths_B: Tensor,
        *,
        before: list[TransformersState] | None = None,
    ) -> tuple[Tensor, list[TransformersState]]:
        """Hidden states before the output layer, and the state after each row's last token.

        With `before` the rows go on from its one state, which is used up.
        """
        slots_S = torch.arange(tokens_BS.shape[1], device=tokens_BS.device)
        is_used_BS = slots_S < lengths_B[:, None]
        positions_BS, cache = slots_S[None].expand_as(tokens_BS), None
        if before is not None:
            (known,) = before
            cache = known.cache
            is_used_BS = torch.cat([known.is_used_BS, is_used_BS], 1)
            positions_BS = known.lengths_B[:, None] + slots_S
            lengths_B = known.lengths_B + lengths_B
        found = self._body(
            input_ids=tokens_BS,
            attention_mask=is_used_BS.long(),
            position_ids=positions_BS,
            past_key_values=cache,
            use_cache=True,
        )
        state = TransformersState(found.past_key_values, is_used_BS=is_used_BS, lengths_B=lengths_B)
        return found.last_hidden_state, [state]

    def step(self, tokens_B: Tensor, states: list[TransformersState]) -> Tensor:
        """Logits after one more token in each row; the state moves on."""
        (state,) = states
        state.is_used_BS = F.pad(state.is_used_BS, (0, 1), value=True)
        found = self._body(
            input_ids=tokens_B[:, None],
            attention_mask=state.is_used_BS.long(),
            position_ids=state.lengths_B[:, None],
            past_key_values=state.cache,
            use_cache=True,
        )
        state.lengths_B = state.lengths_B + 1
        return self.logits(found.last_hidden_state[:, -1])

    def logits(self, hidden_TD: Tensor) -> Tensor:
        return self._head(hidden_TD)


def load_transformers(folder: Path) -> LanguageModel:
    """A Hugging Face folder as a language model, in float32 on a CPU, else as it was stored.

    No code of the folder is run: the classes are those of the installed transformers.

    Raises: RecipeError for a folder that is none, or a model that this decoder does not fit;
            ArtifactError for one that does not load.
    """
    import transformers  # 3 CPU seconds

    if not (folder / "config.json").is_file():
        raise RecipeError(
            f"hf:{folder}",
            found="no config.json",
            rule="a model of transformers is the folder that `save_pretrained` writes",
            do="correct the path",
        )
    is_cuda = torch.cuda.is_available()
    try:
        found: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            output_loading_info=True,
            dtype="auto" if is_cuda else torch.float32,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise _not_loaded(folder, f"{type(error).__name__}: {first_line(error)}") from error
    model, loaded = found
    if lost := sorted([*loaded["missing_keys"], *loaded["mismatched_keys"]], key=str):
        raise _not_loaded(folder, f"{lost[0]} is missing: it would be drawn anew")
    model = model.eval().to("cuda" if is_cuda else "cpu")
    _check_fit(model, folder)
    return LanguageModel.of_decoder(
        TransformersDecoder(model),
        vocab_size=model.get_output_embeddings().weight.shape[0],
        max_sequence_tokens=model.config.max_position_embeddings,
    )


def _not_loaded(folder: Path, found: str) -> ArtifactError:
    return ArtifactError(
        f"hf:{folder}",
        found=f"it does not load ({found})",
        rule="transformers loads every weight with classes of its own, from safetensors",
        do="save it again with `save_pretrained`, or fetch it again",
    )


def _check_fit(model: Any, folder: Path) -> None:
    """A cache of keys and values of all tokens in every layer, and logits that are a product."""
    with torch.inference_mode():
        tokens_BS = torch.tensor([[1, 2, 3]], device=model.device)
        found = model(input_ids=tokens_BS, use_cache=True)
        decoder = TransformersDecoder(model)
        hidden_BSD, (state,) = decoder.full(tokens_BS, torch.tensor([3], device=model.device))
        is_same = torch.allclose(decoder.logits(hidden_BSD), found.logits, atol=1e-3, rtol=1e-3)
    layers = getattr(state.cache, "layers", [])
    kinds = {type(layer).__name__ for layer in layers} or {type(state.cache).__name__}
    if kinds == {"DynamicLayer"} and is_same:
        return
    raise RecipeError(
        f"hf:{folder}",
        found=f"a {type(model).__name__} with a cache of {', '.join(sorted(kinds))}"
        + ("" if is_same else ", whose logits are more than a product"),
        rule="models of full attention in every layer are run here",
        do="ask it behind a server: `frontload eval http://...`; vLLM serves any",
    )
