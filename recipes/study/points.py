"""What a study trains: its arms and its points, and the paper's grid as a list of points. Pure.

An arm is one pretraining: base text up to an onset, then base text and windows of reasoning sets.
A point is one model: an arm, its fine-tuning if any, reinforcement learning or not, and a seed.
"""

from dataclasses import dataclass, replace

from frontload.recipes.study.schema import PointKnobs, PretrainingKnobs, SftKnobs, StudyRecipe
from frontload.recipes.token_losses import PLAIN_LOSS, TokenLoss

BASE = "base"
RL_DATA = "CrossThink"
"""The paper's RL data, whose place our prompts take in the cells of claims.json."""
PERCENT = 100
BASE_SUITE, SFT_SUITE = "base", "sft"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One pretraining, up to its seed."""

    name: str  # lmq, lmq@60-40, ldq@300000, ldq@300000-from0
    onset_tokens: int  # of base text that is read before the first token of reasoning
    windows: tuple[tuple[str, int], ...]  # reasoning set -> its tokens after the onset
    sparsity: float = 0.0  # share of the weights of each matrix that stay 0

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of all reasoning sets."""
        return sum(tokens for _, tokens in self.windows)

    @property
    def cell(self) -> str:
        """The cell id of claims.json."""
        parts = [part.partition("@") for part in self.name.split(".")]
        return "pt:" + ".".join(mix_title(mix) + at + rest for mix, at, rest in parts)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Supervised fine-tuning on one mix."""

    mix: str
    tokens: int
    loss: TokenLoss = PLAIN_LOSS

    @property
    def data(self) -> "Tuning":
        """What it reads, whatever its loss."""
        return replace(self, loss=PLAIN_LOSS)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model of a study, and the suites that score it."""

    arm: Arm
    tuning: Tuning | None
    is_reinforced: bool
    seed: int
    suites: tuple[str, ...]


def mix_title(mix: str) -> str:
    """The paper's name of a mix: base, SHQ, LDQ, LMQ, ALF, ALF'."""
    return mix if mix == BASE else mix.upper().replace("_PRIME", "'")


def tuning_name(tuning: Tuning, knobs: SftKnobs) -> str:
    """`shq-x1` for whole multiples of `sft.tokens`, else `shq-73728` by tokens."""
    times, rest = divmod(tuning.tokens, knobs.tokens)
    return f"{tuning.mix}-{tuning.tokens}" if rest else f"{tuning.mix}-x{times}"


def loss_suffix(tuning: Tuning) -> str:
    """`-dft` behind the name of a fine-tuning; nothing behind a plain one's."""
    return "" if tuning.loss.kind == PLAIN_LOSS.kind else f"-{tuning.loss.kind}"


def cell_of(point: Point, knobs: SftKnobs) -> str:
    """The cell id of claims.json: `pt:LDQ>sft:SHQ*2>rl:CrossThink`."""
    cell = point.arm.cell
    if point.tuning is not None:
        times, rest = divmod(point.tuning.tokens, knobs.tokens)
        size = f"@{point.tuning.tokens}" if rest else f"*{times}" if times > 1 else ""
        loss = "" if point.tuning.loss == knobs.loss else f"-{point.tuning.loss.kind}"
        cell += f">sft:{mix_title(point.tuning.mix)}{loss}{size}"
    return cell + (f">rl:{RL_DATA}" if point.is_reinforced else "")


# ---------------------------------------------------------------- sizes of a schedule


def snap(tokens: float, unit: int) -> int:
    """The nearest whole multiple of `unit`."""
    return round(tokens / unit) * unit


def first_phase_tokens(knobs: PretrainingKnobs) -> int:
    """Tokens of the grid's shared trunk: whole batches."""
    batch = knobs.sequence_tokens * knobs.global_batch_sequences
    return snap(knobs.tokens * knobs.first_phase_share, batch)


def mixed_tokens(knobs: PretrainingKnobs, base_share: float) -> int:
    """Tokens of reasoning in the grid's second phase at this share of base: whole sequences."""
    second = knobs.tokens - first_phase_tokens(knobs)
    return second - snap(second * base_share, knobs.sequence_tokens)


# ---------------------------------------------------------------- the paper's grid


def grid_arms(recipe: StudyRecipe) -> dict[str, Arm]:
    """Name -> arm: the grid in the order written, then the arms at other ratios."""
    knobs = recipe.pretraining
    found = {name: _grid_arm(knobs, name, name, knobs.base_share) for name in recipe.arms}
    for ratio in recipe.ratio_arms:
        name = ratio_name(knobs, ratio.mix, ratio.base_share)
        found[name] = _grid_arm(knobs, name, ratio.mix, ratio.base_share)
    return found


