"""Changes per device class, client arguments and declared figures, as far as reading a scenario goes."""

from types import SimpleNamespace

import pytest

from fedge.coordinator.schedule import plan_round
from fedge.errors import UserError
from fedge.protocol import RoundPlan
from fedge.scenario.changes import flat, merged, nested
from fedge.scenario.file import parse_scenario, scenario_toml
from fedge.scenario.load import load_scenario


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("fleet.1.training.pruning.level=1", "fleet.1.training.pruning.level is 1; it should be less than 1"),
        ("fleet.0.training.prunning.level=0.3", "unknown key 'fleet.0.training.prunning'; did you mean 'pruning'?"),
        ("fleet.2.training.epochs=0", "fleet.2.training.epochs is 0; it should be greater than or equal to 1"),
        ("fleet.0.training=7", "fleet.0.training is 7; it is a section"),
        ("fleet.0.training.instance_filter.distrust=0.4", "fleet.0.training.instance_filter: distrust is 0.4"),
        ("schedule.args.low=0.2", "schedule: args are for a policy"),
        ("schedule.policy=dedline", "no policy called 'dedline'; did you mean 'deadline'?"),
        ("client.arg.beta=1", "unknown key 'client.arg'; did you mean 'args'?"),
        ("report.figures.f1={least=0.0,most=0.0,steps=4}", "least is 0 and most 0; least must be the smaller"),
        ("report.figures.f1={least=0.0,most=1.0,steps=1}", "steps is 1; it should be greater than or equal to 2"),
        ("report.figures.class={least=0.0,most=1.0,steps=4}", "'class' is a word of Python's"),
    ],
)  # fmt: skip
def test_wrong_values_are_one_line_at_their_place(change: str, told: str) -> None:
    """Breaks if a mistake in the new sections is blamed on another key, or passes."""
    with pytest.raises(UserError) as caught:
        load_scenario("quickstart", [change])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_figures_are_budgeted_together() -> None:
    """Breaks if many small figures tell more than one large one may."""
    five = [f"report.figures.f{number}={{least=0.0, most=1.0, steps=256}}" for number in range(5)]
    assert load_scenario("quickstart", five[:4]).report.figures.keys() == {"f0", "f1", "f2", "f3"}
    with pytest.raises(UserError, match=r"report\.bits is 32 and the figures take 40"):
        load_scenario("quickstart", five)
    load_scenario("quickstart", [*five, "report.bits=40"])


def test_a_class_keeps_what_it_does_not_change() -> None:
    """Breaks if a class's changes drop the scenario's other settings, or touch another class."""
    scenario = load_scenario("quickstart", ["fleet.1.training.instance_filter.keep=0.2"])
    pi, nano = scenario.training_of(scenario.fleet[1]), scenario.training_of(scenario.fleet[0])
    assert nano == scenario.training
    assert (pi.instance_filter.kind, pi.instance_filter.keep) == ("early", 0.2)
    assert pi.model_copy(update={"instance_filter": nano.instance_filter}) == nano


def test_another_kind_starts_anew() -> None:
    """Breaks if keys of the scenario's filter are refused as keys of the class's."""
    scenario = load_scenario("quickstart", ['fleet.0.training.instance_filter={kind="smb", keep=0.3}'])
    assert scenario.training_of(scenario.fleet[0]).instance_filter.kind == "smb"


def test_client_arguments_survive_the_written_scenario() -> None:
    """Breaks if a resumed run, or a host, reads other arguments than were given."""
    scenario = load_scenario("quickstart", ["client.args.beta=0.1", 'client.args.layers=["a", "b"]'])
    assert (scenario.client_program, scenario.client_args) == ("edge", {"beta": 0.1, "layers": ("a", "b")})
    import tomllib

    assert parse_scenario(tomllib.loads(scenario_toml(scenario))) == scenario
    assert type(scenario).model_validate_json(scenario.model_dump_json(exclude_none=True)) == scenario


def test_dotted_and_nested_changes_say_the_same() -> None:
    """Breaks if a policy's dotted keys lose a value on their way to a section and back."""
    changes = {"training.pruning.level": 0.5, "training.pruning.criterion": "l1", "prune": True}
    assert dict(flat(nested(changes))) == changes
    assert nested({"training": {"epochs": 2}, "training.batch_size": 8}) == {
        "training": {"epochs": 2, "batch_size": 8}
    }
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    with pytest.raises(ValueError, match="goes into a value"):
        nested({"training.epochs": 1, "training.epochs.more": 2})


def test_another_kind_of_error_map_keeps_the_share() -> None:
    """Breaks if `--set training.error_maps.kind=pixel` turns the pruning off, for `keep` is lost with the kind."""
    changed = load_scenario("quickstart", ["training.error_maps.keep=0.3", "training.error_maps.kind=pixel"])
    assert (changed.training.error_maps.kind, changed.training.error_maps.keep) == ("pixel", 0.3)
    of_class = load_scenario(
        "quickstart",
        ["training.error_maps.keep=0.3", "fleet.0.training={error_maps={kind='map'}}"],
    )
    error_maps = of_class.training_of(of_class.fleet[0]).error_maps
    assert (error_maps.kind, error_maps.keep) == ("map", 0.3)


def test_a_kind_that_changes_nothing_weighs_nothing() -> None:
    """Breaks if messages grow, and with them the virtual time of every run, where no kind is chosen."""
    usual, chosen = (
        plan_round(load_scenario("quickstart", [f"training.error_maps.kind={kind}"]), 2)
        for kind in ("channel", "pixel")
    )
    text = str(usual.content())
    assert "threshold" not in text and "target" not in text and "threshold" in str(chosen.content())
    for plan in (usual, chosen):
        assert RoundPlan.from_message(SimpleNamespace(content=plan.content())) == plan  # type: ignore[arg-type]
