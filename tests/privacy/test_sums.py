"""view = "sums": two servers that know sums over the clients together, and one client's number neither of them."""

import functools
import json
import os
import pickle
import random
import signal
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedge.coordinator.cohort import Asked, Fleet
from fedge.coordinator.metrics import SUMMED
from fedge.coordinator.view.each import Each
from fedge.coordinator.view.figures import median, nearest_counts, worst_decile
from fedge.coordinator.view.sums import Sums
from fedge.errors import RunError, UserError
from fedge.launch import require_no_reports_asked
from fedge.page.run_page import run_page
from fedge.privacy.leaving import SHARES, kept_reports, sent_bytes
from fedge.privacy.sums.helper import Helper
from fedge.privacy.sums.helping import HelpersSum, Helping
from fedge.privacy.sums.layout import SHARE, Layout, add_up
from fedge.privacy.sums.shares import new_key, open_sealed, place_of, public_bytes, seal, split, unpacked
from fedge.protocol import DeviceFailure, RoundReport, Status, content_bytes, failure_reply
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario
from tests.privacy.made_reports import plan_message, reply, report

CLIENTS = 12  # of quickstart


@functools.cache
def scenario_of(*changes: str) -> Scenario:
    return load_scenario("quickstart", ["privacy.view=sums", "privacy.min_cohort=3", "rounds=6", *changes])


class InThisProcess:
    """A helper without a process of its own."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.helper = Helper(scenario, folder)
        self.key, self.foreseen = bytes.fromhex(self.helper.greeting()["key"]), False

    def sum(self, round: int, sealed: dict[int, bytes]) -> HelpersSum:
        said = self.helper.answer(round, sealed)
        return HelpersSum(**{("total" if name == "sum" else name): value for name, value in said.items()})


def servers(scenario: Scenario, folder: Path) -> tuple[Sums, InThisProcess]:
    view, helping = Sums(scenario, folder), InThisProcess(scenario, folder / "helper")
    view._helping = helping  # type: ignore[assignment]
    return view, helping


def asked_of(scenario: Scenario, clients: int, round: int = 1) -> Asked:
    return Asked(round, clients, clients, clients, {}, frozenset(), frozenset())


def figures(view: Each, scenario: Scenario, rows: list[dict[str, Any]]) -> dict[str, Any]:
    asked = asked_of(scenario, len(rows), rows[0]["round"])
    return view.figures(asked, rows, view.close(Fleet(scenario), asked, rows))


@pytest.mark.parametrize("seed", range(50))
def test_sums_are_those_of_the_single_reports(seed: int, tmp_path: Path) -> None:
    """Breaks if a sum differs from that of the same reports by one, or a client counts on one side alone."""
    chance, scenario = random.Random(seed), scenario_of()
    view, helping = servers(scenario, tmp_path)
    rows, whole = [], []
    for client in range(CLIENTS):
        made = report(client, chance)
        fate = chance.choice(["both", "both", "both", "no reply", "error", "helper's share is damaged"])
        message: Any = reply(made, scenario, helping.key)
        if fate == "no reply":
            message = None
        elif fate == "error":
            message = failure_reply(Status.OFFLINE, plan_message(client))
        elif fate != "both":
            sealed = message.content[SHARES]["sealed"]
            message.content[SHARES]["sealed"] = sealed[:-1] + bytes([sealed[-1] ^ 1])
        rows.append(view.row(1, client, message))
        if fate == "both":
            plain = {"round": 1, "client": client, "device": "any", "status": "ok", **made.row()}
            whole.append(plain)
    found = figures(view, scenario, rows)
    if len(whole) < 3:
        assert found["silent"] == "few" and found["macs_done"] is None
        return
    expected = figures(Each(scenario), scenario, whole)
    assert found["counted"] == len(whole)
    assert {name: found[name] for name in SUMMED} == {name: expected[name] for name in SUMMED}
    assert found["energy_j"] == expected["energy_j"] and found["saved"] == expected["saved"]
    assert found["hurt"] == expected["hurt"] and found["parameters_left"] == expected["parameters_left"]
    for name in ("mean", "std", "factory", "told"):
        exact = expected["accuracy"][name]
        assert (exact is None and found["accuracy"][name] is None) or abs(
            found["accuracy"][name] - exact
        ) < 1e-4  # std is a root of a difference
    if expected["accuracy"]["mean"] is not None:
        assert abs(found["accuracy"]["mean"] - expected["accuracy"]["mean"]) <= 1 / SHARE
        assert (
            abs(found["accuracy"]["worst_decile"] - expected["accuracy"]["worst_decile"]) <= 0.5 / 20 + 1e-12
        )


def test_a_sum_wraps_and_comes_back(tmp_path: Path) -> None:
    """Breaks if shares, which are of the size of 2**64, do not cancel."""
    chance = random.Random(1)
    vectors = [np.array([chance.getrandbits(63) for _ in range(9)], dtype=np.uint64) for _ in range(7)]
    own, others = zip(*map(split, vectors), strict=True)
    assert (add_up(own, 9) + add_up(others, 9) == add_up(vectors, 9)).all()


def test_a_share_is_as_good_as_chance() -> None:
    """Breaks if a share hints at what it is of: two splits of one vector, or a share of zeros, look alike."""
    zeros, large = np.zeros(2000, dtype=np.uint64), np.full(2000, 2**40, dtype=np.uint64)
    for vector in (zeros, large):
        for share in split(vector):
            assert abs(float((share >> np.uint64(63)).mean()) - 0.5) < 0.06  # the top bit
            assert len(set(share.tolist())) == 2000
    assert (split(zeros)[1] != split(zeros)[1]).any()


def test_a_sealed_share_opens_for_its_helper_and_its_place_alone() -> None:
    """Breaks if the coordinator, another client's place, another round or another key opens it."""
    key, share = new_key(), np.arange(5, dtype=np.uint64)
    sealed = seal(share, public_bytes(key), place_of(3, 7))
    opened = open_sealed(sealed, key, place_of(3, 7), 5)
    assert opened is not None and (opened == share).all()
    for place in (place_of(3, 8), place_of(4, 7)):
        assert open_sealed(sealed, key, place, 5) is None
    assert open_sealed(sealed, new_key(), place_of(3, 7), 5) is None
    assert open_sealed(sealed[:-1], key, place_of(3, 7), 5) is None
    assert open_sealed(sealed, key, place_of(3, 7), 6) is None
    assert unpacked(b"123", 1) is None


