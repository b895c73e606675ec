"""Scenarios: what is accepted, what is refused and how it is said, and that TOML out is TOML in."""

import pytest

from fedge.catalog.files import scenario_names, scenario_path
from fedge.data.datasets import load_dataset
from fedge.data.partition import divide
from fedge.errors import UserError
from fedge.scenario.file import read_scenario, scenario_toml
from fedge.scenario.load import load_scenario

BROKEN = {  # --set on quickstart: what the line must name
    "trainin.batch_size=3": "did you mean 'training'",
    "training.lerning_rate=0.1": "did you mean 'learning_rate'",
    "training.batch_size=0": "training.batch_size is 0",
    "training.learning_rate=nan": "training.learning_rate",
    "training.pruning.level=1": "training.pruning.level is 1; it should be less than 1",
    "training.pruning.level=-0.1": "training.pruning.level",
    "training.error_maps.keep=0": "training.error_maps.keep is 0; it should be greater than 0",
    "training.error_maps.kind=row": "'channel', 'element', 'pixel' or 'map'",
    "training.error_maps={kind='pixel', keep=0.5, score='paper'}": "score is 'paper', which ranks channels",
    "training.error_maps={kind='map', target=0.9}": "target and threshold are of kind 'element', and kind is 'map'",
    "training.error_maps={kind='element', keep=0.5, target=0.9}": "leave keep and threshold out, or target",
    "training.error_maps={kind='element', target=1}": "training.error_maps.target is 1; it should be less than 1",
    "training.instance_filter.keep=0": "training.instance_filter.keep",
    "training.instance_filter.kind=eraly": "training.instance_filter",
    "training.instance_filter={kind='early', keep=0.2, distrust=0.3}": "distrust must be the smaller",
    "training.quantization={bits=8, weight_gradient_bits=4}": "weight_gradient_bits is 4 and bits 8",
    "data.partition.kind=foo": "'dirichlet'",
    "data.partition={kind='dirichlet', alpha=-1}": "data.partition.alpha is -1",
    "data.partition={kind='iid', alpha=3}": "key of another kind; allowed: kind",
    "data.partition.kind=pathological": "--set 'data.partition={kind=\"pathological\", ...}'",
    "training.pruning.level={search='speed'}": "'accuracy', 'memory', 'macs' or 'time'",
    "training.pruning.level={serch='macs'}": "did you mean 'search'",
    "availability.trace=x.csv": "allowed: dropout, kind, path, peak_h",
    "engine.alpha=3": "another section; allowed: address",
    "data.partition={kind='pathological', classes=11}": "data.partition.classes is 11",
    "data.partition={kind='natural'}": "owners",
    "data.partition={kind='subsets', names=['aquatic']}": "cifar100",
    "data.partition={kind='shards', per_client=128}": "at most 127",  # 12 clients, 1527 rows
    "data.split.train=0.9": "sum to 1.3",
    "data.factory_fraction=1": "data.factory_fraction is 1",
    "data.dataset=minst": "did you mean 'mnist'",
    "data=3": "data is 3; it is a section",
    "model.name=lenett": "model.name",
    "model.factory.epochs=1.5": "integer",
    "fleet=[]": "'fleet' is empty",
    "fleet.0.count=0": "fleet.0.count is 0",
    "fleet.0.count=100000": "clients",
    "fleet.0.device=jetson-nan": "jetson-nano",
    "fleet.1.device=jetson-nano": "2 classes called 'jetson-nano'",
    "fleet.9.count=3": "no '9' to go into; the entries are 0 to 2",
    "fleet.1.cuont=3": "did you mean 'count'",
    "rounds=1": "raise rounds",
    "seed=hello": 'seed is "hello"',
    "client=edgy": "did you mean 'edge'",
    "engine.kind=foo": "'ray' or 'inline'",
    "nonsense": "want key=value",
    "name='a/b'": "name is",
}


