"""veRL's metric names to ours, which the report draws."""

from collections.abc import Mapping

NAMES = {
    "frontload/reward": "train__reward",
    "frontload/formed": "train__formed_share",
    "frontload/degenerate_groups": "train__degenerate_group_share",
    "actor/kl_loss": "train__kl",
    "actor/entropy": "train__entropy",
    "actor/pg_clipfrac": "train__clip_share",
    "actor/pg_loss": "train__policy_loss",
    "actor/grad_norm": "train__grad_norm",
    "actor/lr": "train__learning_rate",
    "response_length/mean": "train__response_tokens",
    "response_length/clip_ratio": "train__cut_share",
    "training/rollout_probs_diff_max": "train__rollout_probability_difference",
    "frontload/generation_seconds": "system__generation_seconds",
    "frontload/reward_seconds": "system__reward_seconds",
    "timing_s/old_log_prob": "system__old_log_prob_seconds",
    "timing_s/ref": "system__reference_seconds",
    "timing_s/update_actor": "system__update_seconds",
    "timing_s/update_weights": "system__weights_seconds",
    "timing_s/save_checkpoint": "system__checkpoint_seconds",
    "timing_s/testing": "system__validation_seconds",
    "timing_s/step": "system__step_seconds",
}
"""Name in veRL's log -> name in ours. The group `system` depends on the clock."""

VALIDATION = "val-core/"


def step_metrics(data: Mapping[str, float]) -> dict[str, float]:
    """Our metrics of one line of veRL's log; validation is the mean over families."""
    found = {ours: float(data[theirs]) for theirs, ours in NAMES.items() if theirs in data}
    scores = [value for name, value in data.items() if name.startswith(VALIDATION)]
    if scores:
        found["train__validation_reward"] = float(sum(scores) / len(scores))
    return found