def ratio_name(knobs: PretrainingKnobs, mix: str, base_share: float) -> str:
    """`lmq@60-40` for what whole percents give, else by its tokens of reasoning: `lmq@655360`."""
    percent, tokens = round(PERCENT * base_share), mixed_tokens(knobs, base_share)
    if mixed_tokens(knobs, percent / PERCENT) != tokens:
        return f"{mix}@{tokens}"
    return f"{mix}@{percent}-{PERCENT - percent}"


def _grid_arm(knobs: PretrainingKnobs, name: str, mix: str, base_share: float) -> Arm:
    tokens = mixed_tokens(knobs, base_share) if mix != BASE else 0
    return Arm(
        name=name,
        onset_tokens=first_phase_tokens(knobs),
        windows=_windows(knobs, mix, tokens),
        sparsity=knobs.sparsity,
    )


def _windows(knobs: PretrainingKnobs, mix: str, tokens: int) -> tuple[tuple[str, int], ...]:
    """The sets that stand behind a mix, read in proportion to their stated sizes."""
    parts = knobs.parts.get(mix)
    if parts is None:
        return ((mix, tokens),) if tokens else ()
    total, read = sum(parts.values()), 0
    found: list[tuple[str, int]] = []
    for place, (name, size) in enumerate(parts.items()):
        is_last = place == len(parts) - 1
        mine = tokens - read if is_last else snap(tokens * size / total, knobs.sequence_tokens)
        found.append((name, mine))
        read += mine
    return tuple(found)


def grid_points(recipe: StudyRecipe, seed: int) -> list[Point]:
    """The paper's crossed design at one seed: every arm, every arm x mix, and the cells off it."""
    arms, sft = grid_arms(recipe), recipe.sft
    suites = recipe.evaluation.suites_of_pretrained

    def point(arm: str, mix: str = "", times: int = 1, *, is_reinforced: bool = False) -> Point:
        tuning = Tuning(mix=mix, tokens=sft.tokens * times, loss=sft.loss) if mix else None
        return Point(
            arm=arms[arm],
            tuning=tuning,
            is_reinforced=is_reinforced,
            seed=seed,
            suites=recipe.evaluation.suites_of_tuned if mix else suites,
        )

    found = [point(arm) for arm in arms]
    found += [point(arm, mix) for arm in recipe.arms for mix in sft.mixes]
    found += [point(cell.arm, cell.mix, cell.multiplier) for cell in sft.cells]
    for cell in recipe.rl.cells if recipe.rl is not None else ():
        found.append(point(cell.arm, cell.mix, is_reinforced=True))
    return found


# ---------------------------------------------------------------- single points


def single_points(recipe: StudyRecipe) -> list[Point]:
    """The points that a study lists one by one, at each of their seeds."""
    return [
        _single_point(recipe, knobs, seed)
        for knobs in recipe.points
        for seed in knobs.seeds or recipe.seeds
    ]


def _single_point(recipe: StudyRecipe, knobs: PointKnobs, seed: int) -> Point:
    tuning = None
    if knobs.sft is not None and knobs.sft.tokens:
        loss = knobs.sft.loss or recipe.sft.loss
        tuning = Tuning(mix=knobs.sft.mix, tokens=knobs.sft.tokens, loss=loss)
    asked = recipe.evaluation
    by_default = asked.suites_of_pretrained if tuning is None else asked.suites_of_tuned
    if tuning is None and knobs.sft is not None:
        by_default = (SFT_SUITE,)
    return Point(
        arm=single_arm(recipe, knobs),
        tuning=tuning,
        is_reinforced=knobs.rl,
        seed=seed,
        suites=knobs.suites or by_default,
    )


def single_arm(recipe: StudyRecipe, knobs: PointKnobs) -> Arm:
    """The arm of a listed point: the grid's if it is one of those, else named by its tokens."""
    trunk = first_phase_tokens(recipe.pretraining)
    onset = trunk if knobs.onset_tokens is None else knobs.onset_tokens
    windows = tuple((name, tokens) for name, tokens in knobs.windows.items() if tokens)
    usual = recipe.pretraining.sparsity
    sparsity = usual if knobs.sparsity is None else knobs.sparsity
    for arm in grid_arms(recipe).values():
        if (arm.onset_tokens, arm.windows) == (onset, windows):
            name = arm.name
            break
    else:
        name = ".".join(f"{mix}@{tokens}" for mix, tokens in windows) or BASE
        name += "" if onset == trunk else f"-from{onset}"
    if sparsity != usual:
        name += ("-" if "@" in name else "@") + f"sparse{round(PERCENT * sparsity)}"
    return Arm(name=name, onset_tokens=onset, windows=windows, sparsity=sparsity)


def study_points(recipe: StudyRecipe) -> list[Point]:
    """Every point of a study once: the grid at each seed, then the points that are listed."""
    grid = [point for seed in recipe.seeds for point in grid_points(recipe, seed)]
    return list(dict.fromkeys([*grid, *single_points(recipe)]))
