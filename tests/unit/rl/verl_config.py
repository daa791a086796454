"""veRL's configuration as its trainer composes it from the rendered settings."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from frontload.rl.trainer.settings import TrainerSettings


@pytest.fixture(scope="module")
def verl_configs() -> Iterator[None]:
    with initialize_config_module("verl.trainer.config", version_base=None):
        yield


def composed(settings: TrainerSettings) -> DictConfig:
    return compose("ppo_trainer", overrides=list(settings.overrides), return_hydra_config=True)


def dataclass_of(config: Any) -> Any:
    """The object that veRL's workers make of a section of the config."""
    return importlib.import_module("verl.utils.config").omega_conf_to_dataclass(config)
