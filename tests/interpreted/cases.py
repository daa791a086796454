"""What is measured of mamba-ssm's kernels on a CPU; `python -m tests.interpreted.cases` prints it.

Distances are parts of the largest entry of what is compared with; `A by head` is that of the head
that is farthest from its own gradient.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.interpreted import kernels

kernels.prepare()

from frontload.megatron_ext import cpu  # noqa: E402

cpu.prepare()

from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # noqa: E402
from megatron.core.ssm.mamba_mixer import MambaMixer  # noqa: E402

from frontload.megatron_ext.checkpoints.save import Parts, load_weights, save_weights  # noqa: E402
from frontload.megatron_ext.model import stack  # noqa: E402
from frontload.megatron_ext.model.layers import DocumentResets, document_resets  # noqa: E402
from frontload.megatron_ext.model.ssd import Documents, ScanInputs, ssd_chunked  # noqa: E402
from frontload.megatron_ext.model.stack import build_model, initialise_weights  # noqa: E402
from frontload.megatron_ext.ranks.parallelism import join_groups, take_census  # noqa: E402
from frontload.megatron_ext.sizing.memory import ModelCut, layer_saved  # noqa: E402
from frontload.recipes.facts.pattern import Layer  # noqa: E402
from frontload.recipes.machines.cluster import MAMBA_SSM, TORCH  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from frontload.recipes.machines.precision import find_precision  # noqa: E402
from frontload.recipes.schema import Model  # noqa: E402
from tests.parity.reference_model import draw_weights, recurrence  # noqa: E402
from tests.training_inputs import tiny_model  # noqa: E402

NAMES = ("y", "final", "x", "dt", "A", "B", "C", "D", "initial")
Distances = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ScanCase:
    """Rows that the scan is run over, forward and backward."""

    name: str
    tokens: int = 40
    chunk: int = 16
    rows: int = 1
    heads: int = 2
    groups: int = 1
    documents: float = 0.0  # of the tokens, that begin one
    has_initial: bool = False
    dt_shift: float = -3.0
    decay: float = 8.0


SCANS = (
    ScanCase(name="one document"),
    ScanCase(name="documents", rows=2, documents=0.15),
    ScanCase(name="groups and states, odd length", tokens=37, heads=4, groups=2, has_initial=True),
    ScanCase(name="documents and states", documents=0.15, has_initial=True),
    ScanCase(name="chunks of 24", tokens=48, chunk=24),
    ScanCase(name="forgets in a token", tokens=32, dt_shift=2.0, decay=20.0),
)


def draw(case: ScanCase) -> tuple[list[Tensor], Tensor]:
    """x, dt, A, B, C, D and perhaps an initial state, in float64; and the documents' ids."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    row = (case.rows, case.tokens)
    state = (case.rows, *row[1:], case.groups, 16)
    tensors = [
        normal(*row, case.heads, 16),
        F.softplus(normal(*row, case.heads) + case.dt_shift),
        -(normal(case.heads).abs() * case.decay + 0.5),
        normal(*state),
        normal(*state),
        normal(case.heads),
    ]
    if case.has_initial:
        tensors.append(normal(case.rows, case.heads, 16, 16))
    starts = torch.rand(*row, generator=generator) < case.documents
    return tensors, starts.int().cumsum(1).int()


Scan = Callable[..., tuple[Tensor, Tensor]]


