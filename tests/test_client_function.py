"""fedge.run(..., client=function): the same numbers as the program in a file, on either engine."""

import json

import pandas
import pytest

import fedge
from fedge.catalog.files import client_path
from fedge.device.device import Device
from fedge.errors import UserError
from fedge.protocol import RoundPlan, RoundReport

pytestmark = pytest.mark.long

FLEET = ("fleet=[{device='jetson-nano', count=2}]",)
RATE = 0.25


def wanted(plan: RoundPlan, device: Device) -> bool:
    return plan.prune and not device.pruned


def improve(device: Device, plan: RoundPlan) -> RoundReport:
    """clients/edge.py, as somebody writes it in a notebook."""
    if wanted(plan, device):
        device.prune()
    device.train(
        instance_filter=device.instance_filter(),
        error_maps=device.error_maps(),
        quantization=device.quantization(),
    )
    return device.report()


class Improve:
    def __call__(self, device: Device, plan: RoundPlan) -> RoundReport:
        return improve(device, plan)


@pytest.mark.parametrize("client", [improve, Improve])
def test_it_is_the_program_in_a_file(small, finished, tmp_path, client) -> None:
    """Breaks if a function in a notebook trains otherwise than the same lines in a file."""
    result = fedge.run(small(), tmp_path / "run", client=client)
    assert result.reports(timing=False) == finished().reports(timing=False)


@pytest.mark.long
def test_it_travels_on_ray(cluster, small, tmp_path) -> None:
    """Breaks if hosts, which never saw the notebook, lack a part of it."""
    inline = fedge.run(small(shape=FLEET), tmp_path / "inline", client=improve)
    changes = ["engine.kind=ray", "engine.hosts=1"]
    ray = fedge.run(small(*changes, shape=FLEET), tmp_path / "ray", client=improve)
    assert ray.reports(timing=False) == inline.reports(timing=False)


def test_the_run_can_be_run_again_from_its_folder(small, tmp_path) -> None:
    """Breaks if what ran is not on record, or if its scenario names a program that is nowhere."""
    out = tmp_path / "run"
    result = fedge.run(small(shape=FLEET), out, client=improve)
    assert "def wanted" in (out / "programs" / "client.py").read_text()
    again = fedge.run(out / "scenario.toml", tmp_path / "again")
    assert again.reports(timing=False) == result.reports(timing=False)


def test_it_is_resumed_with_the_same_text_and_no_other(small, tmp_path) -> None:
    """Breaks if half a run is finished by another function."""
    out = tmp_path / "run"
    short = small("rounds=1", "schedule={kind='train_only'}", shape=FLEET)
    longer = small("rounds=2", "schedule={kind='train_only'}", shape=FLEET)
    fedge.run(short, out, client=improve)

    with pytest.raises(UserError, match="client"):
        fedge.run(longer, out, client=other, resume=True)
    assert len(fedge.run(longer, out, client=improve, resume=True).reports()) == 4


def other(device: Device, plan: RoundPlan) -> RoundReport:
    device.train()
    return device.report()


def with_args(device: Device, plan: RoundPlan) -> RoundReport:
    assert device.args["beta"] == RATE
    device.train()
    return device.report()


def test_arguments_reach_it(small, tmp_path) -> None:
    """Breaks if what a function cannot close over has no other way to it."""
    scenario = small(f"client.args.beta={RATE}", shape=FLEET)
    result = fedge.run(scenario, tmp_path / "run", client=with_args)
    assert {row["status"] for row in result.reports()} == {"ok"}


def test_a_path_will_do(small, finished, tmp_path) -> None:
    """Breaks if client= takes functions alone."""
    result = fedge.run(small(), tmp_path / "run", client=client_path("edge"))
    assert result.reports(timing=False) == finished().reports(timing=False)


def test_a_result_in_a_notebook(finished) -> None:
    """Breaks if a person gets <RunResult object> or must read jsonl by hand."""
    result = finished()
    frame = result.frame()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(result.reports()) == 12
    assert frame["macs_done"].sum() == result.summary["macs"]["done"]
    told = f"{100 * result.summary['accuracy']['told']:.1f}%"
    assert told in str(result) and told in result._repr_html_()
    assert result._repr_html_().startswith("<table>")


def test_the_summary_says_what_a_report_can_tell(finished, small) -> None:
    """Breaks if the bits that may leave are not in the results, or do not follow what was sent."""
    from fedge.coordinator.view.summary import report_bits
    from fedge.forecast import plan_scenario

    scenario = small()
    bits = finished().summary["egress"]["bits_at_most"]
    assert {row["sent_bits_at_most"] for row in plan_scenario(scenario)} == {bits}
    assert json.loads((finished().out / "summary.json").read_text())["egress"]["bits_at_most"] == bits
    assert report_bits(scenario, [{"client": 1}, {"training.epochs": 3}]) == bits + 2 * 12
