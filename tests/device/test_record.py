"""What a device says and keeps: what really ran, no more than there were epochs, and nothing that could not leave."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fedge
from fedge.device.methods import score_word
from fedge.device.state import StateFolder
from fedge.protocol import RoundReport
from fedge.protocol.report import OWN, WORDS, coded, one_word
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.error_map.scores import SCORES
from fedge.training.instance_filter.base import Filter
from fedge.training.instance_filter.filters import FILTERS
from fedge.training.pruning.criteria import CRITERIA

TWO = ("fleet=[{device='jetson-nano', count=2}]",)
KINDS = ("criterion", "instance_filter", "error_maps", "optimizer")

PROGRAM = """
import torch
from flwr.clientapp import ClientApp
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate
from fedge.protocol import RoundReport

app = ClientApp(mods=[egress_gate])

class More(RoundReport):
    macro_f1: float = 0.5

@app.train()
@on_device
def improve(device, plan):
{body}
"""


def program(folder: Path, body: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(
        PROGRAM.format(body="\n".join(f"    {line}" for line in body.splitlines()))
    )
    return f"client={folder / 'mine.py'}"


class EveryOther(Filter):
    def select(self, batch):
        return torch.arange(0, len(batch.y_B), 2), None


class Mine(ErrorMapPruner):
    pass


def ranked(evidence):
    return torch.arange(evidence.coupling.units).float()


def test_what_ran_is_on_record_by_name(opened) -> None:
    """Breaks if a report repeats the scenario's names where a program brought its own methods."""

    def words(device) -> tuple[str, ...]:
        report = device.report()
        return tuple(report.row()[kind] for kind in KINDS)

    usual = opened(round=2)
    usual.prune()
    usual.train(instance_filter=usual.instance_filter(), error_maps=usual.error_maps())
    assert words(usual) == ("taylor", "early", "error", "sgd")
    nothing = opened(round=2)
    assert words(nothing) == ("none",) * 4
    nothing.train()
    assert words(nothing) == ("none", "none", "none", "sgd")
    own = opened(round=2)
    own.prune(criterion=ranked)
    own.train(
        optimizer=lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
        instance_filter=EveryOther(keep=0.5),
        error_maps=Mine(own.model, keep=0.5),
    )
    assert words(own) == (OWN,) * 4
    other = opened(round=2)
    other.prune(criterion=CRITERIA["l1"])
    other.train(error_maps=ErrorMapPruner(other.model, keep=0.5, score="paper"), optimizer=torch.optim.AdamW)
    assert words(other) == ("l1", "none", "paper", "adamw")


@pytest.mark.parametrize(("kind", "word"), [("element", "element"), ("pixel", "sampled"), ("map", "sampled")])
def test_what_is_drawn_at_random_is_on_record(kind: str, word: str) -> None:
    """Breaks if a report says that channels were ranked where none was."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3))
    assert score_word(ErrorMapPruner(model, keep=0.5, kind=kind)) == word
    assert (len(WORDS["error_maps"]) - 1).bit_length() == 3


def test_every_method_has_a_word() -> None:
    """Breaks if a method that scenarios can name is reported as somebody's own."""
    at_random = ("element", "sampled")
    known = {"criterion": CRITERIA, "instance_filter": FILTERS, "error_maps": (*SCORES, *at_random)}
    for kind, names in known.items():
        assert set(WORDS[kind]) == {"none", OWN, *names}
        assert all(WORDS[kind][coded(**{kind: name})[kind]] == name for name in names)


@pytest.mark.parametrize(
    ("ran", "word"), [([], "none"), (["none"], "none"), (["none", "early"], "early"), (["early", "smb"], OWN)]
)
def test_several_of_a_kind_have_no_one_name(ran: list[str], word: str) -> None:
    """Breaks if the record names one of two filters that ran."""
    assert one_word(ran) == word


def test_results_show_words(finished) -> None:
    """Breaks if reports.jsonl shows a number for a name."""
    rows = finished().reports()
    assert {row["instance_filter"] for row in rows} == {"early"}
    assert {(row["round"], row["criterion"]) for row in rows} == {(1, "none"), (2, "taylor")}