def run(scan: Scan, tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Values, final state and the gradient of every input, under the same weights of the loss."""
    inputs = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    y, final = scan(*inputs)
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=torch.float64)
    for value in (y, final):
        total = total + (value * torch.randn(value.shape, generator=generator)).sum()
    return [y.detach(), final.detach(), *torch.autograd.grad(total, inputs)]


def distance(found: Tensor, expected: Tensor) -> float:
    """Of the largest entry; what is no number is infinitely far."""
    error = float((found.double() - expected).abs().max() / expected.abs().max())
    return error if error == error else float("inf")


def distances(found: list[Tensor], expected: list[Tensor]) -> Distances:
    """Name -> distance."""
    by_name = {
        name: distance(one, other) for name, one, other in zip(NAMES, found, expected, strict=False)
    }
    by_head = ((found[4].double() - expected[4]) / expected[4]).abs().max()
    return by_name | {"A by head": float(by_head)}


def compare_scans(case: ScanCase) -> dict[str, Distances]:
    """mamba-ssm's kernels and our scan in float32, both against the recurrence in float64."""
    tensors, ids = draw(case)
    has_documents = case.documents > 0.0

    def token_by_token(x: Tensor, dt: Tensor, a: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        b, c, d, *initial = rest
        first = initial[0] if initial else None
        return recurrence(x, dt, a, b, c, D_H=d, document_ids_BS=ids, initial_BHEN=first)

    def theirs(x: Tensor, dt: Tensor, a: Tensor, *rest: Tensor) -> Any:
        b, c, d, *initial = rest
        return mamba_chunk_scan_combined(
            x, dt, a, b, c, case.chunk, D=d, seq_idx=ids if has_documents else None,
            initial_states=initial[0] if initial else None, return_final_states=True,
        )  # fmt: skip

    def ours(x: Tensor, dt: Tensor, a: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        b, c, d, *initial = rest
        return ssd_chunked(
            ScanInputs(x=x, dt=dt, A_H=a, B=b, C=c, D_H=d),
            chunk_tokens=case.chunk,
            documents=Documents(ids) if has_documents else None,
            initial_state_BHEN=initial[0] if initial else None,
        )

    exact = run(token_by_token, tensors, torch.float64)
    return {
        "mamba-ssm": distances(run(theirs, tensors, torch.float32), exact),
        "ours": distances(run(ours, tensors, torch.float32), exact),
    }


# ---------------------------------------------------------------- whole models


def build(model: Model, layers: str) -> Any:
    """A model of these kernels. `check_kernels` would find no CUDA device, and no bf16."""
    placement = Placement(kernels=layers)
    with mock.patch.object(stack, "check_kernels"):
        module: Any = build_model(model, placement, join_groups(placement), precision="fp32")
    take_census(module, model, placement, join_groups(placement))
    return module


def rows(model: Model, *, has_documents: bool) -> tuple[Tensor, DocumentResets | None]:
    """Two rows, and documents that end off the chunks."""
    tokens = torch.arange(62).view(2, 31) * 7 % model.vocab_size
    ids = torch.stack([torch.arange(31) // 9, torch.arange(31) // 13])
    return tokens, document_resets(ids) if has_documents else None


def outcome(module: Any, model: Model, *, has_documents: bool) -> dict[str, Tensor]:
    """Logits, loss and the gradient of every parameter."""
    tokens, resets = rows(model, has_documents=has_documents)
    module.zero_grad(set_to_none=True)
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    if resets is not None:
        assert resets.seq_idx is not None
        resets = document_resets(resets.seq_idx[:, :-1])
    logits = module(inputs, None, None, packed_seq_params=resets)
    # the logits once more, with the loss of each token: Megatron's own way to it
    loss = module(inputs, None, None, labels=labels, packed_seq_params=resets)
    weigh = torch.linspace(0.5, 1.5, loss.numel()).view_as(loss)
    (loss * weigh).sum().backward()
    gradients = {name: p.grad.double() for name, p in module.named_parameters()}
    return {"logits": logits.detach().double(), "loss": loss.detach().double()} | gradients


def compare_models(*, groups: int, has_documents: bool) -> Distances:
    """The model with Megatron's mixer on mamba-ssm's kernels against that of plain torch layers."""
    model = tiny_model(pattern="M*-", mamba_num_groups=groups, mamba_chunk_tokens=16)
    found = []
    for layers in (MAMBA_SSM, TORCH):
        module = build(model, layers)
        module.load_state_dict(draw_weights(model, seed=3), strict=False)
        is_theirs = type(module.decoder.layers[0].mixer) is MambaMixer
        assert is_theirs == (layers == MAMBA_SSM)
        found.append(outcome(module, model, has_documents=has_documents))
    assert found[0].keys() == found[1].keys()
    return {name: distance(value, found[1][name]) for name, value in found[0].items()}


def leak() -> float:
    """How far logits of packed documents are from those of the same rows without resets."""
    model = tiny_model(pattern="M")
    module = build(model, MAMBA_SSM)
    module.load_state_dict(draw_weights(model, seed=3), strict=False)
    tokens, resets = rows(model, has_documents=True)
    with torch.no_grad():
        logits = [module(tokens, None, None, packed_seq_params=one) for one in (resets, None)]
    return distance(logits[0], logits[1].double())


def move_checkpoints() -> Distances:
    """Weights of each model in the other, by names and shapes; logits after each move."""
    model = tiny_model(pattern="M*-")
    modules = {layers: build(model, layers) for layers in (TORCH, MAMBA_SSM)}
    for seed, module in enumerate(modules.values()):
        initialise_weights(module, model, seed)
    groups = join_groups(Placement())
    tokens, resets = rows(model, has_documents=True)
    found: Distances = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for source, target in ((TORCH, MAMBA_SSM), (MAMBA_SSM, TORCH)):
            initialise_weights(modules[target], model, 7)
            path = Path(folder) / source
            parts = [
                Parts(module=modules[name], optimizer=None, groups=groups)
                for name in (source, target)
            ]
            save_weights(path, parts[0], state={})
            load_weights(path, parts[1])
            logits = [
                modules[name](tokens, None, None, packed_seq_params=resets).double()
                for name in (target, source)
            ]
            found[f"{source} to {target}"] = distance(*logits)
            same = modules[source].state_dict()
            for name, tensor in modules[target].named_parameters():
                assert torch.equal(tensor, same[name]), name
    return found


def memory() -> Distances:
    """Bytes that a mixer and an attention layer keep, over those that `estimate` says."""
    model = tiny_model(
        pattern="M*", hidden_size=64, mamba_num_heads=8, mamba_head_dim=16, mamba_chunk_tokens=16
    )
    module = build(model, MAMBA_SSM)
    initialise_weights(module, model, 1)
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    size_B, size_S = 2, 64
    cut = ModelCut(
        precision=find_precision("fp32"), kernels=MAMBA_SSM, has_resets=True, sequence_tokens=size_S
    )
    resets = document_resets((torch.arange(size_S) // 24).expand(size_B, -1))
    found = {}
    for layer, (name, kind) in zip(
        module.decoder.layers, (("mixer", Layer.MAMBA), ("attention", Layer.ATTENTION)), strict=True
    ):
        hidden = torch.ones(size_S, size_B, model.hidden_size, requires_grad=True)
        with kernels.saved_bytes() as kept:
            layer(hidden, None, packed_seq_params=resets)
        counted = sum(size for place, size in kept.items() if place not in own)
        expected = layer_saved(model, kind, cut).activations * size_B * size_S
        found[name] = counted / expected
    return found


def main() -> None:
    """Everything, as one JSON object."""
    answers: dict[str, Any] = {"scans": {case.name: compare_scans(case) for case in SCANS}}
    answers["models"] = {
        "documents, 2 groups": compare_models(groups=2, has_documents=True),
        "one document, 1 group": compare_models(groups=1, has_documents=False),
    }
    answers["checkpoints"] = move_checkpoints()
    answers["memory"] = memory()
    answers["leak"] = leak()
    answers["launched"] = sorted(kernels.launched)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
