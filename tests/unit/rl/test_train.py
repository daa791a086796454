"""Around veRL's run: checkpoints found after a kill, logs read as they grow, prompts cut."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from frontload.data_tools.prompts.length import load_limit
from frontload.data_tools.prompts.rl_parquet import read_messages
from frontload.megatron_ext.hf.convert import export_hf
from frontload.megatron_ext.hf.tokenizer import write_tokenizer
from frontload.megatron_ext.inference.draws import Sampling, uniform_draws
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.grammar.load import find_recipe, load_recipe
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.plugins.agent_loop import draw_seed, row_order
from frontload.rl.trainer.inputs import prepare, write_file, write_prompts
from frontload.rl.trainer.local_run import local_settings, micro_batch_rows
from frontload.rl.trainer.processes import ray_folder
from frontload.rl.trainer.settings import RunFiles
from frontload.rl.watch.checkpoints import TRACKER, last_step
from frontload.rl.watch.log_reader import LogReader
from tests.unit.megatron_ext.convert_inputs import write_checkpoint, write_tokenizer_file
from tests.unit.rl.test_checkpoints import write_step


def tiny_recipe() -> GrpoRecipe:
    path = find_recipe("training", "grpo_tiny")
    assert path is not None
    return load_recipe(path, GrpoRecipe).value


def run_files(folder: Path) -> RunFiles:
    return RunFiles(
        model=folder / "model",
        train_prompts=folder / "train.parquet",
        validation_prompts=folder / "validation.parquet",
        checkpoints=folder / "checkpoints",
        work=folder / "verl",
    )


@pytest.mark.parametrize(
    ("tracker", "logged", "step"),
    [
        (None, 0, 0),
        ("3", 3, 3),
        ("3", 2, 2),  # killed after step 3 was saved and before it was logged
        ("1", 0, 0),  # the same at the first checkpoint: from the beginning
        ("", 3, 3),  # killed while the tracker was written
        ("2", 3, 2),  # killed while the checkpoint of step 3 was written
    ],
)
def test_where_a_killed_run_goes_on(
    tmp_path: Path, tracker: str | None, logged: int, step: int
) -> None:
    for number in (1, 2, 3):
        write_step(tmp_path, number, ranks=1)
    (tmp_path / "global_step_4").mkdir()
    if tracker is not None:
        (tmp_path / TRACKER).write_text(tracker)
    assert last_step(tmp_path, logged=logged) == step
    assert (tmp_path / TRACKER).exists() == (step > 0)
    if step:
        assert (tmp_path / TRACKER).read_text() == str(step)


def test_log_reader_waits_for_whole_lines(tmp_path: Path) -> None:
    reader = LogReader(tmp_path / "steps.jsonl")
    assert list(reader.read()) == []
    with open(reader.path, "w") as file:
        file.write('{"step": 1}\n{"st')
        file.flush()
        assert list(reader.read()) == [{"step": 1}]
        assert list(reader.read()) == []
        file.write('ep": 2}\n')
        file.flush()
        assert list(reader.read()) == [{"step": 2}]


def test_rows_stand_by_length_inside_an_update_and_never_leave_it() -> None:
    lengths = [9, 3, 5, 7, 8, 2]
    tags = [{"draw": 0, "place": place, "seq_len": length} for place, length in enumerate(lengths)]
    tags[0], tags[5] = tags[5], tags[0]  # as they come out of the queue
    order = row_order(tags, rows_an_update=3)
    assert [tags[row]["place"] for row in order] == [1, 2, 0, 5, 3, 4]


def test_micro_batches_are_equal_parts_of_an_update() -> None:
    assert [micro_batch_rows(rows) for rows in (256, 32, 96, 67)] == [64, 32, 48, 1]


def test_draws_differ_by_step_prompt_and_sample_and_come_back() -> None:
    def draws(stream: str) -> list[list[float]]:
        sampling = Sampling(
            max_new_tokens=4,
            temperature=1.0,
            seed=draw_seed(1, stream),
            stop_token=1,
            num_samples=2,
        )
        return uniform_draws([0, 1], sampling).tolist()

    assert draws("step 1") == draws("step 1")
    rows = [tuple(row) for row in draws("step 1") + draws("step 2") + draws("validation")]
    assert len(set(rows)) == len(rows)


def test_prompts_are_split_and_too_few_are_refused(tmp_path: Path) -> None:
    rows = [
        {
            "id": str(place),
            "question": f"what is {place}",
            "trace": "",
            "answer": "7",
            "family": "own",
            "domain": "math",
        }
        for place in range(20)
    ]
    source = tmp_path / "prompts.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = run_files(tmp_path)
    (tmp_path / "model").mkdir()
    tokenizer = write_tokenizer_file(tmp_path / "tokenizer.json")
    write_tokenizer(tokenizer, tmp_path / "model", max_sequence_tokens=128)
    limit = load_limit(tmp_path / "model", 64)
    write_prompts(replace(tiny_recipe(), batch_prompts=18), source, files, limit=limit)
    import pyarrow.parquet as pq

    train, held = (
        pq.read_table(path).to_pylist() for path in (files.train_prompts, files.validation_prompts)
    )
    questions = [row["extra_info"]["question"] for row in train + held]
    assert questions == [row["question"] for row in rows]
    assert (len(train), len(held)) == (18, 2)
    with pytest.raises(ArtifactError, match="a step takes 19"):
        write_prompts(replace(tiny_recipe(), batch_prompts=19), source, files, limit=limit)


def test_rows_that_are_too_long_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A question of n words has n + 2 tokens: the template writes a mark before and behind it."""
    (tmp_path / "model").mkdir()
    tokenizer = write_tokenizer_file(tmp_path / "tokenizer.json")
    write_tokenizer(tokenizer, tmp_path / "model", max_sequence_tokens=128)
    row = {"trace": "", "answer": "7", "family": "own", "domain": "math"}
    texts = ["3 + 4", "what is 3 + 4", "3 + 4 + 3 + 4 + 3"]
    source, target = tmp_path / "rows.jsonl", tmp_path / "p.parquet"
    lines = [json.dumps({"id": text, "question": text, **row}) for text in texts]
    source.write_text("\n".join(lines) + "\n")

    def kept(tokens: int) -> list[str]:
        limit = load_limit(tmp_path / "model", tokens)
        recipe = replace(tiny_recipe(), batch_prompts=1, mini_batch_prompts=1)
        write_file(recipe, source, target, split="train", limit=limit)
        return [messages[0][1] for messages in read_messages(target)]

    assert kept(11) == texts
    assert not caplog.messages
    assert kept(10) == texts[:2]
    assert caplog.messages == [f"prompts {source}: 1 over 10 tokens are left out, 2 stay"]
    with pytest.raises(RecipeError, match="all are left out: 3 over 4 tokens") as caught:
        kept(4)
    assert caught.value.exit_code == 2
    kept(11)
    limit = load_limit(tmp_path / "model", 10)
    recipe = replace(tiny_recipe(), batch_prompts=1, mini_batch_prompts=1)
    with pytest.raises(RecipeError, match="1 of 3 over 10 tokens"):
        write_file(recipe, target, tmp_path / "copy.parquet", split="train", limit=limit)