BAD = {
    "blocked_field": "return device.report().model_copy(update={'macro_f1': 0.5})",
    "blocked_value": "return device.report().model_copy(update={'epoch_loss': [0.25, 0.5]})",
    "blocked_type": "return device.report().model_copy(update={'test_count': 0.5})",
    "client_raised": "device.report()",
}


@pytest.mark.parametrize("status", BAD)
def test_a_report_that_cannot_leave_leaves_the_device_as_it_was(small, tmp_path, status: str) -> None:
    """Breaks if a device keeps a round whose report is refused: the next round could not read it, mended or not."""
    bad = f"if device.client == plan.round == 1:\n    {BAD[status]}\nelse:\n    return device.report()"
    result = fedge.run(small(program(tmp_path, f"device.train()\n{bad}"), *TWO, shape=()), tmp_path / "out")
    ended = {(row["round"], row["client"]): row["status"] for row in result.reports()}
    assert ended == {(1, 0): "ok", (1, 1): status, (2, 0): "ok", (2, 1): "ok"}
    assert StateFolder(result.out / "devices" / "1").at(1) is None
    log = (result.out / "devices" / "1" / "errors.log").read_text()
    assert "return device.report()" in log or status != "client_raised"


def test_a_report_with_a_field_too_many_is_blocked(small, tmp_path) -> None:
    """Breaks if a subclass of the report carries fields that the gate does not know into the device's state."""
    more = "report = device.report()\nreturn More(**report.model_dump()) if device.client else report"
    result = fedge.run(small(program(tmp_path, f"device.train()\n{more}"), *TWO, shape=()), tmp_path / "out")
    assert [row["status"] for row in result.reports()] == ["ok", "blocked_field"] * 2


def test_a_state_with_a_report_of_another_version_is_gone_on_from(small, tmp_path) -> None:
    """Breaks if a device whose kept report no longer validates raises in every round for good."""
    scenario = small(*TWO, "client=dense", shape=())
    first = fedge.run(scenario, tmp_path / "out")
    folder = StateFolder(first.out / "devices" / "0")
    for round in (1, 2):
        folder.write(replace(folder.at(round), report='{"round": 1, "client": 0, "of_yesterday": 3}'))
    (first.out / "checkpoint.json").write_text((first.out / "checkpoint.previous.json").read_text())
    again = fedge.run(scenario, first.out, resume=True)
    assert [row["status"] for row in again.reports()] == ["ok"] * 4
    assert RoundReport.from_json(folder.at(2).report)


def test_what_the_device_counts_it_writes_itself(small, tmp_path) -> None:
    """Breaks if a program can leave private numbers in, or polish, what the device has counted."""
    counted = "test_correct=0, samples_seen=10**8, train_loss=193.25, epoch_loss=[193.25], factory_correct=0"
    body = f"device.train()\nreturn device.report().model_copy(update=dict({counted}))"
    polished = fedge.run(small(program(tmp_path, body), *TWO, shape=()), tmp_path / "polished")
    honest = fedge.run(small("client=dense", *TWO, shape=()), tmp_path / "honest")
    assert polished.reports(timing=False) == honest.reports(timing=False)


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("epochs", [1, 3])
def test_there_is_a_loss_per_epoch_and_no_more(opened, epochs: int, calls: int) -> None:
    """Breaks if epoch_loss is a list of free length: it is as long as the epochs that ran, and as planned at most."""
    device = opened(f"training.epochs={epochs}")
    assert device.report().epoch_loss == []
    for _ in range(calls):
        device.train()
    assert len(device.report().epoch_loss) == epochs


def test_training_after_the_report_is_reported_too(small, tmp_path) -> None:
    """Breaks if a program trains on after its report, and its cost or its accuracy is left out."""
    body = "device.train()\nreport = device.report()\ndevice.train()\nreturn report"
    result = fedge.run(small(program(tmp_path, body), *TWO, shape=()), tmp_path / "out")
    honest = fedge.run(small("client=dense", *TWO, shape=()), tmp_path / "dense")
    assert result.summary["macs"]["done"] == 2 * honest.summary["macs"]["done"]
