"""The Mamba-2 mixer of transformers 5.10 computed with our chunked scan, forward and backward.

transformers' own CPU path (models/nemotron_h/modeling_nemotron_h.py, torch_forward) is wrong for a
sequence longer than a chunk, clamps the time step where neither Megatron nor the CUDA kernels do,
and builds six-dimensional products. Parameters, names and everything around the mixer stay.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.nemotron_h import modeling_nemotron_h

from frontload.megatron_ext.model.ssd import ScanInputs, causal_conv, ssd_chunked

Mixer = modeling_nemotron_h.NemotronHMamba2Mixer


def use_chunked_scan() -> None:
    """Lets every NemotronH model of this process train and score through `mixer_forward`."""
    Mixer.torch_forward = mixer_forward


def mixer_forward(
    self: Any, input_states: Tensor, cache_params: Any = None, attention_mask: Tensor | None = None
) -> Tensor:
    """`torch_forward` of whole sequences; what `attention_mask` leaves out adds nothing.

    Differs: no cache. Our rollout generates with `megatron_ext.generate`. The scan is in float32
    whatever autocast asks: it would cast single products of the derivative by hand (ssd.py), and
    the CUDA kernels keep their state in float32 too.

    Shapes: input_states_BSD, attention_mask_BS.
    """
    assert cache_params is None, "rollouts do not generate through transformers"
    dtype = input_states.dtype
    keep_BS1 = None if attention_mask is None else attention_mask[:, :, None].to(dtype)
    if keep_BS1 is not None:
        input_states = input_states * keep_BS1
    gate, conv_in, dt = self.in_proj(input_states).split(
        [self.intermediate_size, self.conv_dim, self.num_heads], -1
    )
    conv_out = self.act(causal_conv(conv_in, self.conv1d.weight.squeeze(1), self.conv1d.bias))
    if keep_BS1 is not None:
        conv_out = conv_out * keep_BS1
    states = self.n_groups * self.ssm_state_size
    x, b, c = conv_out.float().split([self.intermediate_size, states, states], -1)
    scan = ScanInputs(
        x=x.unflatten(-1, (self.num_heads, self.head_dim)),
        dt=F.softplus(dt.float() + self.dt_bias.float()),
        A_H=-self.A_log.float().exp(),
        B=b.unflatten(-1, (self.n_groups, self.ssm_state_size)),
        C=c.unflatten(-1, (self.n_groups, self.ssm_state_size)),
        D_H=self.D.float(),
    )
    with torch.autocast(input_states.device.type, enabled=False):
        y_BSHE, _ = ssd_chunked(scan, chunk_tokens=self.chunk_size)
    return self.out_proj(self.norm(y_BSHE.flatten(2), gate).to(dtype))
