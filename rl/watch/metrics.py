"""veRL's metric names to ours, which the report draws."""

import re
from collections.abc import Mapping

NAMES = {
    "critic/score/mean": "train__reward",  # of a cluster, where the next one is not measured
    "frontload/reward": "train__reward",
    "frontload/formed": "train__formed_share",
    "frontload/degenerate_groups": "train__degenerate_group_share",
    "training/filter_groups/evicted_samples": "train__filtered_groups",
    "training/filter_groups/discarded_surplus_samples": "train__surplus_groups",
    "actor/kl_loss": "train__kl",
    "actor/entropy": "train__entropy",
    "actor/pg_clipfrac": "train__clip_share",
    "actor/pg_loss": "train__policy_loss",
    "actor/grad_norm": "train__grad_norm",
    "actor/lr": "train__learning_rate",
    "response_length/mean": "train__response_tokens",
    "frontload/cut": "train__cut_share",
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

VALIDATION = {
    "acc": "train__validation_accuracy_family_mean",
    "reward": "train__validation_reward_family_mean",
}
"""What is measured of a validation's answers, by veRL's name -> its mean over families in ours."""

MEAN = re.compile(r"val-(?:core|aux)/(?P<family>.+)/(?P<name>acc|reward)/mean@(?P<samples>\d+)")


def step_metrics(data: Mapping[str, float]) -> dict[str, float]:
    """Our metrics of one line of veRL's log."""
    found = {ours: float(data[theirs]) for theirs, ours in NAMES.items() if theirs in data}
    return found | validation_metrics(data)


def validation_metrics(data: Mapping[str, float]) -> dict[str, float]:
    """Accuracy and reward of a validation: means over families, each the mean of its answers.

    veRL's best, worst and std of N answers are left out. A family counts once, whatever the number
    of its prompts; where answers are missing, that of the most samples is its mean.
    """
    means: dict[str, dict[str, tuple[int, float]]] = {}
    for name, value in data.items():
        if (parts := MEAN.fullmatch(name)) is None:
            continue
        families = means.setdefault(parts["name"], {})
        one = int(parts["samples"]), float(value)
        families[parts["family"]] = max(one, families.get(parts["family"], one))
    return {
        ours: sum(value for _, value in means[name].values()) / len(means[name])
        for name, ours in VALIDATION.items()
        if name in means
    }
