"""The doctor: what it calls wrong, what it names among nodes, and how it finds culprits."""

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontload.eval.sandbox import isolation
from frontload.launch import cli
from frontload.launch.doctor import machine, software
from frontload.launch.doctor.bisect import find_culprits
from frontload.launch.doctor.command import fill
from frontload.launch.doctor.finding import NOTE, OK, WRONG, Finding
from frontload.launch.doctor.nodes import NodeRates, by_node, judge
from frontload.launch.doctor.software import read_pins, software_findings
from tests.ranks import run_on_ranks


def by_name(findings: Sequence[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in findings}


def test_this_machine_is_fit_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--json", "--disk", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fit"] is True
    assert {one["name"] for one in told["findings"]} >= {
        "python",
        "packages: train",
        "disk",
        "apex",
    }
    assert cli.main(["doctor", "--brief", "--disk", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "", "brief says what is wrong alone"


def test_what_is_wrong_comes_with_its_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "LEAST_DISK", 1 << 60)
    assert cli.main(["doctor", "--disk", str(tmp_path / "later")]) == 1
    out = capsys.readouterr().out
    assert "WRONG disk" in out
    assert f"free at {tmp_path}" in out, "the folder that is there stands for one that is not yet"
    assert "-> free" in out


@pytest.mark.skipif(machine.has_cuda(), reason="asks for GPUs that this machine has")
def test_a_job_that_asks_for_gpus_finds_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--brief", "--gpus", "8"]) == 1
    assert "no GPU" in capsys.readouterr().out


def test_missing_and_other_versions_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text(
        "# a comment\nnumpy==0.1\nmegatron_core==9.9.9\nPyYAML==" + version("pyyaml") + "\n"
    )
    monkeypatch.setattr(software, "CONSTRAINTS", pins)
    rooms = {"core": ("PyYAML", "numpy"), "train": ("megatron-core",), "data": ("not-there-1",)}
    monkeypatch.setattr(software, "ROOMS", rooms)
    found = by_name(software_findings(on_cuda=True))
    assert found["packages: core"].state == NOTE
    assert "tested with 0.1" in found["packages: core"].found
    assert found["packages: train"].state == WRONG, "its internals are used as of one version"
    assert found["packages: data"].state == WRONG
    assert found["packages: data"].found == "missing: not-there-1"
    assert found["packages: data"].do == "pip install -c constraints.txt -e '.[data]'"
    assert read_pins(tmp_path / "none") == {}


@pytest.mark.parametrize(("part", "state"), [("optimizers", OK), ("lib", WRONG)])
def test_the_apex_of_pyramid_is_told_from_nvidias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, state: str
) -> None:
    (tmp_path / "apex" / part).mkdir(parents=True)
    (tmp_path / "apex" / "__init__.py").write_text("raise ImportError('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = by_name(software_findings(on_cuda=False))["apex"]
    assert found.state == state
    assert found.do == ("pip uninstall apex" if state == WRONG else "")
    assert "apex" not in sys.modules


def test_kernels_are_missed_on_a_gpu_alone() -> None:
    on_gpu = by_name(software_findings(on_cuda=True))
    on_cpu = by_name(software_findings(on_cuda=False))
    for name in software.KERNELS:
        assert on_cpu[name].state == OK
        if on_gpu[name].state == NOTE:
            assert on_gpu[name].do.startswith("pip install --no-build-isolation")


def test_the_doctor_says_whether_generated_programs_can_be_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = by_name(software_findings(on_cuda=False))["sandbox"]
    assert (here.state, here.found.split()[0]) == (OK, "bubblewrap")
    monkeypatch.setattr(isolation, "what_fails", lambda _: "no user namespaces")
    without = by_name(software_findings(on_cuda=False))["sandbox"]
    assert without.state == NOTE, "the CPU study needs none"
    assert "no user namespaces: generated programs are not graded" in without.found
    assert "user.max_user_namespaces" in without.do


def rates(node: str, **changes: float) -> NodeRates:
    found = {"gemm_tflops": 600.0, "write_mib": 900.0, "read_mib": 2_000.0, "clock_seconds": 0.0}
    return NodeRates(node=node, **(found | changes))


def test_slow_nodes_are_named_with_rate_and_median() -> None:
    good = [rates(f"n{number}") for number in range(6)]
    bad = judge(
        [*good, rates("slow", gemm_tflops=300.0), rates("late", clock_seconds=-3.0)],
        least_share=0.85,
    )
    assert [(one.name, one.state) for one in bad] == [("slow", WRONG), ("late", NOTE)]
    assert bad[0].found == "300 TFLOP/s in a matrix product, 50% of the median 600"
    assert judge([*good, rates("n7", gemm_tflops=520.0)], least_share=0.85) == []
    disk = judge([*good, rates("n7", write_mib=10.0, read_mib=10.0)], least_share=0.85)
    assert [one.name for one in disk] == ["n7", "n7"]


def test_a_node_is_as_slow_as_its_slowest_rank() -> None:
    one = {"gemm_tflops": 5.0, "write_mib": 1.0, "read_mib": 2.0, "clock_seconds": 10.0}
    ranks = [
        {**one, "node": "0:a"},
        {**one, "node": "1:b", "clock_seconds": 12.5},
        {**one, "node": "0:a", "gemm_tflops": 3.0},
    ]
    found = by_node(ranks)
    assert [(one.node, one.gemm_tflops) for one in found] == [("0:a", 3.0), ("1:b", 5.0)]
    assert found[1].clock_seconds == 2.5


NAMES = [f"n{number}" for number in range(16)]


@given(bad=st.sets(st.sampled_from(NAMES), max_size=4), needs_company=st.booleans())
def test_every_bad_member_is_found_and_no_good_one(bad: set[str], needs_company: bool) -> None:
    """Whether a bad host fails by itself, or only when it has somebody to talk to."""

    def works(group: Sequence[str]) -> bool:
        return not bad & set(group) or (needs_company and len(group) == 1)

    assert {one for part in find_culprits(NAMES, works) for one in part} == bad


@given(st.lists(st.sampled_from(NAMES), min_size=2, max_size=2, unique=True))
def test_a_bad_link_is_its_two_ends(ends: list[str]) -> None:
    found = find_culprits(NAMES, lambda group: not set(ends) <= set(group))
    assert [set(part) for part in found] == [set(ends)]


def test_one_bad_member_among_many_takes_few_questions() -> None:
    names = [f"n{number}" for number in range(512)]
    asked: list[int] = []

    def works(group: Sequence[str]) -> bool:
        asked.append(len(group))
        return "n300" not in group

    assert find_culprits(names, works) == [("n300",)]
    assert len(asked) <= 12, "9 halvings of 512, and three groups that were asked about whole"


def test_bisecting_runs_the_probe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    probe = tmp_path / "probe.sh"
    probe.write_text('case ",$1," in *,n3,*) exit 9;; esac; exit 0\n')
    words = ["doctor", "--bisect", "n1,n2,n3,n4", "--probe", f"bash {probe} {{hosts}} {{count}}"]
    assert cli.main(words) == 1
    out = capsys.readouterr().out
    assert "bad host: n3\n" in out
    assert "4 hosts, n1,n2,n3,n4: fails (9)" in out
    assert cli.main(["doctor", "--bisect", "n1,n2", "--probe", "true {first}"]) == 0
    assert "the whole group works" in capsys.readouterr().out
    assert fill("a --n={count} {first} {hosts}", ["x", "y"]) == ["a", "--n=2", "x", "x,y"]


def test_a_probe_without_an_answer_has_failed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", "--bisect", "n1", "--probe", "sleep 30", "--probe-seconds", "0.2"]
    assert cli.main(words) == 1
    assert "no answer in time" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--bisect", "a,a"], "a host twice"),
        (["--bisect", ","], "no host"),
        (["--bisect", "a", "--probe", "./not-there"], "cannot be started"),
        (["--least-share", "85"], "write e.g. 0.85"),
        (["--nodes"], "no RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment"),
    ],
)
def test_wrong_questions_are_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert cli.main(["doctor", *words]) == 2
    assert told in capsys.readouterr().err


def measure_here(folder: str) -> list[object]:
    """On a rank: what the doctor tells of this job."""
    from frontload.launch.doctor.nodes import measure

    findings, figures = measure(Path(folder), least_share=0.001)
    return [[one.state for one in findings], figures]


def test_ranks_are_measured_and_rank_0_tells(tmp_path: Path) -> None:
    ranks = run_on_ranks(__file__, "measure_here", 2, arguments={"folder": str(tmp_path)})
    states, figures = ranks[0]
    assert states == [OK]
    assert ranks[1] == [[], {}]
    (node,) = figures["nodes"]
    assert min(node["gemm_tflops"], node["write_mib"], node["read_mib"]) > 0
    assert set(figures["all_reduce_gib_by_mib"]) == {"0.0625", "0.5", "4"}
    assert list(tmp_path.iterdir()) == [], "the file of the storage test is gone"