CANARIES = {
    "macs_done": 8_136_419_571, "samples_seen": 729_683_222, "samples_kept": 672_945_561, "test_count": 954_437_177,
    "test_correct": 836_271_457, "factory_correct": 836_271_457, "parameters": 517_218_587,
}  # fmt: skip


def holds(state: bytes, number: int) -> bool:
    """In decimal, or as a machine word, or as pickle writes it."""
    raw = number.to_bytes(5, "little")
    words = (struct.pack("<Q", number), struct.pack(">Q", number), raw.rstrip(b"\0"))
    return str(number).encode() in state or any(word in state for word in words)


def test_neither_server_holds_a_clients_number(tmp_path: Path) -> None:
    """Breaks if a number of one client's stands in what a server keeps in memory or in files, at any time."""
    scenario = scenario_of()
    view, helping = servers(scenario, tmp_path)
    opened: list[Any] = []
    whole = helping.helper._opened
    helping.helper._opened = lambda *place: opened.append(whole(*place)) or opened[-1]  # type: ignore
    made = report(0, random.Random(3), **CANARIES, test_gained=0, test_lost=0, told_correct=5)
    rows = [view.row(1, 0, reply(made, scenario, helping.key, tmp_path / "devices" / "0"))]
    rows += [view.row(1, k, reply(report(k, random.Random(k)), scenario, helping.key)) for k in range(1, 6)]
    states = [pickle.dumps((view._shares, view._sealed, rows))]
    found = figures(view, scenario, rows)
    states += [pickle.dumps((found, vars(view) | {"_helping": None}, opened)), json.dumps(found).encode()]
    states += [path.read_bytes() for path in (tmp_path / "helper").iterdir()]
    assert holds(json.dumps(made.row()).encode(), CANARIES["macs_done"])  # the search finds what is there
    assert holds(pickle.dumps(Layout.of(scenario).vector(made)), CANARIES["macs_done"])
    for name, number in CANARIES.items():
        assert [holds(state, number) for state in states] == [False] * len(states), name
    assert found["macs_done"] > CANARIES["macs_done"]
    assert not view._shares and not view._sealed
    (own,) = kept_reports(tmp_path / "devices" / "0")  # the device's own side keeps all
    assert {name: own[name] for name in CANARIES} == CANARIES


