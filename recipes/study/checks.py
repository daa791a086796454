"""What must hold between the numbers of a study before any of it is made. Checked once, here."""

from dataclasses import fields
from fractions import Fraction
from math import lcm

from frontload.recipes.artifact import CORPUS_SETS, FAMILIES
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.limits import (
    TOLERANCE,
    at_least,
    choice,
    distinct,
    levels,
    schedule,
    share,
    shares,
)
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.machines.checks import check_placement
from frontload.recipes.schema import ReasoningWriter
from frontload.recipes.study.ends import check_floors
from frontload.recipes.study.reinforcement import check_rl
from frontload.recipes.study.schema import StudyRecipe, TrainingKnobs

BASE = "base"
PRECISIONS = ("fp32", "bf16")
PATTERN_LETTERS = "M*-"
TOKENIZERS = ("word", "byte_bpe")
MODEL_FLAGS = ("pattern", "tie_embeddings")
POSITIVE = ("sequence_tokens", "global_batch_sequences", "tokens", "learning_rate")
MOST_SEEDS = 100  # each is the whole study again; the plan of 100,000 filled the memory


def check_study(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses a study whose parts do not fit together.

    Raises: RecipeError with the place, the value, the rule and the nearest number that fits.
    """
    recipe = loaded.value
    if not 1 <= recipe.seeds <= MOST_SEEDS:
        raise loaded.refuse(
            "seeds",
            found=f"is {recipe.seeds}",
            rule=f"a study has at least one seed, and at most {MOST_SEEDS}",
            do=f"write 1 to {MOST_SEEDS}",
        )
    check_floors(loaded)
    check_placement(loaded, recipe.placement, under="placement.")
    _check_corpus(loaded)
    _check_mixes(loaded)
    _check_model(loaded)
    for section in ("pretraining", "sft"):
        _check_training(loaded, section)
    _check_phases(loaded)
    _check_sft(loaded)
    _check_epochs(loaded)
    _check_suites(loaded)
    check_rl(loaded)


def _check_corpus(loaded: Loaded[StudyRecipe]) -> None:
    recipe = loaded.value
    if (recipe.synthesis is None) == (recipe.own is None):
        both = recipe.own is not None
        raise loaded.refuse(
            "own" if both else "synthesis",
            found="synthesis and own are both set" if both else "neither synthesis nor own is set",
            rule="a study's corpus comes from exactly one of them",
            do="set one of them to null" if both else "add one of the two sections",
        )
    if recipe.synthesis is None:
        return
    for name in ("ldq", "shq"):
        writer: ReasoningWriter = getattr(recipe.synthesis, name)
        for family in writer.families:
            path = f"synthesis.{name}.families.{family}"
            choice(loaded, path, value=family, names=FAMILIES)
        shares(loaded, f"synthesis.{name}.families", of=writer.families, what="family")
        for knob in ("long_share", "short_share", "wrong_share"):
            share(loaded, f"synthesis.{name}.{knob}", value=getattr(writer, knob))
        if writer.long_share + writer.short_share > 1.0 + TOLERANCE:
            raise loaded.refuse(
                f"synthesis.{name}.short_share",
                found=f"long_share + short_share is {writer.long_share + writer.short_share:g}",
                rule="together they are at most 1; the rest has no trace",
                do="lower one of them",
            )
        levels(loaded, f"synthesis.{name}", low=writer.level_low, high=writer.level_high)


def _check_mixes(loaded: Loaded[StudyRecipe]) -> None:
    recipe = loaded.value
    members = ("base", "own") if recipe.own is not None else CORPUS_SETS[:3]
    mixes = tuple(recipe.mixes)
    for name, mix in recipe.mixes.items():
        distinct(loaded, f"mixes.{name}.members", names=mix.members)
        if not mix.members:
            raise loaded.refuse(
                f"mixes.{name}.members",
                found="is empty",
                rule="a mix is the union of one or more sets of the corpus",
                do="name some of " + ", ".join(members),
            )
        for member in mix.members:
            choice(loaded, f"mixes.{name}.members", value=member, names=members)
        for member, kept in mix.share_of_member.items():
            path = f"mixes.{name}.share_of_member.{member}"
            choice(loaded, path, value=member, names=mix.members)
            share(loaded, path, value=kept, is_needed=True)
    for path, listed in (
        ("arms", recipe.arms),
        ("ratio_arms", recipe.ratio_arms),
        ("sft.mixes", recipe.sft.mixes),
        ("sft.cells", recipe.sft.cells),
    ):
        distinct(loaded, path, names=listed)
    for path, mix in _mixes_used(recipe):
        choice(loaded, path, value=mix, names=mixes)
        if path.startswith("sft.") and BASE in recipe.mixes[mix].members:
            raise loaded.refuse(
                path,
                found=f"'{mix}' holds base text",
                rule="SFT packs conversations: a question and its answer",
                do="name a mix without the member base",
            )
    arms = _arm_names(loaded)
    for place, cell in enumerate(recipe.sft.cells):
        choice(loaded, f"sft.cells.{place}.arm", value=cell.arm, names=arms)
        if cell.multiplier < 1:
            raise loaded.refuse(
                f"sft.cells.{place}.multiplier",
                found=f"is {cell.multiplier}",
                rule="an SFT budget is a whole multiple of sft.tokens",
                do="write 1 or more",
            )


def _mixes_used(recipe: StudyRecipe) -> list[tuple[str, str]]:
    used = [(f"arms.{place}", mix) for place, mix in enumerate(recipe.arms)]
    used += [(f"ratio_arms.{place}.mix", arm.mix) for place, arm in enumerate(recipe.ratio_arms)]
    used += [(f"sft.mixes.{place}", mix) for place, mix in enumerate(recipe.sft.mixes)]
    used += [(f"sft.cells.{place}.mix", cell.mix) for place, cell in enumerate(recipe.sft.cells)]
    return [*used, ("mixes", BASE)]


def _arm_names(loaded: Loaded[StudyRecipe]) -> tuple[str, ...]:
    """The arms by name, those off the grid last; each of them is another one."""
    recipe = loaded.value
    if not recipe.arms:
        raise loaded.refuse(
            "arms",
            found="is empty",
            rule="a study compares one pretraining or more",
            do="write e.g. [base, ldq]",
        )
    names = list(recipe.arms)
    for place, arm in enumerate(recipe.ratio_arms):
        name = _ratio_name(arm.mix, arm.base_share)
        if arm.mix == BASE or name in names:
            raise loaded.refuse(
                f"ratio_arms.{place}",
                found="has the mix base" if arm.mix == BASE else f"is called {name} as another is",
                rule="an arm off the grid has another share of base, to a percent, than any other",
                do="name a mix of reasoning"
                if arm.mix == BASE
                else "write shares that differ by a percent or more",
            )
        names.append(name)
    return tuple(names)


def _ratio_name(mix: str, base_share: float) -> str:
    base = round(100 * base_share)
    return f"{mix}@{base}-{100 - base}"


def _check_model(loaded: Loaded[StudyRecipe]) -> None:
    recipe, model = loaded.value, loaded.value.model
    choice(loaded, "tokenizer.kind", value=recipe.tokenizer.kind, names=TOKENIZERS)
    for field in fields(model):
        if field.name not in MODEL_FLAGS and getattr(model, field.name) <= 0:
            raise loaded.refuse(
                f"model.{field.name}",
                found=f"is {getattr(model, field.name)}",
                rule="sizes of a model are above 0",
                do="change it",
            )
    if not model.pattern:
        raise loaded.refuse(
            "model.pattern",
            found="is empty",
            rule="a model has at least one layer",
            do="write one letter a layer, e.g. M*-M*-",
        )
    for letter in model.pattern:
        if letter not in PATTERN_LETTERS:
            raise loaded.refuse(
                "model.pattern",
                found=f"'{model.pattern}' holds '{letter}'",
                rule="a layer is M (Mamba-2), * (attention) or - (MLP)",
                do="write one of these letters a layer, e.g. M*-M*-",
            )
    if model.vocab_size < recipe.tokenizer.vocab_size:
        raise loaded.refuse(
            "model.vocab_size",
            found=f"{model.vocab_size} rows for up to {recipe.tokenizer.vocab_size} tokens",
            rule="the embedding has a row for every token",
            do=f"write at least {recipe.tokenizer.vocab_size}, or lower tokenizer.vocab_size",
        )
    for top, part in (
        ("num_attention_heads", "num_query_groups"),
        ("mamba_num_heads", "mamba_num_groups"),
    ):
        whole, divisor = getattr(model, top), getattr(model, part)
        if whole % divisor:
            raise loaded.refuse(
                f"model.{part}",
                found=f"{divisor} does not divide {top} {whole}",
                rule="groups share the heads evenly",
                do="write a divisor of it",
            )
    for section in ("pretraining", "sft"):
        tokens = getattr(recipe, section).sequence_tokens
        if tokens > model.max_sequence_tokens:
            raise loaded.refuse(
                f"{section}.sequence_tokens",
                found=f"{tokens} is above model.max_sequence_tokens {model.max_sequence_tokens}",
                rule="a sequence fits the model",
                do=f"write at most {model.max_sequence_tokens}",
            )


def _check_training(loaded: Loaded[StudyRecipe], section: str) -> None:
    knobs: TrainingKnobs = getattr(loaded.value, section)
    schedule(
        loaded,
        kind_path=f"{section}.schedule",
        under=f"{section}.",
        kind=knobs.schedule,
        warmup=knobs.warmup_share,
        decay=knobs.decay_share,
    )
    choice(loaded, f"{section}.precision", value=knobs.precision, names=PRECISIONS)
    path = f"{section}.final_learning_rate_share"
    share(loaded, path, value=knobs.final_learning_rate_share)
    for knob in ("adam_beta1", "adam_beta2"):
        value = getattr(knobs, knob)
        if not 0.0 <= value < 1.0:
            raise loaded.refuse(
                f"{section}.{knob}",
                found=f"is {value}",
                rule="a decay of Adam lies in [0, 1)",
                do="write e.g. 0.9",
            )
    at_least(loaded, f"{section}.weight_decay", value=knobs.weight_decay, least=0)
    for knob in (*POSITIVE, "adam_epsilon", "clip_grad"):
        value = getattr(knobs, knob)
        if value <= 0:
            raise loaded.refuse(
                f"{section}.{knob}", found=f"is {value}", rule="it must be above 0", do="change it"
            )


def _fraction(share: float) -> Fraction:
    return Fraction(repr(share))


def _refuse_budget(loaded: Loaded[StudyRecipe], path: str, *, unit: int, why: str) -> RecipeError:
    tokens = getattr(loaded.value, path.split(".")[0]).tokens
    below, above = tokens // unit * unit, (tokens // unit + 1) * unit
    fits = f"{below:_} or {above:_}" if below else f"{above:_}"
    return loaded.refuse(path, found=f"is {tokens:_}", rule=why, do=f"write {fits}")


def _check_phases(loaded: Loaded[StudyRecipe]) -> None:
    """Each phase is whole batches; each source of it whole sequences."""
    recipe, knobs = loaded.value, loaded.value.pretraining
    if not 0.0 < knobs.first_phase_share < 1.0:
        raise loaded.refuse(
            "pretraining.first_phase_share",
            found=f"is {knobs.first_phase_share}",
            rule="both phases have tokens: the share lies between 0 and 1, neither of them",
            do="write e.g. 0.6",
        )
    ratios = {"pretraining.base_share": knobs.base_share}
    for place, arm in enumerate(recipe.ratio_arms):
        ratios[f"ratio_arms.{place}.base_share"] = arm.base_share
    for path, ratio in ratios.items():
        if not 0.0 < ratio < 1.0:
            raise loaded.refuse(
                path,
                found=f"is {ratio:g}",
                rule="the second phase has base text and reasoning: the share lies between 0 and "
                "1, neither of them",
                do="write e.g. 0.8; `arms: [base]` is the control without reasoning",
            )
    first = _fraction(knobs.first_phase_share)
    batches = first.denominator
    sequences = lcm(*(((1 - first) * _fraction(ratio)).denominator for ratio in ratios.values()))
    size = knobs.sequence_tokens
    unit = lcm(size * knobs.global_batch_sequences * batches, size * sequences)
    if knobs.tokens % unit:
        raise _refuse_budget(
            loaded,
            "pretraining.tokens",
            unit=unit,
            why=f"each phase is whole batches of {knobs.global_batch_sequences} sequences of "
            f"{size} tokens and each source whole sequences: a multiple of {unit:_}",
        )


def _check_sft(loaded: Loaded[StudyRecipe]) -> None:
    knobs = loaded.value.sft
    unit = knobs.sequence_tokens * knobs.global_batch_sequences
    if knobs.tokens % unit:
        raise _refuse_budget(
            loaded,
            "sft.tokens",
            unit=unit,
            why=f"a budget is whole batches of {knobs.global_batch_sequences} sequences of "
            f"{knobs.sequence_tokens} tokens: a multiple of {unit:_}",
        )


def _known_size(recipe: StudyRecipe, mix: str) -> int | None:
    """Word tokens of a mix where the recipe states them; None where only the data can tell."""
    knobs, synthesis = recipe.mixes[mix], recipe.synthesis
    if synthesis is None or knobs.min_answer_tokens:
        return None
    sizes = {
        "base": synthesis.base_tokens,
        "ldq": synthesis.ldq.tokens,
        "shq": synthesis.shq.tokens,
    }
    return sum(round(sizes[one] * knobs.share_of_member.get(one, 1.0)) for one in knobs.members)


def _check_epochs(loaded: Loaded[StudyRecipe]) -> None:
    """No source is asked for more passes than allowed, where its size is known beforehand."""
    recipe, knobs = loaded.value, loaded.value.pretraining
    second = knobs.tokens - round(knobs.tokens * knobs.first_phase_share)
    for mix, allowed in knobs.max_epochs.items():
        choice(loaded, f"pretraining.max_epochs.{mix}", value=mix, names=tuple(recipe.mixes))
        if allowed <= 0.0:
            raise loaded.refuse(
                f"pretraining.max_epochs.{mix}",
                found=f"is {allowed:g}",
                rule="a mix may be read for more than 0 epochs",
                do="write 1.0, or more to let it be repeated",
            )
    budgets: dict[str, int] = {}
    grid = [(mix, 1.0 if mix == BASE else knobs.base_share) for mix in recipe.arms]
    for mix, ratio in grid + [(arm.mix, arm.base_share) for arm in recipe.ratio_arms]:
        base = round(second * ratio)
        budgets[BASE] = max(budgets.get(BASE, 0), knobs.tokens - second + base)
        if mix != BASE:
            budgets[mix] = max(budgets.get(mix, 0), second - base)
    for mix, tokens in budgets.items():
        if mix not in knobs.max_epochs:
            raise loaded.refuse(
                "pretraining.max_epochs",
                found=f"nothing for '{mix}'",
                rule="every mix of pretraining states how often it may be repeated",
                do=f"add `{mix}: 1.0`",
            )
        size = _known_size(recipe, mix)
        allowed = knobs.max_epochs[mix]
        if size is not None and tokens > allowed * size:
            raise loaded.refuse(
                f"pretraining.max_epochs.{mix}",
                found=f"{tokens:_} tokens of a set of {size:_}"
                + (f" are {tokens / size:.2f} epochs" if size else ""),
                rule=f"at most {allowed:g} epochs of {mix} are allowed",
                do=f"write at least {-(-100 * tokens // size) / 100:g}, or enlarge the set"
                if size
                else "enlarge the set",
            )


def _check_suites(loaded: Loaded[StudyRecipe]) -> None:
    for name in ("base", "sft"):
        knobs = getattr(loaded.value.evaluation, name)
        for knob in ("num_samples", "num_hard_samples"):
            value = getattr(knobs, knob)
            if value < 1 or (knobs.temperature == 0.0 and value != 1):
                raise loaded.refuse(
                    f"evaluation.{name}.{knob}",
                    found=f"is {value} at temperature {knobs.temperature:g}",
                    rule="at temperature 0 every sample is the same, so there is exactly 1",
                    do="write 1, or a temperature above 0",
                )
