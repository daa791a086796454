"""veRL's rollout on our generator, in the actor's own process: no server, no copy of the weights.

`ActorRollout` is what the actor holds and hands its weights to, `ActorReplica` what veRL counts as
the server. Who wants responses calls `generate_on` on the actor's process.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import cloudpickle
from torch import Tensor
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica

from frontload.megatron_ext.checkpoints.files import read_model
from frontload.megatron_ext.hf.convert import to_megatron
from frontload.megatron_ext.hf.names import groups, our_name
from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.generate import Decoder, Response, generate_responses
from frontload.megatron_ext.inference.language_model import join_parts
from frontload.recipes.errors import StageError
from frontload.recipes.schema import Model
from frontload.rl.plugins.scan import use_chunked_scan


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one call generates: all prompts of a step, each with its group of samples."""

    prompts: list[list[int]]
    sampling: Sampling


class ActorRollout(BaseRollout):
    """The decoder beside the actor; its weights are the actor's as of the last update."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any) -> None:
        super().__init__(config, model_config, device_mesh)
        self.model = read_model(Path(str(self.model_config.local_path)))
        self._decoder: Decoder | None = None
        use_chunked_scan()

    async def update_weights(
        self,
        weights: Iterable[tuple[str, Tensor]],
        wire_format: str = "named_tensors",
        **options: Any,
    ) -> None:
        """Takes over the actor's weights, by name."""
        del options
        assert wire_format == "named_tensors", wire_format
        tensors = {our_name(name): tensor.detach().clone() for name, tensor in weights}
        self._decoder = Decoder(self.model, decoder_weights(self.model, tensors))

    def generate(self, request: Request) -> list[list[Response]]:
        """[prompt][sample] -> response with the log-probabilities it was drawn with."""
        assert self._decoder is not None, "weights come before prompts"
        return generate_responses(self._decoder, request.prompts, request.sampling, score=True)

    async def resume(self, tags: list[str]) -> None:
        """Nothing was released."""

    async def release(self) -> None:
        """The actor's own weights stay where they are."""


class ActorReplica(RolloutReplica):
    """The one server that veRL sees: the actor's process itself."""

    async def launch_servers(self) -> None:
        """Names the actor's process as the server; it is running already."""
        self.servers = []  # nobody to put to sleep or to wake
        # as bytes: a handle that is unpickled imports its class, and the router needs none of it
        self._server_handle = cloudpickle.dumps(self.workers[0])  # type: ignore
        self._server_address = f"actor:{self.replica_rank}"


def generate_on(worker: Any, request: Request) -> list[list[Response]]:
    """Generates inside veRL's worker process; called there through Ray's `__ray_call__`."""
    (actor,) = worker.worker_dict.values()
    return actor.rollout.generate(request)


def decoder_weights(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's weights from the tensors of transformers' model.

    Raises: StageError naming a tensor that the actor did not send.
    """
    found: dict[str, Tensor] = {}
    for group in groups(model):
        for link in (one for one in group.links if not one.is_copy):
            lost = [slot.name for slot in link.hf if slot.name not in tensors]
            if lost:
                raise StageError(
                    "the actor's weights for the rollout",
                    found=f"no {lost[0]} among {len(tensors)} tensors",
                    rule="the rollout generates with every weight of the actor",
                    do="run with the versions of constraints.txt",
                )
            sources = tuple(tensors[slot.name] for slot in link.hf)
            parts = to_megatron(link, sources, model)
            found |= {slot.name: part for slot, part in zip(link.megatron, parts, strict=True)}
    return join_parts(found)
