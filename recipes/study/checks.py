"""What must hold between the numbers of a study before any of it is made. Checked once, here."""

from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.pattern import check_model
from frontload.recipes.grammar.limits import (
    require_all_at_least,
    require_at_least,
    require_at_most,
    require_choice,
    require_distinct,
)
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.machines.checks import check_placement
from frontload.recipes.runs.training_checks import (
    check_loss,
    check_sft_budget,
    check_sparsity,
    check_training,
    check_whole_batches,
)
from frontload.recipes.stage import REVISION
from frontload.recipes.study.corpus_checks import check_corpus, check_mixes
from frontload.recipes.study.ends import check_floors
from frontload.recipes.study.evaluations import check_benchmarks
from frontload.recipes.study.point_checks import check_points
from frontload.recipes.study.points import (
    BASE,
    first_phase_tokens,
    grid_arms,
    mixed_tokens,
    single_arm,
)
from frontload.recipes.study.raw_checks import set_names
from frontload.recipes.study.reinforcement import check_rl
from frontload.recipes.study.schema import MixKnobs, StudyRecipe
from frontload.recipes.study.sft_set_checks import check_own_samples, check_row_weights

PRECISIONS = ("fp32", "bf16")
TOKENIZERS = ("word", "byte_bpe")
LARGEST_SEED = 2**31 - 1  # veRL and numpy take no larger one
MOST_SEEDS = 100  # each is the whole study again; the plan of 100,000 filled the memory


