"""Masks of sparse pretraining: which weights of the layers' matrices stay 0, and that they do."""

import zlib
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.hybrid.hybrid_model import HybridModel
from torch import Tensor

from frontload.megatron_ext.model.stack import global_names, own_part, whole_shape
from frontload.recipes.errors import ArtifactError
from frontload.recipes.facts.census import masked_of

MATRICES = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2", "in_proj", "out_proj")
"""What is masked: the products of every layer. Embedding, output, norms, biases, the convolution
and the small tensors of a Mamba layer stay dense.

Source: Thangarasu et al. 2023 (SPDF), arXiv 2303.10464: a static random mask of uniform sparsity.
Differs: theirs is of GPT alone; a Mamba layer's two projections are masked here in the same way.
"""


@dataclass(frozen=True, kw_only=True)
class MaskedWeight:
    """One matrix of this rank, and where it stays 0."""

    parameter: Any  # with Megatron's main_grad
    is_masked: Tensor  # bool, the shape of this rank's part


class WeightMasks:
    """The masks of one rank's matrices; none of them where nothing is masked.

    A mask follows from the seed and the global name of its matrix, so it is in no checkpoint: it is
    the same in each phase of a pretraining, after a kill, and at any TP and PP.
    """

    def __init__(self, module: HybridModel, *, sparsity: float, seed: int) -> None:
        self._weights: list[MaskedWeight] = []
        group = module.pg_collection.tp
        for name, parameter in global_names(module).items() if sparsity else ():
            if name.split(".")[-2:] not in [[matrix, "weight"] for matrix in MATRICES]:
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/mask/{name}".encode()))
            whole = torch.rand(whole_shape(parameter, group.size()), generator=generator)
            is_masked = torch.zeros(whole.numel(), dtype=torch.bool)
            chosen = whole.flatten().argsort(stable=True)[: masked_of(whole.numel(), sparsity)]
            is_masked[chosen] = True
            part = own_part(is_masked.view(whole.shape), parameter, tp_group=group)
            self._weights.append(
                MaskedWeight(parameter=parameter, is_masked=part.to(parameter.device))
            )

    def clear_weights(self) -> None:
        """Sets the masked weights to 0."""
        with torch.no_grad():
            for one in self._weights:
                one.parameter.masked_fill_(one.is_masked, 0.0)

    def clear_gradients(self) -> None:
        """Sets the summed gradients of the masked weights to 0, before they are clipped.

        AdamW then never moves them: their moments stay 0, and a decay of 0 is 0.
        """
        for one in self._weights:
            one.parameter.main_grad.masked_fill_(one.is_masked, 0.0)

    def refuse_dense(self, start: str) -> None:
        """Refuses loaded weights that are not 0 under the masks. Every rank sees all counts.

        Raises: ArtifactError for a start that was trained without this mask.
        """
        if not self._weights:
            return
        found = sum(int(one.parameter[one.is_masked].count_nonzero()) for one in self._weights)
        count = torch.tensor(found, device=self._weights[0].is_masked.device)
        if dist.get_world_size() > 1:
            dist.all_reduce(count)
        if int(count):
            raise ArtifactError(
                f"checkpoint {start}",
                found=f"{int(count)} weights under the mask are not 0",
                rule="sparse pretraining goes on from a checkpoint of the same sparsity and seed",
                do="make its first phase with the same sparsity and seed",
            )
