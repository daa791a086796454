"""A hybrid with weights as large as a trained model's, as a Megatron module and as an artifact."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from frontload.recipes.machines.placement import Placement
from frontload.recipes.schema import Model
from tests.parity.reference_model import draw_weights
from tests.training_inputs import tiny_model


@dataclass(frozen=True, kw_only=True)
class Trained:
    model: Model
    weights: dict[str, Tensor]
    module: Any
    artifact: Path


def save_drawn(model: Model, artifact: Path, *, seed: int = 11) -> Trained:
    """A checkpoint artifact of drawn weights, as Megatron writes one."""
    from frontload.megatron_ext import cpu

    cpu.prepare()
    from frontload.megatron_ext.checkpoints import save
    from frontload.megatron_ext.model.stack import build_model
    from frontload.megatron_ext.ranks import parallelism

    weights = draw_weights(model, seed=seed)
    groups = parallelism.join_groups(Placement())
    module = build_model(model, Placement(), groups, precision="fp32")
    missing, unexpected = module.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("_extra_state" in name for name in missing)
    artifact.mkdir(exist_ok=True)
    parts = save.Parts(module=module, optimizer=None, groups=groups)
    save.save_weights(artifact / save.WEIGHTS, parts, state={})
    save.write_model(artifact, model)
    return Trained(model=model, weights=weights, module=module, artifact=artifact)


@pytest.fixture(scope="session", params=[False, True], ids=["untied", "tied"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    tied = bool(request.param)
    model = tiny_model(pattern="M-*M" if tied else "M*-M*-M", tie_embeddings=tied)
    return save_drawn(model, tmp_path_factory.mktemp("checkpoint"))
