"""The command `theory`: its page and JSON, its refusals, and its end where a check fails."""

import json
from pathlib import Path

import pytest

from frontload.eval.theory import lab, step_curves
from frontload.eval.theory.shown import Theory, TheoryCheck
from frontload.launch import cli


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fewer draws than the page has, in a folder of its own."""
    monkeypatch.setattr(step_curves, "UPDATES", 20)
    monkeypatch.setattr(step_curves, "SEEDS", 1)
    monkeypatch.setattr(step_curves, "TEST_PROMPTS", 20)
    monkeypatch.chdir(tmp_path)


def test_the_page_holds_every_figure_with_what_it_can_and_cannot_mirror(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["theory", "--dim", "80", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    folder = Path("results/theory")
    assert json.loads((folder / "theory.json").read_text()) == printed
    names = [one["name"] for one in printed["figures"]]
    assert names == ["prompts", "length", "limit", "steps", "outcomes", "balance"]
    assert all(one["holds"] for one in printed["checks"])
    page = (folder / "theory.html").read_text()
    assert page.count("<svg") == len(names)
    assert "nonlinear transformer" in page
    for one in printed["figures"]:
        assert one["mirrors"].partition("'")[0] in page
        assert one["cannot"].partition("'")[0] in page
        assert (folder / "figures" / f"{one['name']}.png").stat().st_size > 10_000
    limit = printed["figures"][2]["plots"][0]["lines"]
    assert [line["label"] for line in limit][:2] == ["theorem, printed", "theorem, corrected"]


def test_a_check_that_fails_ends_the_command_after_its_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = TheoryCheck(
        name="descent", source="theorem 4.2", found=0.1, allowed=1e-10, unit="of V"
    )
    made = Theory(dim=40, seed=1, checks=(failing,), figures=())
    monkeypatch.setattr(lab, "compute_theory", lambda dim, *, seed: made)
    assert cli.main(["theory", "--dim", "40", "--out", "here"]) == 1
    out, error = capsys.readouterr()
    assert "FAILS  descent  0.1 of V (at most 1e-10; theorem 4.2)" in out
    assert "--seed" in error
    assert Path("here/theory.html").is_file()


@pytest.mark.parametrize("words", [["--dim", "42"], ["--dim", "408"], ["--seed", "-1"]])
def test_wrong_input_is_refused_before_anything_is_written(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["theory", *words]) == 2
    assert f"{words[0]}: is {words[1]}; " in capsys.readouterr().err
    assert list(Path().iterdir()) == []