def test_a_hugging_face_folder_and_two_files_are_read_as_a_checkpoint_and_prompts(
    tmp_path: Path,
) -> None:
    model = replace(tiny_recipe().model, vocab_size=16)
    recipe = replace(tiny_recipe(), model=model, batch_prompts=2, mini_batch_prompts=2)
    (tmp_path / "start").mkdir()
    write_checkpoint(tmp_path / "start", model)
    tokenizer = write_tokenizer_file(tmp_path / "tokenizer.json")
    export_hf(tmp_path / "start", tmp_path / "hf", tokenizer=tokenizer)
    row = {"trace": "", "answer": "7", "family": "own", "domain": "math"}
    lines = [json.dumps({"id": f"{n}", "question": f"3 + {n}", **row}) for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "held.jsonl").write_text(lines[0] + "\n")
    given = {"prompts": tmp_path / "rows.jsonl", "validation": tmp_path / "held.jsonl"}

    def prepared(name: str, start: dict[str, Path]) -> RunFiles:
        (tmp_path / name).mkdir()
        return prepare(recipe, {**given, **start}, tmp_path / name)

    ours = prepared("a", {"start": tmp_path / "start", "tokenizer": tokenizer})
    given = {"prompts": ours.train_prompts, "validation": ours.validation_prompts}  # parquet
    theirs = prepared("b", {"start": tmp_path / "hf"})
    names = sorted(path.name for path in ours.model.iterdir())
    assert names == sorted(path.name for path in theirs.model.iterdir())
    for one, other in [
        *((ours.model / name, theirs.model / name) for name in names),
        (ours.train_prompts, theirs.train_prompts),
        (ours.validation_prompts, theirs.validation_prompts),
    ]:
        assert one.read_bytes() == other.read_bytes(), one.name

    (tmp_path / "hf" / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match="no tokenizer.json"):
        prepared("c", {"start": tmp_path / "hf"})
    recipe = replace(recipe, model=replace(model, ffn_hidden_size=64))
    with pytest.raises(ArtifactError, match="ffn_hidden_size is 192"):
        prepared("d", {"start": tmp_path / "hf"})
    recipe = replace(recipe, model=model, batch_prompts=4)
    with pytest.raises(ArtifactError, match="a step takes 4"):
        prepared("e", {"start": tmp_path / "start", "tokenizer": tokenizer})


def test_local_settings_stay_on_this_machine(tmp_path: Path) -> None:
    settings = local_settings(
        tiny_recipe(), Placement(), run_files(tmp_path), ray_folder=tmp_path / "ray"
    )
    assert "+ray_kwargs.ray_init.address=local" in settings.overrides
    assert "reward.num_workers=0" in settings.overrides
    assert settings.environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert settings.environment["HF_HUB_OFFLINE"] == "1"


def test_ray_folder_is_short_private_and_removed_after_a_kill(tmp_path: Path) -> None:
    note = tmp_path / "note"
    left = tmp_path / "left by a kill"
    left.mkdir()
    note.write_text(str(left))
    with ray_folder(note) as folder:
        assert folder.stat().st_mode & 0o077 == 0
        socket = folder / "session_2026-11-21_12-00-00_123456_1234567/sockets/plasma_store"
        assert len(str(socket)) <= 107  # sun_path of unix(7), with its end
        assert not left.exists()
        assert note.read_text() == str(folder)
    assert not folder.exists()
    assert not note.exists()
