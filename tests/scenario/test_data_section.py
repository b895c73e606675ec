"""What `[data]` asks for against what is known of the data sets."""

import pytest

from fedge.cli import app
from fedge.errors import UserError
from fedge.scenario.load import left_out


@pytest.mark.parametrize("by", ["run", "time"])
def test_only_recorded_rows_can_be_cut_by_runs_or_time(small, by):
    """Pictures in no order would be cut as if they were a recording."""
    with pytest.raises(
        UserError,
        match=f"data.split.by is '{by}'.*'digits' has none \\(har has;.*imported with a time\\)",
    ):
        small(f"data.split.by={by}")
    scenario = small(f"data.split.by={by}", "data.dataset=har", "model.name=har_cnn")
    assert scenario.data.split.by == by and scenario.data.split.train == 0.6


def test_an_unknown_way_to_cut_is_answered_with_those_there_are(small):
    """A typing error would cut at random without a word."""
    with pytest.raises(UserError, match=r"data\.split\.by.*'row', 'run' or 'time'"):
        small("data.split.by=runs")


def test_rows_are_cut_at_random_unless_it_is_said(small):
    """Every scenario without the key would be another one."""
    assert small().data.split.by == "row"


def test_the_shipped_har_scenario_is_cut_by_runs():
    """Its figures would be those of a random cut through overlapping windows."""
    from fedge.scenario.load import load_scenario

    assert load_scenario("har-subjects").data.split.by == "run"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            ["data.partition={kind='pathological',classes=1}"],
            "at least 4 of 10 classes are left to no client",
        ),
        (["data.partition={kind='shards',per_client=5}"], "leaves 27 of 1,527 rows to no client"),
        (
            ["data.partition={kind='natural'}", "data.dataset=har", "model.name=har_cnn"],
            "the rows of 24 of 30 people to no client",
        ),
        (["data.partition={kind='pathological',classes=2}"], None),
        (["data.partition={kind='iid'}"], None),
    ],
)
def test_a_plan_says_what_is_left_to_nobody(small, changes, line):
    """Two fifths of the data would vanish, and be found out after the run."""
    lines = left_out(small(*changes))
    assert len(lines) == (line is not None) and all(line in told for told in lines)


def test_the_plan_command_tells_it_beside_its_table(capsys):
    """A person would not see it; a program that reads --json would stumble over it."""
    import json

    changes = ["--set", "data.partition={kind='pathological',classes=1}", "--set", "fleet.0.count=1"]
    app(["plan", "quickstart", "--json", *changes, "--set", "fleet.1.count=1", "--set", "fleet.2.count=1"],
        standalone_mode=False)  # fmt: skip
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 3 and "at least 7 of 10 classes are left to no client" in err