@pytest.mark.parametrize("change", BROKEN)
def test_broken_scenario_is_one_line_that_names_the_key(change: str) -> None:
    """Breaks if a mistake is accepted, or reported without its place or in several lines."""
    with pytest.raises(UserError) as caught:
        load_scenario("quickstart", [change])
    assert BROKEN[change] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_search_by_accuracy_without_validation_data_is_refused() -> None:
    """Breaks if devices retrain network after network and can compare none of them."""
    nothing_to_compare = [
        "data.split={train=0.8, validation=0.0, test=0.2}",
        "training.pruning.level={search='accuracy'}",
    ]
    with pytest.raises(UserError, match=r"raise data\.split\.validation"):
        load_scenario("quickstart", nothing_to_compare)


def test_as_many_shards_as_rows_can_be_divided() -> None:
    """Breaks if the check refuses what the partitioner can do, or counts other rows than it does."""
    shards = "data.partition={kind='shards', per_client=127}"
    dataset = load_dataset("digits", "")
    scenario = load_scenario("quickstart", [shards])
    rows = divide(dataset, scenario.data, clients=scenario.clients, seed=scenario.seed)
    assert min(len(client.train) for client in rows.clients) > 0


def test_the_blame_lies_where_the_mistake_is(tmp_path) -> None:
    """Breaks if a person looks in the file for what stands on the command line, or the other way round."""
    with pytest.raises(UserError, match=r"^--set: rounds is 0"):
        load_scenario("quickstart", ["rounds=0"])
    broken = tmp_path / "broken.toml"
    broken.write_text(scenario_path("quickstart").read_text().replace("rounds = 6", "rounds = 0"))
    with pytest.raises(UserError, match=r"broken\.toml: rounds is 0"):
        load_scenario(str(broken), ["seed=1"])
    assert load_scenario(str(broken), ["rounds=2"]).rounds == 2


def test_one_change_without_its_list_is_refused() -> None:
    """Breaks if a text is taken letter by letter for a list of changes."""
    with pytest.raises(UserError, match=r"give a list of them: \['rounds=3'\]"):
        load_scenario("quickstart", "rounds=3")


@pytest.mark.parametrize("name", scenario_names())
def test_shipped_scenario_survives_its_own_toml(name: str, tmp_path) -> None:
    """Breaks if a shipped scenario is invalid, or if the resolved file a run leaves behind does not say the same."""
    scenario = load_scenario(name)
    copy = tmp_path / "copy.toml"
    copy.write_text(scenario_toml(scenario))
    assert read_scenario(copy) == scenario


def test_a_later_change_wins_and_text_needs_no_quotes() -> None:
    """Breaks if --set is applied out of order, or if a plain word is not taken as text."""
    scenario = load_scenario("quickstart", ["seed=1", "seed=2", "engine.kind=inline"])
    assert scenario.seed == 2
    assert scenario.engine.kind == "inline"


def test_clients_are_numbered_class_by_class() -> None:
    """Breaks if a client is put in the wrong class: it would get another device's limits and Ray share."""
    scenario = load_scenario("quickstart")
    counts = [device_class.count for device_class in scenario.fleet]
    labels = [scenario.device_class_of(client).label for client in range(scenario.clients)]
    expected = [device_class.label for device_class in scenario.fleet for _ in range(device_class.count)]
    assert labels == expected
    assert len(labels) == sum(counts)


def test_unreadable_and_invalid_files_are_named(tmp_path) -> None:
    """Breaks if a file that is missing, is no TOML or is no text ends in a traceback."""
    with pytest.raises(UserError, match="no such file"):
        scenario_path(str(tmp_path / "none.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("name = [")
    with pytest.raises(UserError, match="not valid TOML"):
        read_scenario(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_scenario(broken)


def test_unknown_scenario_suggests_the_nearest() -> None:
    """Breaks if a misspelt name gives no hint."""
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        load_scenario("quikstart")
