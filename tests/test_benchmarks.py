"""The benchmark's own arithmetic, tables and words. No peer, no server and no network is needed for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import environments, options, output, run
from benchmarks.__main__ import main
from benchmarks.cell import Cell
from benchmarks.measures.catalog import MEASURES
from benchmarks.measures.measure import Measure, Metric
from benchmarks.peers.catalog import PEERS
from benchmarks.peers.peer import OF_WORKERS, Peer, Variant
from benchmarks.producer import PeerFailed
from benchmarks.run import Results
from benchmarks.sizes import QUICK
from benchmarks.summary import Summary, percentile, ratio, summarize

FAST, SLOW = Variant("default", "as it comes", 1_000, ()), Variant("default", "as it comes", 10, ())


def peer(name: str, variant: Variant = FAST, **facts: object) -> Peer:
    return Peer(name, (variant,), unfinished="SELECT false", **facts)  # type: ignore[arg-type]


def cell(one: Peer) -> Cell:
    return Cell(None, one, one.variants[0], Path("python"), QUICK)  # type: ignore[arg-type]


def measure(take: object = None) -> Measure:
    metrics = (Metric("rate", "jobs/s"), Metric("server µs", "µs/job", 1, more_is_better=False))
    return Measure("drain", "Drain of no-op jobs", take, metrics)  # type: ignore[arg-type]


def results_of(**rates: list[float]) -> Results:
    results = Results()
    for name, values in rates.items():
        for value in values:
            results.add("drain", f"{name}:default", {"rate": value, "server µs": 1e6 / value, "jobs": 4_000})
    return results


# Numbers


def test_repetitions_become_a_median_with_least_and_most() -> None:
    assert summarize([3.0, 1.0, 2.0, 9.0]) == Summary(2.5, 1.0, 9.0)


@pytest.mark.parametrize(("part", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_one_of_the_values(part: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), part) == expected


def test_a_ratio_says_how_many_times_as_good_ours_is_whichever_way_is_better() -> None:
    ours, theirs = Summary(10, 10, 10), Summary(40, 40, 40)

    assert ratio(theirs, ours, more_is_better=True) == 0.25
    assert ratio(theirs, ours, more_is_better=False) == 4
    assert ratio(Summary(0, 0, 0), ours, more_is_better=True) is None


def test_the_number_of_jobs_follows_from_the_pace_within_bounds() -> None:
    assert cell(peer("fast")).jobs_for(2) == 2_000
    assert cell(peer("slow", SLOW)).jobs_for(2) == QUICK.fewest
    assert cell(peer("fast")).jobs_for(1e6) == QUICK.most


# Tables and JSON


def test_a_table_shows_median_range_ratio_and_jobs() -> None:
    table = output.table(measure(), results_of(ours=[1000, 3000, 2000], other=[500, 500, 500]))

    assert table == (
        "### drain: Drain of no-op jobs\n\n"
        "| peer          |        rate, jobs/s |     server µs, µs/job | × ours:default |  jobs |\n"
        "| ------------- | ------------------: | --------------------: | -------------: | ----: |\n"
        "| ours:default  | 2,000 (1,000–3,000) | 500.0 (333.3–1,000.0) |           1.00 | 4,000 |\n"
        "| other:default |                 500 |               2,000.0 |           4.00 | 4,000 |"
    )


def test_who_is_missing_is_said_with_the_reason() -> None:
    results = results_of(ours=[1000])
    results.skipped["oban"] = "needs Python 3.12 or later, and none was found"
    results.failed["drain"] = {"chancy:thread": "no job started within 60 s"}

    text = output.tables(results, [measure()])

    assert "- oban: needs Python 3.12 or later, and none was found" in text
    assert "chancy:thread failed: no job started within 60 s" in text


def test_a_measure_that_nobody_took_has_an_empty_table() -> None:
    assert "| peer |" in output.table(measure(), Results())


def test_json_holds_every_value_with_its_unit_and_the_conditions() -> None:
    results = results_of(ours=[1000, 3000])
    results.skipped["oban"] = "why"

    document = json.loads(json.dumps(output.as_json(results, [measure()], output.conditions(QUICK, 2))))

    assert document["measures"]["drain"]["peers"]["ours:default"]["rate"] == {
        "median": 2000,
        "least": 1000,
        "most": 3000,
        "values": [1000, 3000],
    }
    assert document["measures"]["drain"]["units"]["rate"] == "jobs/s"
    assert document["skipped"] == {"oban": "why"}
    assert {"commit", "python", "cpus", "repeat", "sizes"} <= document["conditions"].keys()


# Turns


def test_peers_take_turns_and_one_that_fails_is_left_out_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def take(cell: Cell) -> Mapping[str, float]:
        turns.append(cell.peer.name)
        if cell.peer.name == "bad":
            raise PeerFailed("no job started")
        return {"rate": 1.0}

    chosen = [(one, one.variants[0]) for one in (peer("ours"), peer("bad"), peer("other"))]
    monkeypatch.setattr(run, "python_of", lambda one: Path("python"))
    monkeypatch.setattr(run, "note_versions", lambda cells, results: None)
    results = Results()
    run.run(None, chosen, [measure(take)], 3, QUICK, results)  # type: ignore[arg-type]

    assert turns == ["ours", "bad", "other", "ours", "other", "ours", "other"]
    assert results.failed == {"drain": {"bad:default": "no job started"}}
    assert results.series["drain"]["other:default"] == {"rate": [1.0, 1.0, 1.0]}


def test_a_peer_that_cannot_be_installed_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "_candidates", lambda least: iter(()))
    future = peer("future", least_python=(9, 0))
    monkeypatch.setattr(Peer, "requirements", property(lambda one: Path(__file__)))

    results = Results()

    run.run(None, [(future, FAST)], [measure()], 1, QUICK, results)  # type: ignore[arg-type]

    assert results.skipped == {"future": "needs Python 9.0 or later, and none was found"}


# Options


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--peers", "ours,sidekiq"], "there is no peer 'sidekiq'; there are ours:default"),
        (["--measures", "speed"], "there is no measure 'speed'; there are enqueue"),
        (["--repeat", "0"], "'0' is not a number from 1 on"),
    ],
)
def test_a_wrong_option_is_answered_by_what_there_is(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)

    assert said in capsys.readouterr().err


def test_a_peer_is_chosen_whole_or_by_variant() -> None:
    chosen = options.chosen_peers("pgqueuer:b100,ours")

    assert [f"{one.name}:{variant.name}" for one, variant in chosen][:2] == ["pgqueuer:b100", "ours:default"]
    assert {one.name for one, _ in chosen} == {"pgqueuer", "ours"}


def test_the_list_names_every_variant_and_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0

    listed = capsys.readouterr().out
    assert all(f"{one.name}:{variant.name}" in listed for one in PEERS for variant in one.variants)
    assert all(one.title in listed for one in MEASURES)


# The catalogs


def test_every_peer_pins_what_it_installs() -> None:
    for one in PEERS:
        if not one.is_ours:
            lines = one.requirements.read_text().splitlines()
            assert all("==" in line.partition(";")[0] for line in lines), one.name


def test_names_are_unique_and_variants_name_measures_that_exist() -> None:
    names = [measure.name for measure in MEASURES]
    only = {name for one in PEERS for variant in one.variants for name in variant.measures}

    assert len(set(names)) == len(names)
    assert len({one.name for one in PEERS}) == len(PEERS)
    assert only | set(OF_WORKERS) <= set(names)
