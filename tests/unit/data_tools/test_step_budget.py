"""A budget in real tokens: spent to the token, over steps that each take their share."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.packing.account import account_reading
from frontload.data_tools.packing.place import order_rows
from frontload.data_tools.packing.rows import describe_file
from frontload.data_tools.packing.steps import StepBudget, step_starts
from frontload.data_tools.proof.checks import wrong
from frontload.data_tools.proof.pack import verify_pack
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Pack
from tests.unit.data_command import run_data_command
from tests.unit.data_tools.room import Room

S, ROWS_OF_STEP, STEPS = 64, 4, 100
BUDGETS = {"read": 20_001, "loss": 10_003}


def recipe(unit: str, **changes: object) -> Pack:
    values = {
        "sequence_tokens": S,
        "tokens": BUDGETS[unit],
        "over_long": "drop",
        "seed": 4,
        "unit": unit,
        "steps": STEPS,
        "batch_rows": ROWS_OF_STEP,
    }
    return Pack(**(values | changes))  # type: ignore[arg-type]


def run_pack(room: Room, one: Pack, name: str) -> Path:
    inputs = {
        "documents": room.folder / "mix-lmq",
        "tokenizer": room.folder / "tokenizer",
    }
    return room.run("pack", one, name=name, **inputs)


@pytest.fixture(scope="module", params=BUDGETS)
def pack(request: pytest.FixtureRequest, built_room: Room) -> Path:
    return run_pack(built_room, recipe(request.param), f"budget-{request.param}")


def test_the_budget_is_spent_to_the_token_and_each_step_takes_its_share(pack: Path) -> None:
    """Counted here from the rows, the masks and the order; no function of the room."""
    counts = read_json(pack / "pack.json")
    budget, unit = counts["budget_tokens"], counts["step_budget"]["unit"]
    tokens, mask = IndexedReader(pack / "tokens"), IndexedReader(pack / "loss_mask")
    order, starts = np.load(pack / "order.npy"), np.load(pack / "steps.npy")
    rows = [mask.document(int(row)) for row in order]
    rows[-1] = rows[-1][: counts["last_row_tokens"]]
    spent = [len(row) if unit == "read" else int(row.sum()) for row in rows]
    assert sum(spent) == budget
    assert rows[-1][-1] == 1 or unit == "read"
    assert (len(starts), starts[0], starts[-1]) == (STEPS + 1, 0, len(order))
    assert set(np.diff(starts)) <= set(range(1, ROWS_OF_STEP + 1))
    ends = np.cumsum([0, *spent])
    longest, full = max(spent), np.append(False, np.diff(starts) == ROWS_OF_STEP)
    for step, place in enumerate(starts):
        off = abs(ends[place] - budget * step / STEPS)
        assert off <= longest / 2 or full[step], "only a full batch ends before its share"
    assert tokens.num_documents < len(order), "the set is read more than once"
    read = account_reading(pack)
    assert read.tokens == sum(map(len, rows))
    assert read.loss_tokens == sum(int(row.sum()) for row in rows)
    assert read.distinct_tokens == tokens.num_tokens
    assert read.padding_share == pytest.approx(1 - read.tokens / (len(order) * (S + 1)))
    whole = {"read": tokens.num_tokens, "loss": int(mask.tokens.sum())}
    assert read.epochs == pytest.approx(budget / whole[unit])
    assert wrong(verify_pack(pack)) == []


def test_distinct_tokens_of_a_set_read_in_part(built_room: Room) -> None:
    folder = run_pack(built_room, recipe("read", tokens=700, steps=4), "budget-part")
    assert account_reading(folder).distinct_tokens == account_reading(folder).tokens == 700


def claims(folder: Path) -> list[str]:
    return [one.claim for one in wrong(verify_pack(folder))]


def test_a_changed_budget_is_caught(pack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(pack, folder)
    counts = read_json(folder / "pack.json")
    unit = counts["step_budget"]["unit"]
    write_json(folder / "pack.json", counts | {"last_row_tokens": counts["last_row_tokens"] - 1})
    assert claims(folder)[0] == f"budget in tokens {unit}"
    starts = np.load(folder / "steps.npy")
    starts[7] += 1 if starts[8] - starts[7] > 1 else -1
    np.save(folder / "steps.npy", starts)
    counts["files"]["steps.npy"] = describe_file(folder / "steps.npy")
    write_json(folder / "pack.json", counts)
    assert claims(folder) == ["steps end nearest to their shares"]
    np.save(folder / "steps.npy", starts[:-1])
    counts["files"]["steps.npy"] = describe_file(folder / "steps.npy")
    write_json(folder / "pack.json", counts)
    assert "samples" in claims(folder)


def test_a_sample_says_which_step_takes_it(
    pack: Path, built_room: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    counts, starts = read_json(pack / "pack.json"), np.load(pack / "steps.npy")
    tokenizer = str(built_room.folder / "tokenizer")
    last = counts["rows_read"] - 1
    assert run_data_command("explain", pack, last, "--tokenizer", tokenizer) == 0
    printed = capsys.readouterr().out
    assert f"step {STEPS} of {STEPS}, cut behind {counts['last_row_tokens']} tokens" in printed
    first = int(starts[3])
    assert run_data_command("peek", pack, "--tokenizer", tokenizer, "--first", first) == 0
    assert f"sample {first} of step 4: row" in capsys.readouterr().out


def test_too_few_rows_a_step_are_refused_with_the_number_that_fits(built_room: Room) -> None:
    with pytest.raises(RecipeError, match="every step is one batch") as raised:
        run_pack(built_room, recipe("read", steps=70), "budget-small")
    fits = int(str(raised.value).split("step_tokens to at most ")[1].split(",")[0].replace("_", ""))
    steps = -(-BUDGETS["read"] // fits)
    assert steps > 70
    made = run_pack(built_room, recipe("read", steps=steps), "budget-fits")
    assert np.diff(np.load(made / "steps.npy")).max() == ROWS_OF_STEP


def test_more_passes_than_allowed_are_refused_in_the_budgets_unit(
    built_room: Room, pack: Path
) -> None:
    counts = read_json(pack / "pack.json")
    unit = counts["step_budget"]["unit"]
    size = counts["tokens" if unit == "read" else "loss_tokens"]
    with pytest.raises(RecipeError, match=f"lower sft.tokens to at most {2 * size:_}"):
        run_pack(built_room, recipe(unit, tokens=2 * size + 1, max_epochs=2.0), f"passes-{unit}")
    made = recipe(unit, tokens=2 * size, max_epochs=2.0)
    assert read_json(run_pack(built_room, made, f"two-{unit}") / "pack.json")["epochs"] == "2"


def test_steps_are_the_nearest_that_a_batch_allows() -> None:
    """Against every way to cut a few rows: none follows the shares more closely."""
    rng = np.random.default_rng(0)
    budget = StepBudget(unit="read", steps=4, batch_rows=3)
    for _ in range(30):
        ends = np.cumsum(rng.integers(5, 20, size=9))
        starts = step_starts(ends, budget).tolist()
        edges = [0, *ends.tolist()]
        for step in (1, 2, 3):
            share = ends[-1] * step / 4
            least = max(starts[step - 1] + 1, 9 - 3 * (4 - step))
            most = min(starts[step - 1] + 3, 9 - (4 - step))
            best = min(range(least, most + 1), key=lambda place: abs(edges[place] - share))
            assert abs(edges[starts[step]] - share) == abs(edges[best] - share)


def test_the_order_of_rows_is_that_of_a_budget_in_rows(pack: Path) -> None:
    counts = read_json(pack / "pack.json")
    order = np.load(pack / "order.npy")
    assert np.array_equal(order, order_rows(counts["rows"], len(order), seed=4))
