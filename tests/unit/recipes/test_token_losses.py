"""Losses of fine-tuning in a study: names, keys, what they share, and what is refused."""

import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.load import load_training
from frontload.recipes.stage import canonical
from frontload.recipes.study.expand import Study, load_study
from frontload.recipes.study.reading import training_flops

DFT = "{kind: dft}"
IW = "{kind: iw_token, least_weight: 0.2, most_weight: 1.8}"


def study_of(*losses: str, more: tuple[str, ...] = ()) -> Study:
    points = [
        f"{{windows: {{}}, sft: {{mix: shq, tokens: 368_640, loss: {loss}}}}}" for loss in losses
    ]
    return load_study("laptop", overrides=[f"points=[{', '.join(points)}]", *more])


def test_a_loss_is_a_model_of_its_own_on_the_same_start_and_pack() -> None:
    study = study_of(DFT, IW)
    by_label = {stage.label: stage for stage in study.stages if stage.kind == "sft"}
    plain, dft = by_label["base+shq-x1-seed1"], by_label["base+shq-x1-seed1-dft"]
    weighted = by_label["base+shq-x1-seed1-iw_token"]
    assert plain.inputs == dft.inputs
    assert plain.key in {stage.key for stage in load_study("laptop").stages}
    assert len({plain.key, dft.key, weighted.key}) == 3
    assert training_flops(dft) == training_flops(plain)
    assert training_flops(weighted) == pytest.approx(training_flops(plain) * 4 / 3)
    assert canonical(dft.recipe)["loss"] == {"kind": "dft"}
    assert "loss" not in canonical(plain.recipe)
    cells = study.tabulate.recipe.cells
    assert {"pt:base>sft:SHQ", "pt:base>sft:SHQ-dft", "pt:base>sft:SHQ-iw_token"} <= set(cells)


def test_the_loss_of_the_study_is_that_of_every_cell_and_a_point_may_name_the_plain_one() -> None:
    study = study_of("{kind: nll}", more=(f"sft.loss={DFT}",))
    kinds = {s.label: s.recipe.loss.kind for s in study.stages if s.kind == "sft"}
    assert kinds.pop("base+shq-x1-seed1") == "nll"
    assert set(kinds.values()) == {"dft"}
    assert "pt:base>sft:SHQ-nll" in study.tabulate.recipe.cells


def test_a_recipe_of_one_run_has_it_too() -> None:
    loaded = load_training("sft_tiny", [f"loss={IW}"])
    (stage,) = loaded.value.stages().values()
    assert (stage.loss.kind, stage.loss.most_weight) == ("iw_token", 1.8)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("{kind: iw}", "points.0.sft.loss.kind: 'iw' is not known"),
        ("{kind: dft, most_weight: 2.0}", "most_weight: is set with dft"),
        (
            "{kind: iw_token}",
            "most_weight: weights are clipped to 0 and 0; 1 lies between the ends",
        ),
        ("{kind: iw_token, least_weight: 1.1, most_weight: 2.0}", "least_weight: weights are"),
        ("{kind: iw_token, least_weight: -0.1, most_weight: 2.0}", "least_weight: weights are"),
        ("{kind: dft, exponent: 2.0}", "exponent: is 2 with dft"),
        ("{kind: iw_sequence, most_weight: 2.0, exponent: 0.0}", "exponent: is 0 with iw_sequence"),
    ],
)
def test_a_wrong_loss_is_refused_at_its_line(loss: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        study_of(loss)
    assert said in str(caught.value)


def test_two_losses_of_one_kind_are_refused_for_their_cells_would_have_one_name() -> None:
    with pytest.raises(RecipeError, match="another iw_token than the one before"):
        study_of(IW, IW.replace("1.8", "2.8"))


def test_a_loss_that_swaps_weights_is_refused_in_fp8() -> None:
    overrides = [f"loss={IW}", "precision=nemotron_h_current_scaling"]
    with pytest.raises(RecipeError, match="FP8 keeps copies of weights"):
        load_training("sft_tiny", overrides)
