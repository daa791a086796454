"""A placement's own veRL settings: laid below the rendered ones, and kept off what is learned."""

import re
from collections.abc import Mapping

from frontload.recipes.errors import RecipeError

ACTOR, REF, ROLLOUT = (f"actor_rollout_ref.{role}" for role in ("actor", "ref", "rollout"))
MODEL = "actor_rollout_ref.model"

OWN_KEY = re.compile(r"\+{0,2}[A-Za-z_]\w*(\.\w+)*")
LEARNING = (
    "algorithm.",
    "critic.",
    "data.",
    "distillation.",
    "reward.",
    f"{ACTOR}.loss_",
    f"{ACTOR}.optim.",
    f"{ACTOR}.policy_loss.",
    f"{ACTOR}.qat.",
    f"{ACTOR}.tau_",
    f"{MODEL}.lora",
    f"{ROLLOUT}.do_sample",
    f"{ROLLOUT}.ignore_eos",
    f"{ROLLOUT}.multi_turn",
    f"{ROLLOUT}.quantization",
    f"{ROLLOUT}.repetition_penalty",
    f"{ROLLOUT}.top_",
    f"{ROLLOUT}.val_kwargs",
)
"""Where veRL's settings decide what is learned: not for a placement, which is never hashed."""


def asked_settings(rendered: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The settings if a placement's own had their way: what the guards are asked about."""
    bare = {key.lstrip("+"): text for key, text in rendered.items()}
    return bare | {key.lstrip("+"): text for key, text in own.items()}


def add_own(rendered: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The rendered settings with a placement's own below them.

    Raises: RecipeError for a key that the recipe decides, that decides what is learned, or that is
    no plain path.
    """
    decided = {key.lstrip("+") for key in rendered} | {"model_engine"}
    for key, text in own.items():
        if not OWN_KEY.fullmatch(key):
            raise _refuse_own(key, text, rule="a key is a plain path, with + where veRL lacks it")
        path = key.lstrip("+")
        if any(one == path or one.startswith(f"{path}.") for one in decided):
            rule = "the recipe or the placement sets it already, and a setting has one source"
            raise _refuse_own(key, text, rule=rule)
        if path.startswith(LEARNING):
            rule = "it decides what is learned, and a placement may not"
            raise _refuse_own(key, text, rule=rule)
    return {**rendered, **own}


def _refuse_own(key: str, text: str, *, rule: str) -> RecipeError:
    return RecipeError(
        f"placement.rl.verl.{key}",
        found=f"'{text}'",
        rule=rule,
        do="remove it, or change the field of the recipe or the placement that stands for it",
    )