def check_study(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses a study whose parts do not fit together.

    Raises: RecipeError with the place, the value, the rule and the nearest number that fits.
    """
    recipe = loaded.value
    _check_seeds(loaded)
    check_floors(loaded)
    check_placement(loaded, recipe.placement, under="placement.")
    for kind, placement in recipe.placements.items():
        require_choice(loaded, f"placements.{kind}", value=kind, names=tuple(REVISION))
        check_placement(loaded, placement, under=f"placements.{kind}.")
    check_corpus(loaded)
    check_mixes(loaded)
    _check_model(loaded)
    for section, knobs in (("pretraining", recipe.pretraining), ("sft", recipe.sft)):
        under = f"{section}."
        check_training(loaded, knobs, model=recipe.model, precisions=PRECISIONS, under=under)
    _check_phases(loaded)
    check_sft_budget(loaded, recipe.sft, under="sft.")
    check_loss(loaded, "sft.loss", loss=recipe.sft.loss, precision=recipe.sft.precision)
    check_own_samples(loaded)
    check_row_weights(loaded)
    check_points(loaded)
    _check_epochs(loaded)
    _check_suites(loaded)
    _check_proxies(loaded)
    check_benchmarks(loaded)
    check_rl(loaded)


def _check_seeds(loaded: Loaded[StudyRecipe]) -> None:
    seeds = loaded.value.seeds
    require_distinct(loaded, "seeds", names=seeds)
    if not 1 <= len(seeds) <= MOST_SEEDS:
        raise loaded.refuse(
            "seeds",
            found=f"{len(seeds)} seeds",
            rule=f"a study has at least one seed, and at most {MOST_SEEDS}",
            do="list them, e.g. [1, 2, 3], or give --seeds 3",
        )
    for place, seed in enumerate(seeds):
        require_at_least(loaded, f"seeds.{place}", value=seed, least=1)
        require_at_most(loaded, f"seeds.{place}", value=seed, most=LARGEST_SEED)


def _check_model(loaded: Loaded[StudyRecipe]) -> None:
    recipe, model = loaded.value, loaded.value.model
    if recipe.tokenizer is not None:
        require_choice(loaded, "tokenizer.kind", value=recipe.tokenizer.kind, names=TOKENIZERS)
    try:
        check_model(model)
    except RecipeError as error:
        raise loaded.refuse_at(error.asked, error) from error
    if recipe.tokenizer is not None and model.vocab_size < recipe.tokenizer.vocab_size:
        raise loaded.refuse(
            "model.vocab_size",
            found=f"{model.vocab_size} rows for up to {recipe.tokenizer.vocab_size} tokens",
            rule="the embedding has a row for every token",
            do=f"write at least {recipe.tokenizer.vocab_size}, or lower tokenizer.vocab_size",
        )


def _check_phases(loaded: Loaded[StudyRecipe]) -> None:
    """Each phase is whole batches; each source of it whole sequences."""
    recipe, knobs = loaded.value, loaded.value.pretraining
    check_sparsity(loaded, "pretraining.sparsity", value=knobs.sparsity)
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
    first = first_phase_tokens(knobs)
    check_whole_batches(loaded, "pretraining.tokens", tokens=knobs.tokens, batch=knobs.batch_tokens)
    if not 0 < first < knobs.tokens:
        raise loaded.refuse(
            "pretraining.first_phase_share",
            found=f"{knobs.first_phase_share:g} of {knobs.tokens:_} tokens are {first:_}",
            rule="both phases have whole batches, to the nearest one",
            do="write a share nearer to 0.5, or more tokens",
        )
    for path, ratio in ratios.items():
        mixed = mixed_tokens(knobs, ratio)
        if not 0 < mixed < knobs.tokens - first:
            raise loaded.refuse(
                path,
                found=f"leaves {mixed:_} tokens of reasoning of {knobs.tokens - first:_}",
                rule="the second phase has whole sequences of base text and of reasoning",
                do="write a share nearer to 0.5, or more tokens",
            )


def known_size(recipe: StudyRecipe, mix: str) -> int | None:
    """Word tokens of a mix where the recipe states them; None where only the data can tell."""
    synthesis = recipe.synthesis
    if synthesis is None or recipe.mixes[mix].min_answer_tokens:
        return None
    knobs = recipe.mixes[mix]
    sizes = {
        "base": synthesis.base_tokens,
        "ldq": synthesis.ldq.tokens,
        "shq": synthesis.shq.tokens,
    }
    return sum(round(sizes[one] * _share_kept(knobs, one)) for one in knobs.members)


def _share_kept(knobs: MixKnobs, member: str) -> float:
    begin, end = knobs.part_of_member.get(member, (0.0, 1.0))
    return (end - begin) * knobs.share_of_member.get(member, 1.0)


def _check_epochs(loaded: Loaded[StudyRecipe]) -> None:
    """No source is asked for more passes than allowed, where its size is known beforehand."""
    recipe, knobs = loaded.value, loaded.value.pretraining
    names = set_names(recipe)
    stated = {f"pretraining.max_epochs.{mix}": mix for mix in knobs.max_epochs}
    stated |= {f"sft.max_epochs.{mix}": mix for mix in recipe.sft.max_epochs}
    for path, mix in stated.items():
        of_sft = path.startswith("sft.")
        known = (*names, *recipe.own_samples) if of_sft else names
        require_choice(loaded, path, value=mix, names=known)
        section = recipe.sft if of_sft else knobs
        allowed = section.max_epochs[mix]
        if allowed <= 0.0:
            raise loaded.refuse(
                path,
                found=f"is {allowed:g}",
                rule="a mix may be read for more than 0 epochs",
                do="write 1.0, or more to let it be repeated",
            )
    budgets: dict[str, int] = {}
    arms = list(grid_arms(recipe).values())
    for arm in arms + [single_arm(recipe, point) for point in recipe.points]:
        base = knobs.tokens - arm.reasoning_tokens
        for mix, tokens in ((BASE, base), *arm.windows):
            budgets[mix] = max(budgets.get(mix, 0), tokens)
    for mix, tokens in budgets.items():
        if mix not in knobs.max_epochs:
            raise loaded.refuse(
                "pretraining.max_epochs",
                found=f"nothing for '{mix}'",
                rule="every mix of pretraining states how often it may be repeated",
                do=f"add `{mix}: 1.0`",
            )
        size = known_size(recipe, mix)
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


def _check_proxies(loaded: Loaded[StudyRecipe]) -> None:
    """Many answers to a question need chance, and questions that are asked in this process."""
    knobs = loaded.value.evaluation.proxies
    if knobs is None:
        return
    least = {"num_samples": 2, "items_per_benchmark": 1}
    require_all_at_least(loaded, "evaluation.proxies", of=knobs, least=least)
    if loaded.value.evaluation.benchmarks is not None:
        raise loaded.refuse(
            "evaluation.proxies",
            found="stands beside evaluation.benchmarks",
            rule="proxies ask the corpus's own questions; the paper's benchmarks state how many "
            "answers each of their own gets",
            do="leave one of the two out",
        )
    if loaded.value.evaluation.sft.temperature == 0.0:
        raise loaded.refuse(
            "evaluation.proxies",
            found="evaluation.sft.temperature is 0",
            rule="at temperature 0 every answer is the same, so pass@k is pass@1",
            do="write a temperature above 0, or leave proxies out",
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