def test_the_helper_says_no_sum_that_would_tell_of_few(tmp_path: Path) -> None:
    """Breaks if fewer than min_cohort are added up, or one round twice over unlike clients, also after a restart."""
    scenario = scenario_of("privacy.min_cohort=4", "privacy.speaks=2")
    helper = Helper(scenario, tmp_path)

    def sealed(helper: Helper, round: int, clients: int) -> dict[int, bytes]:
        key, zeros = bytes.fromhex(helper.greeting()["key"]), add_up([], len(Layout.of(scenario)))
        return {client: seal(zeros, key, place_of(round, client)) for client in range(clients)}

    assert helper.answer(5, sealed(helper, 5, 3)) == {"silent": "few"}
    assert helper.answer(4, sealed(helper, 4, 6)) == {"silent": "not_now"}
    assert helper.answer(5, sealed(helper, 5, 6))["clients"] == [0, 1, 2, 3, 4, 5]
    assert helper.answer(5, sealed(helper, 5, 5)) == {"silent": "again"}
    later = Helper(scenario, tmp_path)
    assert later.answer(5, sealed(later, 5, 5)) == {"silent": "again"}
    assert set(later.answer(5, sealed(later, 5, 6))["sum"]) == {0}


def test_the_helper_is_a_process_that_speaks_json(tmp_path: Path) -> None:
    """Breaks if the helper cannot be started, or its end comes as a traceback."""
    scenario = scenario_of()
    with Helping(scenario, tmp_path) as helping:
        sums = Sums(scenario, tmp_path)
        sums._helping = helping
        rows = [sums.row(1, k, reply(report(k, random.Random(k)), scenario, helping.key)) for k in range(4)]
        assert figures(sums, scenario, rows)["counted"] == 4
        assert Path(f"/proc/{helping.pid}").exists()
        os.kill(helping.pid, signal.SIGKILL)
        with pytest.raises(RunError, match=r"helper.*has ended"):
            helping.sum(2, {})


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"test_correct": 10**6}, Status.CORRUPT_REPORT),
        ({"time_s": 51.0}, Status.LATE),
    ],
)
def test_the_gate_says_what_nobody_else_can_see(changes: dict[str, Any], status: Status) -> None:
    """Breaks if a report that cannot be true, or that is late, gets into a sum."""
    scenario = scenario_of("selection.deadline_s=50.0")
    said = report(0, random.Random(0), **{"time_s": 49.0} | changes)
    with pytest.raises(DeviceFailure) as failure:
        reply(said, scenario, public_bytes(new_key()))
    assert failure.value.status is status


def test_no_share_leaves_without_a_helper() -> None:
    """Breaks if a coordinator that sends no key, or a wrong one, gets anything."""
    for key in (None, b"short"):
        with pytest.raises(DeviceFailure):
            reply(report(0, random.Random(0)), scenario_of(), key)


def test_all_replies_weigh_the_same() -> None:
    """Breaks if the size of a message tells of its client, or virtual time is charged for another message."""
    scenario, key = scenario_of("privacy.speaks=2"), public_bytes(new_key())
    for round in (4, 5):
        sizes = {
            content_bytes(reply(report(k, random.Random(k), round), scenario, key).content) for k in range(9)
        }
        assert sizes == {sent_bytes(scenario, round)}


def test_values_are_cut_to_their_ranges() -> None:
    """Breaks if one client's number can be so large that a fleet's sum wraps, or a flag can count twice."""
    layout = Layout.of(scenario_of())
    most = RoundReport(round=1, client=0, macs_done=10**18, samples_seen=10**9, bit_operations=9 * 10**18)
    vector = layout.named(layout.vector(most).tolist())
    assert vector["macs_done"] == 10**18 and vector["bit_operations"] == 9 * 10**18
    assert 12 * max(layout.most.values()) < 2**64
    large = load_scenario("quickstart", ["privacy.view=sums", *(f"fleet.{k}.count=400" for k in range(3))])
    assert Layout.of(large).most["macs_done"] == (2**64 - 1) // 1200
    assert layout.most["hurt"] == 1


def test_the_worst_decile_and_the_median_of_a_histogram() -> None:
    """Breaks if they are of the wrong end, or of another share of the clients."""
    bins = [0, 3, 0, 7] + [10] * 2  # 30 clients, the worst 3 in the second of six bins
    assert worst_decile(bins, 30, (0.0, 1.0)) == pytest.approx(0.25)
    assert median(bins, 30, (0.0, 1.0)) == pytest.approx(4.5 / 6)
    assert worst_decile([0] * 6, 0, (0.0, 1.0)) is None and median([], 0, (0.0, 1.0)) is None


