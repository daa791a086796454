"""Every hashed knob of stage `grpo`, in the grammar of `schema.py`: no defaults, units beside."""

from dataclasses import dataclass, field

from frontload.recipes.schema import Model

ACTORS = ("fsdp2", "megatron")
ROLLOUTS = ("frontload", "vllm")
RL_PRECISIONS = ("fp32", "bf16")
KL_ESTIMATORS = ("k1", "abs", "k2", "k3", "low_var_kl")  # veRL's kl_penalty; low_var_kl is k3
MARKS = "marks"
REWARD_LAYOUTS = (MARKS, "think_boxed", "prompted_think_boxed", "boxed")  # eval/grading/layout.py
LOSS_AGGREGATIONS = (
    "token-mean",
    "token-sum",
    "seq-mean-token-sum",
    "seq-mean-token-mean",
    "seq-mean-token-sum-norm",  # a sequence's sum over response_tokens: Dr. GRPO's constant
)
DECAYS = ("constant", "cosine")


@dataclass(frozen=True, kw_only=True)
class Grpo:
    """What GRPO optimises: groups of answers to one prompt, scored against their own mean."""

    rollouts_per_prompt: int  # size of a group
    normalize_by_std: bool  # advantages are divided by the group's standard deviation
    kl_coefficient: float  # weight of the KL to the start model, in the loss
    kl_estimator: str  # one of KL_ESTIMATORS
    clip_ratio_low: float  # the probability ratio is clipped to [1 - low, 1 + high]
    clip_ratio_high: float
    dual_clip_ratio: float  # bound of the loss for negative advantages; above 1
    entropy_coefficient: float  # 0.0 = no entropy bonus
    loss_aggregation: str  # one of LOSS_AGGREGATIONS
    # groups whose answers all have one reward are left out and others asked in their place, until
    # the batch is whole: more prompts than batch_prompts a step, a set that is used up begins anew
    filter_one_reward_groups: bool = field(default=False, metadata={"neutral": False})


@dataclass(frozen=True, kw_only=True)
class RlOptimizer:
    """AdamW; the rate is constant unless a warm-up or a decay is asked for."""

    learning_rate: float
    adam_beta1: float
    adam_beta2: float
    weight_decay: float
    clip_grad: float  # global norm
    # steps in which the rate rises from 0, which is the first step's; 0 = none
    warmup_steps: int = field(default=0, metadata={"neutral": 0})
    decay: str = field(default="constant", metadata={"neutral": "constant"})  # one of DECAYS; to 0


@dataclass(frozen=True, kw_only=True)
class RolloutSampling:
    """How responses are drawn, in training and in validation."""

    temperature: float
    top_p: float  # 1.0: the actor scores a token in the whole distribution
    validation_temperature: float  # 0 = greedy (then validation_samples must be 1)
    validation_samples: int  # responses a validation prompt


@dataclass(frozen=True, kw_only=True)
class GrpoKnobs:
    """How GRPO runs, as a recipe of one run and the section `rl` of a study state it alike."""

    batch_prompts: int  # prompts a step
    mini_batch_prompts: int  # prompts an update; equal to batch_prompts = on-policy
    steps: int
    prompt_tokens: int  # longest prompt; prompt_tokens + response_tokens is the context
    response_tokens: int  # longest response; a longer one is cut and scored as it is
    grpo: Grpo
    optimizer: RlOptimizer
    sampling: RolloutSampling
    precision: str  # "fp32" or "bf16": of the forward pass; master weights are fp32
    actor: str  # what trains: "fsdp2" (transformers' model) or "megatron" (Megatron-Bridge)
    rollout: str  # what generates: "frontload" (own plug-in, CPU) or "vllm"
    validate_every_steps: int  # between start and end, which are always validated; 0 = only those
    checkpoint_every_steps: int  # the last step is always kept
    reward_layout: str = field(default=MARKS, metadata={"neutral": MARKS})  # of REWARD_LAYOUTS


@dataclass(frozen=True, kw_only=True)
class GrpoRecipe(GrpoKnobs):
    """Stage `grpo`: reinforcement learning of the checkpoint input `start` through veRL."""

    model: Model = field(metadata={"folder": "models"})
    seed: int  # of the prompt order and the sampling

    @property
    def context_tokens(self) -> int:
        """Longest sequence that is trained on."""
        return self.prompt_tokens + self.response_tokens

    @property
    def most_tokens(self) -> int:
        """Of all rollouts, were each as long as it may be."""
        rollouts = self.steps * self.batch_prompts * self.grpo.rollouts_per_prompt
        return rollouts * self.context_tokens

    @property
    def is_hybrid(self) -> bool:
        """The model has Mamba layers, whose state runs through a sequence."""
        return "M" in self.model.pattern
