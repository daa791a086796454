"""A model of transformers behind our batches says what transformers itself says."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from frontload.megatron_ext.hf.transformers_decoder import load_transformers
from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.running import RowRequest
from frontload.recipes.errors import ArtifactError, RecipeError

SMALL = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip


def save(folder: Path, config: transformers.PreTrainedConfig) -> Path:
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.mul_(6.0)  # so that the shares of tokens are far from equal
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("llama"), transformers.LlamaConfig(**SMALL))


def rows() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 90, (n,), generator=generator).tolist() for n in (9, 2, 30, 1, 14)]


def test_log_likelihoods_are_transformers_own(folder: Path) -> None:
    ours = load_transformers(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert (ours.vocab_size, ours.max_sequence_tokens) == (90, 128)
    for row, scores in zip(rows(), ours.token_scores(rows()), strict=True):
        with torch.no_grad():
            log_p = theirs(torch.tensor([row])).logits[0].log_softmax(-1)
        expected = [float(log_p[place, token]) for place, token in enumerate(row[1:])]
        np.testing.assert_allclose(scores.log_probabilities_S, expected, atol=2e-5, rtol=2e-5)
        assert scores.is_greedy_S.tolist() == [
            int(log_p[place].argmax()) == token for place, token in enumerate(row[1:])
        ]


def test_greedy_texts_are_transformers_own_whatever_joins_and_leaves(folder: Path) -> None:
    ours = load_transformers(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    lengths = {number: 6 + 7 * number for number in range(5)}
    said: dict[int, list[int]] = {number: [] for number in lengths}
    batch, waiting = ours.open_batch(), list(enumerate(rows()))
    while waiting or batch.num_rows:
        if waiting:
            number, row = waiting.pop()
            batch.admit([RowRequest(row=number, prompt=tuple(row), temperature=0, seed=0)])
        for drawn in batch.draw():
            said[drawn.row].append(drawn.token)
        batch.advance({number for number, one in said.items() if len(one) >= lengths[number]})
    for number, row in enumerate(rows()):
        with torch.no_grad():
            whole = theirs.generate(
                torch.tensor([row]), do_sample=False, max_new_tokens=lengths[number],
                eos_token_id=None, pad_token_id=0, attention_mask=torch.ones(1, len(row)),
            )  # fmt: skip
        assert said[number] == whole[0, len(row) :].tolist()


def test_samples_do_not_depend_on_the_rows_beside_them(folder: Path) -> None:
    ours = load_transformers(folder)
    options = {"max_new_tokens": 20, "temperature": 0.9, "seed": 4, "stop_token": -1}
    together = ours.generate(rows()[:1] * 3, Sampling(num_samples=4, **options))  # pyright: ignore
    alone = ours.generate(rows()[:1], Sampling(num_samples=4, **options))  # pyright: ignore
    assert together[0] == alone[0]
    assert len({tuple(one) for one in alone[0]}) == 4


def test_a_model_with_windows_of_attention_is_refused(tmp_path: Path) -> None:
    config = transformers.MistralConfig(**SMALL, sliding_window=16)  # pyright: ignore
    with pytest.raises(RecipeError, match="MistralForCausalLM with a cache of"):
        load_transformers(save(tmp_path, config))


def test_a_model_whose_logits_are_scaled_is_refused(tmp_path: Path) -> None:
    config = transformers.GraniteConfig(**SMALL, logits_scaling=4.0)  # pyright: ignore
    with pytest.raises(RecipeError, match="more than a product"):
        load_transformers(save(tmp_path, config))


def test_a_folder_that_is_none_and_one_that_is_torn_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"no config\.json"):
        load_transformers(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ArtifactError, match="does not load"):
        load_transformers(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ArtifactError, match="does not load"):
        load_transformers(tmp_path)


def test_a_weight_that_is_not_there_is_refused_and_not_drawn_anew(
    folder: Path, tmp_path: Path
) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match=r"layers\.1\.mlp\.up_proj\.weight is missing"):
        load_transformers(tmp_path)