def test_noise_makes_no_clients_where_nobody_is() -> None:
    """Breaks if a noised histogram becomes one of another number of clients, or its empty bins fill with noise."""
    assert nearest_counts([3.0, 5.0, 2.0], 10) == [3.0, 5.0, 2.0]
    assert nearest_counts([4.0, 9.0, -1.0], 10) == [2.5, 7.5, 0.0]
    chance = random.Random(4)
    empty = [
        sum(nearest_counts([chance.gauss(0, 9) for _ in range(14)] + [160.0] * 6, 960)[:14])
        for _ in range(50)
    ]
    assert sum(empty) / 50 < 30  # of 14 halves of a normal with deviation 9: 50
    assert sum(nearest_counts([-5.0, 1.0], 4)) == pytest.approx(4)


def test_an_observer_of_single_reports_is_refused() -> None:
    """Breaks if somebody's observer waits in vain, or one that asks for no report is sent away."""
    from fedge.console.observer import Observer
    from fedge.console.progress import PlainProgress

    class Reader(Observer):
        def report_arrived(self, row: Any) -> None: ...

    require_no_reports_asked(scenario_of(), PlainProgress())
    require_no_reports_asked(load_scenario("quickstart"), Reader())
    with pytest.raises(UserError, match=r"Reader\.report_arrived"):
        require_no_reports_asked(scenario_of(), Reader())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["schedule.policy=deadline"], "policy 'deadline'"),
        (["selection.clients_per_round=10", "selection.over_selection=1.3"], "over_selection"),
        (["privacy.min_cohort=13"], "min_cohort is 13 and 12"),
        (["selection.clients_per_round=5", "privacy.min_cohort=6"], "min_cohort is 6 and 5"),
        (["schedule.unseen=0.2"], "(unseen)"),
        (["privacy.speaks=7"], "speaks is 7 and rounds is 6"),
        (["privacy.bins=7"], "even"),
        (["schedule.detector={then='regrow'}", "data.stream={rate_per_h=60}"], "detector's alarms"),
    ],
)
def test_what_needs_single_reports_is_refused(changes: list[str], named: str) -> None:
    """Breaks if a scenario that cannot work by sums starts, or the refusal does not name the setting."""
    with pytest.raises(UserError, match=named.replace("(", r"\(").replace(")", r"\)")) as error:
        scenario_of(*changes)
    assert "\n" not in str(error.value)


@pytest.mark.long
def test_a_run_by_sums_says_what_the_same_run_says_by_reports(
    finished: Any, fedge: Any, tmp_path: Path
) -> None:
    """Breaks if a whole run loses or invents anything on the way through two servers."""
    whole = finished()
    by_sums = finished("privacy.view=sums", "privacy.min_cohort=6")
    each, sums = whole.summary, by_sums.summary
    assert sums["macs"] == each["macs"] and sums["hurt"] == each["hurt"]
    assert sums["parameters_left"] == each["parameters_left"] and sums["failures"] == each["failures"] == 0
    for place, names in {"accuracy": ("mean", "factory", "told"), "gain": ("mean", "over_told")}.items():
        for name in names:
            assert sums[place][name] == pytest.approx(each[place][name], abs=1e-9)
    assert sums["privacy"]["spoke"] == [1, 2] and sums["time_s"] is None
    assert not (by_sums.out / "reports.jsonl").exists()
    own = [kept_reports(by_sums.out / "devices" / str(k)) for k in range(6)]
    theirs = whole.reports(timing=False)
    for row in theirs:  # the devices' own numbers are the same, but for what a longer message costs
        kept = own[row["client"]][row["round"] - 1]
        assert all(kept[name] == row[name] for name in ("macs_done", "test_correct", "train_loss"))
    files = [path for path in by_sums.out.rglob("*") if path.is_file() and "devices" not in path.parts]
    numbers = {str(row["macs_done"]) for row in theirs}
    assert not [path for path in files if any(number in path.read_text() for number in numbers)]
    with pytest.raises(UserError, match="sees no report"):
        by_sums.reports()
    code, _, said = fedge("export", str(by_sums.out), "--to", "csv")
    assert code == 2 and "no reports.jsonl" in said
    assert "accuracy after" in str(by_sums)
    page = run_page(by_sums.out)
    assert "the observer knows" in page and "shares.sealed" in page
    assert not [number for number in numbers if number in page]
