"""One micro-batch on its way through the model: what goes in, and what is kept of its losses."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from frontload.megatron_ext.model.layers import document_resets
from frontload.megatron_ext.training.datasets import Rows
from frontload.megatron_ext.training.losses import token_weights
from frontload.recipes.token_losses import PLAIN_LOSS, TokenLoss


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Rows on the device, and the loss that they are learnt by."""

    tokens_BS: Tensor
    labels_BS: Tensor
    loss_mask_BS: Tensor
    document_ids_BS: Tensor
    resets: Any
    loss: TokenLoss
    reference_BS: Tensor | None  # losses under the start model, on the last pipeline stage


def read_micro_batch(
    rows: Rows,
    device: torch.device,
    *,
    with_resets: bool,
    loss: TokenLoss,
    reference_BS: Tensor | None,
) -> MicroBatch:
    """Moves rows to the device; with resets a document sees nothing of the one before."""
    ids_BS = torch.from_numpy(rows.document_ids_BS).to(device)
    return MicroBatch(
        tokens_BS=torch.from_numpy(rows.tokens_BS).to(device),
        labels_BS=torch.from_numpy(rows.labels_BS).to(device),
        loss_mask_BS=torch.from_numpy(rows.loss_mask_BS).to(device),
        document_ids_BS=ids_BS,
        resets=document_resets(ids_BS) if with_resets else None,
        loss=loss,
        reference_BS=reference_BS,
    )


def sum_losses(batches: Iterator[MicroBatch], module: Any) -> tuple[Tensor, Any]:
    """Megatron's forward step of training: the model's losses, and how they become one number."""
    batch = next(batches)
    return _losses(batch, module), functools.partial(_sum_loss, batch)


def keep_losses(batches: Iterator[MicroBatch], module: Any) -> tuple[Tensor, Any]:
    """The forward step of a model that only judges: what is kept is the loss of each token."""
    batch = next(batches)
    count = batch.loss_mask_BS.sum().int()
    return _losses(batch, module), lambda loss_BS: (loss_BS.sum(), count, loss_BS.detach())


def _losses(batch: MicroBatch, module: Any) -> Tensor:
    return module(
        batch.tokens_BS, None, None, labels=batch.labels_BS, packed_seq_params=batch.resets
    )


def _sum_loss(batch: MicroBatch, loss_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums, not means: Megatron divides by the tokens of the whole batch, whatever the layout."""
    mask_BS = batch.loss_mask_BS
    loss_B = weighted_B = (loss_BS * mask_BS).sum(1)
    if batch.loss != PLAIN_LOSS:
        weight_BS = token_weights(
            batch.loss,
            loss_BS,
            reference_BS=batch.reference_BS,
            loss_mask_BS=mask_BS,
            document_ids_BS=batch.document_ids_BS,
        )
        weighted_B = (loss_BS * weight_BS * mask_BS).sum(1)
    return (
        weighted_B.sum(),
        mask_BS.sum().int(),
        torch.stack([loss_B.detach(), mask_BS.sum(1), weighted_B.detach()]),
    )
