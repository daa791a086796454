"""What mamba-ssm's kernels need before their import on a CPU; called in a process of its own.

`make environment` installs the Python of mamba-ssm and causal-conv1d into .venv/interpreted, out of
sight of every other process: without their compiled parts neither can be imported. The interpreter
runs Triton; three compiled functions, which it cannot run, have stand-ins here. Megatron's mixer
calls two of them, the convolution forward and backward; torch's attention by lengths is the third.
"""

import contextlib
import itertools
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FOLDER = Path(sys.prefix) / "interpreted"
ENVIRONMENT = {
    "TRITON_INTERPRET": "1",
    "MAMBA_DETERMINISTIC": "1",  # one configuration a kernel: to choose among several needs a clock
}
launched: set[str] = set()
"""Names of the Triton kernels that ran."""


def prepare() -> None:
    """Lets mamba_ssm and causal_conv1d be imported here, with the kernels interpreted."""
    assert ENVIRONMENT.items() <= os.environ.items()
    assert not torch.cuda.is_available()
    sys.path.insert(0, str(FOLDER))
    sys.modules["selective_scan_cuda"] = types.ModuleType(
        "selective_scan_cuda"
    )  # Mamba-1's: unused
    sys.modules["causal_conv1d_cuda"] = _convolution()
    device: Any = contextlib.nullcontext  # kernels are launched on the device of their inputs
    torch.cuda.device = device
    processors = types.SimpleNamespace(multi_processor_count=4)  # rows of the norm's gradient
    torch.cuda.get_device_properties = lambda *_: processors  # type: ignore[assignment]
    _record_launches()
    _attend_by_lengths()


def _record_launches() -> None:
    from triton.runtime.interpreter import InterpretedFunction

    run = InterpretedFunction.run

    def run_and_record(self: Any, *args: Any, **options: Any) -> Any:
        launched.add(self.fn.__name__)
        return run(self, *args, **options)

    InterpretedFunction.run = run_and_record


def _convolution() -> types.ModuleType:
    """causal-conv1d's extension in torch: rows [B, C, S], documents by `seq_idx`, SiLU."""

    def taps(x: Tensor, ids: Tensor | None, width: int) -> list[Tensor]:
        """What each tap reads, the farthest first."""
        found = [x]
        for back in range(1, width):
            seen = F.pad(x, (back, 0))[..., : x.shape[-1]]
            if ids is not None:
                seen = seen * F.pad(ids[:, back:] == ids[:, :-back], (back, 0))[:, None]
            found.append(seen)
        return found[::-1]

    def before_silu(read: list[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
        return sum((r * weight[:, at, None] for at, r in enumerate(read)), bias[:, None])

    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, ids: Any, states: Any, out: Tensor, *rest: Any
    ) -> None:
        assert states is None
        assert rest == (None, True), "no final state, with SiLU"
        out.copy_(F.silu(before_silu(taps(x, ids, weight.shape[1]), weight, bias)))

    def backward(
        x: Tensor, weight: Tensor, bias: Tensor, dout: Tensor, ids: Any, states: Any, *rest: Any
    ) -> None:
        dfinal, dx, dweight, dbias, dstates, has_silu = rest
        assert states is dfinal is dstates is None
        assert has_silu
        read = taps(x, ids, weight.shape[1])
        z = before_silu(read, weight, bias)
        share = z.sigmoid()
        dz = dout * (share + z * share * (1.0 - share))
        dbias.copy_(dz.sum((0, 2)))
        dx.zero_()
        for at, one in enumerate(read):
            dweight[:, at] = (dz * one).sum((0, 2))
            back, reached = len(read) - 1 - at, dz * weight[:, at, None]
            if back and ids is not None:
                reached = reached * F.pad(ids[:, back:] == ids[:, :-back], (back, 0))[:, None]
            dx[..., : x.shape[-1] - back] += reached[..., back:]

    module: Any = types.ModuleType("causal_conv1d_cuda")
    module.causal_conv1d_fwd, module.causal_conv1d_bwd = forward, backward
    return module


def _attend_by_lengths() -> None:
    """The kernels below torch's `varlen_attn`, whose own checks and derivative stay its own."""
    from torch.nn.attention import varlen

    def documents(bounds: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Of each document its tokens, heads first."""
        for low, high in itertools.pairwise(bounds.tolist()):
            yield tuple(tensor[low:high].transpose(0, 1) for tensor in tensors)

    def shares(q: Tensor, k: Tensor, scale: float) -> Tensor:
        scores = (q @ k.transpose(1, 2)) * scale
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return scores.masked_fill(later, -torch.inf).softmax(-1)

    def back_together(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, 1).transpose(0, 1).contiguous()

    def check(q: Tensor, bounds: Tensor, longest: int, is_causal: bool) -> None:
        assert is_causal
        assert bounds.dtype == torch.int32
        assert (int(bounds[0]), int(bounds[-1])) == (0, len(q))
        assert longest == int(bounds.diff().max())

    def forward(
        q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, key_bounds: Any, *rest: Any, **_: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        longest, key_longest, is_causal, scale = rest[:4]
        check(q, bounds, longest, is_causal)
        assert torch.equal(bounds, key_bounds)
        assert longest == key_longest
        scale = scale or q.shape[-1] ** -0.5
        out = [shares(q, k, scale) @ v for q, k, v in documents(bounds, q, k, v)]
        sums = q.new_zeros(q.shape[1], len(q))
        return back_together(out), sums, torch.zeros(2, dtype=torch.uint64)

    def backward(
        dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Any, sums: Any, bounds: Tensor,
        *rest: Any, **_: Any,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        del out, sums
        _, longest, _, is_causal, _, scale = rest[:6]
        check(q, bounds, longest, is_causal)
        scale = scale or q.shape[-1] ** -0.5
        found: list[tuple[Tensor, ...]] = []
        for dy, query, key, value in documents(bounds, dout, q, k, v):
            share = shares(query, key, scale)
            dshare = dy @ value.transpose(1, 2)
            dscores = share * (dshare - (dshare * share).sum(-1, keepdim=True)) * scale
            by_key, dvalue = dscores.transpose(1, 2), share.transpose(1, 2) @ dy
            found.append((dscores @ key, by_key @ query, dvalue))
        return tuple(back_together(list(parts)) for parts in zip(*found, strict=True))

    varlen._varlen_attn.register_kernel("cpu")(forward)
    varlen._varlen_attn_backward.register_kernel("cpu")(backward)


@contextlib.contextmanager
def saved_bytes() -> Iterator[dict[int, int]]:
    """Storages that autograd keeps of what runs meanwhile, and their bytes."""
    kept: dict[int, int] = {}
    held: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept
