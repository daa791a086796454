"""Reading checkpoint artifacts for inference: what is refused, and with which words."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from frontload.megatron_ext.inference.language_model import LanguageModel, read_weights
from frontload.recipes.errors import ArtifactError
from tests.parity.conftest import Trained, trained  # noqa: F401  (a fixture)


@pytest.fixture
def artifact(trained: Trained, tmp_path: Path) -> Path:  # noqa: F811
    return Path(shutil.copytree(trained.artifact, tmp_path / "artifact"))


def test_every_weight_comes_back_as_it_was_saved(trained: Trained) -> None:  # noqa: F811
    found = read_weights(trained.artifact / "weights", torch.device("cpu"))
    assert set(found) == set(trained.weights)
    for name, weight in trained.weights.items():
        assert torch.equal(found[name], weight), name


def test_a_torn_file_is_named(artifact: Path) -> None:
    shard = next((artifact / "weights").glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-700])
    with pytest.raises(ArtifactError, match=shard.name):
        LanguageModel.load(artifact)


def test_a_missing_model_recipe_is_refused(artifact: Path) -> None:
    (artifact / "model.json").unlink()
    with pytest.raises(ArtifactError, match=r"model\.json"):
        LanguageModel.load(artifact)


def test_weights_of_another_model_are_refused(artifact: Path) -> None:
    recipe = artifact / "model.json"
    recipe.write_text(recipe.read_text().replace('"ffn_hidden_size": 64', '"ffn_hidden_size": 96'))
    with pytest.raises(ArtifactError, match="parameters"):
        LanguageModel.load(artifact)


def test_many_tokens_are_scored_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
    trained: Trained,  # noqa: F811
) -> None:
    model = LanguageModel.load(trained.artifact)
    assert (model.vocab_size, model.max_sequence_tokens) == (112, 32)
    rows = [[3, 4, 5, 6, 7, 8], [9, 8], [1]]
    whole = model.log_probabilities(rows)
    monkeypatch.setattr(
        "frontload.megatron_ext.inference.language_model.MAX_LOGITS", 2 * model.vocab_size
    )
    for one, other in zip(whole, model.log_probabilities(rows), strict=True):
        assert one.dtype == np.float32
        # products of fewer rows round otherwise: units of the last place of numbers like -16
        np.testing.assert_allclose(one, other, rtol=5e-7, atol=2e-6)
