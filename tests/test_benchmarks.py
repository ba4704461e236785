"""The benchmarks run, and compare what they say they compare."""

import json
import sys
from pathlib import Path

import pytest
import torch
import trl
from packaging.version import Version

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in set(sys.modules) - before:  # their plain names belong to no one else's tests
        if (BENCHMARKS / f"{name}.py").exists():
            del sys.modules[name]


def test_all_ways_of_scoring_agree():
    from scoring import Case, measure_scoring

    (result,) = measure_scoring([Case("small", 2, 128, 3)], repeats=1)
    assert result["tokens"] == {
        # 2 rows, prompts of 128, 5 boundaries, answers of 7
        "shared": 2 * 256 + 2 * 5 * 7,
        "replay": 2 * 256 + 2 * 5 * 128 + 2 * 7 * 5 + 2 * (32 + 64 + 96 + 128),
        "released": 2 * 5 * (256 + 7),
    }
    assert 0 < max(result["largest_difference"].values()) < 1e-5
    assert set(result["seconds"]) == {"shared", "replay", "released"} and min(result["seconds"].values()) > 0


def test_the_search_for_a_form_is_set_against_scoring(monkeypatch):
    import scoring

    monkeypatch.setattr(scoring, "SEARCHES", [scoring.Case("small", 2, 128, 3)])
    (row,) = scoring.measure_search(repeats=1)
    assert row["case"].endswith("forms") and row["ratios"]["search / scoring"] > 0.5


def test_growth_is_set_against_the_tokens_that_are_read(monkeypatch):
    import scoring

    monkeypatch.setattr(scoring, "GROWTH", {"k": [scoring.Case("small", 1, 128, k) for k in (1, scoring.ALL)]})
    first, both = scoring.measure_growth(repeats=1)
    # A prompt of 128, a completion of 128, answers of 7 at 3 boundaries or at all 5.
    assert first["ratios"] == {} and both["ratios"]["tokens"] == round((256 + 5 * 7) / (256 + 3 * 7), 3)


def test_peak_memory_counts_what_is_alive_at_once():
    from machine import peak_bytes

    def run():
        for _ in range(3):
            a = torch.ones(2**20)
            b = a * 2
            del a, b

    assert 2 * 2**22 <= peak_bytes(run) < 2.5 * 2**22


@pytest.mark.skipif(Version(trl.__version__) < Version("1.15"), reason="older TRL computes its own pass differently")
def test_memory_of_both_passes():
    from memory import measure_memory

    single, half = measure_memory([256], k=3)
    assert single["peak_mib"]["keys and values"] == pytest.approx(2 * half["peak_mib"]["keys and values"], abs=0.1)
    assert all(ratio < 1.15 for ratio in single["ratios"].values())


def test_steps_are_split_into_their_parts(monkeypatch):
    import step

    rows = step.measure_steps("small", 64, ks=(2,), repeats=1)
    assert len(rows) == len(step.CASES)
    for row in rows:
        assert row["seconds"]["stock: loss"] > 0 and row["ratios"]["RePro step / stock step"] > 0.5
    assert (
        rows[1]["seconds"]["stock: rollouts without generation"]
        > rows[0]["seconds"]["stock: rollouts without generation"]
    )


def test_start_up_is_measured_against_a_bare_interpreter(monkeypatch):
    import startup

    monkeypatch.setattr(startup, "CASES", {"import repro_trl": ["-c", "import repro_trl"]})
    (row,) = startup.measure_startup(repeats=1)
    assert row["case"] == "import repro_trl" and min(row["seconds"].values()) > 0 and row["ratios"]


def test_moved_ratios_are_named():
    from check import moved_ratios

    def results(**ratios):
        return {"scoring": {"rows": [{"case": "a", "ratios": ratios}]}}

    assert moved_ratios(results(x=10.0, y=2.0), results(x=12.0, y=1.9), tolerance=0.25) == []
    (line,) = moved_ratios(results(x=10.0, y=2.0), results(x=7.0, y=2.0), tolerance=0.25)
    assert line == "scoring | a | x: 10.000 before, 7.000 now (-30%)"
    with pytest.raises(ValueError, match="no ratio in common"):
        moved_ratios(results(x=1.0), results(z=1.0), tolerance=0.25)


def test_committed_results_meet_what_the_documentation_says():
    results = json.loads((BENCHMARKS / "results" / "cpu.json").read_text())
    rows = [row for part in ("scoring", "long scoring") for row in results[part]["rows"]]
    assert max(difference for row in rows for difference in row["largest_difference"].values()) < 1e-4

    from machine import MODELS

    floors = {10: (7, 15), 30: (14, 30)}
    usual = [row for row in rows if row["rows"] > 1 and row["vocabulary"] >= MODELS[row["model"]][2]]
    compared = [row for row in usual if row["length"] >= 1024 and row["k"] in floors]
    assert len(compared) >= 7
    for row in compared:
        replay, released = floors[row["k"]]
        assert row["ratios"]["replay / shared"] >= replay and row["ratios"]["released / shared"] >= released, row
    for row in results["memory"]["rows"]:
        assert row["ratios"]["RePro / (TRL + keys and values)"] <= 1.15, row
    for row in results["step"]["rows"]:
        limit = 1.45 if row["case"].startswith("no old") else 1.10
        assert row["k"] != 10 or row["ratios"]["RePro step / stock step"] <= limit, row


def test_scoring_waits_for_the_device_three_times_a_micro_batch(monkeypatch):
    from machine import make_model, make_rollouts

    from repro_trl.method.measure import score_rows

    model = make_model("small")
    batch, rows = make_rollouts(2, 128, 2048)
    waits = []
    for name in ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, _name=name, _original=original, **kwargs):
            caller = sys._getframe(1).f_globals["__name__"]
            if caller.startswith("repro_trl"):
                waits.append((_name, caller))
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    score_rows(model, batch, rows, 3, 5, 1.0, "shared")
    # The rows that the LM head reads in each pass, and the entropies that choose the boundaries.
    assert sorted(name for name, _ in waits) == ["nonzero", "nonzero", "tolist"]
