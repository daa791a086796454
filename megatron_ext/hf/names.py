"""Which tensor of a Megatron checkpoint is which tensor of Hugging Face `nemotron_h`. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass

from frontload.recipes.facts.pattern import NUM_CONV_TAPS, Layer, parse_pattern
from frontload.recipes.schema import Model

TABLE = "embedding.word_embeddings.weight"

FUSED_NORMS = {
    "norm.weight": "mixer.in_proj.layer_norm_weight",
    "input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight",
    "pre_mlp_layernorm.weight": "mlp.linear_fc1.layer_norm_weight",
}
"""A layer's norm where it stands alone -> where Transformer Engine keeps it, inside the linear
after it (megatron/core/extensions/transformer_engine.py, TELayerNormColumnParallelLinear)."""

ALIASES = (
    ("model.", "backbone."),  # the names of the modules, in a state dict that nobody renamed
    ("backbone.embedding.", "backbone.embeddings."),  # as transformers 5.10 saves it
)
"""Beginnings of names that other writers use -> ours."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One tensor of a file."""

    name: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Numbers in it."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, kw_only=True)
class Link:
    """The same numbers on both sides.

    The rows of the Megatron tensors one after another are the rows of the Hugging Face tensors,
    unless `is_qkv`: Megatron keeps queries, key and value of one group together.
    """

    megatron: tuple[Slot, ...]
    hf: tuple[Slot, ...]
    is_qkv: bool = False
    state: str = ""  # Megatron's module with an (empty) extra state, saved after its weight
    is_copy: bool = False  # Hugging Face holds the numbers a second time


@dataclass(frozen=True, kw_only=True)
class Group:
    """What is in memory at one time: one layer, or a table."""

    label: str
    links: tuple[Link, ...]


def groups(model: Model) -> Iterator[Group]:
    """Every tensor of the model, group after group, in the order of Megatron's state dict."""
    table = (model.vocab_size, model.hidden_size)
    yield Group(label="embeddings", links=(_same(TABLE, "backbone.embeddings.weight", table),))
    by_kind = {Layer.MAMBA: _mamba, Layer.ATTENTION: _attention, Layer.MLP: _mlp}
    for index, kind in enumerate(parse_pattern(model.pattern)):
        at = (f"decoder.layers.{index}.", f"backbone.layers.{index}.")
        yield Group(label=f"layer {index}", links=by_kind[kind](model, *at))
    width = (model.hidden_size,)
    norm = _same("decoder.final_norm.weight", "backbone.norm_f.weight", width)
    yield Group(label="final norm", links=(norm,))
    if model.tie_embeddings:
        head = Link(
            megatron=(Slot(name=TABLE, shape=table),),
            hf=(Slot(name="lm_head.weight", shape=table),),
            state="output_layer",
            is_copy=True,
        )
    else:
        head = _same("output_layer.weight", "lm_head.weight", table, state="output_layer")
    yield Group(label="output", links=(head,))


def stored_name(name: str, stored: dict[str, tuple[int, ...]]) -> str:
    """The key that a checkpoint has for `name`: with Transformer Engine, norms are elsewhere."""
    if name in stored or not name.startswith("decoder.layers."):
        return name
    _, _, index, rest = name.split(".", 3)
    fused = f"decoder.layers.{index}.{FUSED_NORMS.get(rest, '')}"
    return fused if fused in stored else name


def our_name(name: str) -> str:
    """The name that we write for a tensor that another writer may have called differently."""
    for theirs, ours in ALIASES:
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
    return name


def _same(megatron: str, hf: str, shape: tuple[int, ...], *, state: str = "") -> Link:
    return Link(
        megatron=(Slot(name=megatron, shape=shape),),
        hf=(Slot(name=hf, shape=shape),),
        state=state,
    )


def _rows(
    megatron: str, hf: str, rows: dict[str, int], rest: tuple[int, ...], *, state: str = ""
) -> Link:
    """Blocks that Megatron stores one by one, so that each can be cut by rank."""
    parts = tuple(Slot(name=f"{megatron}.{part}", shape=(n, *rest)) for part, n in rows.items())
    return Link(
        megatron=parts,
        hf=(Slot(name=hf, shape=(sum(rows.values()), *rest)),),
        state=state,
    )


def _mamba(model: Model, megatron: str, hf: str) -> tuple[Link, ...]:
    width, heads = model.hidden_size, model.mamba_num_heads
    inner, states = heads * model.mamba_head_dim, model.mamba_num_groups * model.mamba_state_dim
    conv = {"x": inner, "B": states, "C": states}
    projected = {"z": inner, **conv, "dt": heads}
    mixer, to = f"{megatron}mixer.", f"{hf}mixer."
    return (
        _rows(f"{mixer}conv1d.weight", f"{to}conv1d.weight", conv, (1, NUM_CONV_TAPS)),
        _rows(f"{mixer}conv1d.bias", f"{to}conv1d.bias", conv, ()),
        _same(f"{mixer}dt_bias", f"{to}dt_bias", (heads,)),
        _same(f"{mixer}A_log", f"{to}A_log", (heads,)),
        _same(f"{mixer}D", f"{to}D", (heads,)),
        _rows(
            f"{mixer}in_proj.weight",
            f"{to}in_proj.weight",
            projected,
            (width,),
            state=f"{mixer}in_proj",
        ),
        _same(f"{mixer}norm.weight", f"{to}norm.weight", (inner,)),
        _same(
            f"{mixer}out_proj.weight",
            f"{to}out_proj.weight",
            (width, inner),
            state=f"{mixer}out_proj",
        ),
        _same(f"{megatron}norm.weight", f"{hf}norm.weight", (width,)),
    )


def _attention(model: Model, megatron: str, hf: str) -> tuple[Link, ...]:
    width, channels = model.hidden_size, model.kv_channels
    queries, keys = model.num_attention_heads * channels, model.num_query_groups * channels
    part = f"{megatron}self_attention."
    sizes = {"q": queries, "k": keys, "v": keys}
    return (
        _same(f"{megatron}input_layernorm.weight", f"{hf}norm.weight", (width,)),
        _same(
            f"{part}linear_proj.weight",
            f"{hf}mixer.o_proj.weight",
            (width, queries),
            state=f"{part}linear_proj",
        ),
        Link(
            megatron=(Slot(name=f"{part}linear_qkv.weight", shape=(queries + 2 * keys, width)),),
            hf=tuple(
                Slot(name=f"{hf}mixer.{letter}_proj.weight", shape=(rows, width))
                for letter, rows in sizes.items()
            ),
            is_qkv=True,
            state=f"{part}linear_qkv",
        ),
    )


def _mlp(model: Model, megatron: str, hf: str) -> tuple[Link, ...]:
    width, inner = model.hidden_size, model.ffn_hidden_size
    first, second = f"{megatron}mlp.linear_fc1", f"{megatron}mlp.linear_fc2"
    up, down = f"{hf}mixer.up_proj.weight", f"{hf}mixer.down_proj.weight"
    return (
        _same(f"{megatron}pre_mlp_layernorm.weight", f"{hf}norm.weight", (width,)),
        _same(f"{first}.weight", up, (inner, width), state=first),
        _same(f"{second}.weight", down, (width, inner), state=second),
    )
