"""Noise and its ledger: never more told of a client than the budget, whatever crashes; noise that is what it says."""

import functools
import math
import os
import random
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedge.coordinator.opening import RunRequest
from fedge.coordinator.view.sums import Sums
from fedge.errors import RunError, UserError
from fedge.privacy.leaving import NOISED, sent_bytes
from fedge.privacy.noise import budget as budgets
from fedge.privacy.noise.budget import Budget, gaussian_delta, gaussian_reach, require_packages
from fedge.privacy.noise.gaussian import FOR_TESTS, gaussian
from fedge.privacy.noise.ledger import NAME, Ledger
from fedge.privacy.noise.vector import NoisedLayout
from fedge.privacy.sums.helper import Helper
from fedge.privacy.sums.shares import place_of, seal, split
from fedge.protocol import DeviceFailure, Status, content_bytes
from fedge.results.run_folder import RunFolder
from fedge.scenario.file import scenario_toml
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario
from tests.privacy.made_reports import reply, report

SMALL = Budget(epsilon=2.0, delta=1e-5, rounds=3, moves=((4, 2),), levels=4, sigma=21.0)
"""Three rounds, on a lattice so coarse that its account takes no time."""


@functools.cache
def scenario_of(*changes: str) -> Scenario:
    return load_scenario("quickstart", ["privacy.epsilon=4.0", "privacy.min_cohort=3", "rounds=6", *changes])


def test_the_budget_of_these_tests_is_for_three_rounds() -> None:
    """Breaks if what follows tests nothing."""
    assert SMALL.spent(3) <= SMALL.epsilon < SMALL.spent(4)


def test_more_noise_is_not_asked_for_than_the_exact_account_does() -> None:
    """Breaks if the Gaussian formula, from which sigma comes, is another mechanism's than the accountant's."""
    reach = gaussian_reach(2.0, 1e-5)
    assert gaussian_delta(2.0, reach) == pytest.approx(1e-5, rel=1e-6)
    ratio = 4 * math.sqrt(6) / SMALL.sigma  # three rounds of two entries that move by 4
    assert SMALL.spent(3) == pytest.approx(2.0 * ratio / reach, rel=0.06)


@pytest.mark.parametrize(
    "changes",
    [
        ["privacy.view=sums"],
        pytest.param(
            ["privacy.view=sums", "privacy.epsilon=0.5", "privacy.speaks=3"], marks=pytest.mark.slow
        ),
        pytest.param(
            ["privacy.view=sums", "privacy.epsilon=30.0", "privacy.delta=1e-9"], marks=pytest.mark.slow
        ),
        pytest.param(["privacy.epsilon=1.0", "privacy.speaks=2"], marks=pytest.mark.slow),
        pytest.param(["privacy.epsilon=8.0"], marks=pytest.mark.slow),
    ],
)
def test_a_run_spends_its_epsilon_and_no_more(changes: list[str]) -> None:
    """Breaks if so much noise as a run takes tells more than it may, or hides more than it need."""
    budget = Budget.of(scenario_of(*changes))
    assert budget is not None
    spent = budget.kept().spent(budget.rounds)
    assert 0.995 * budget.epsilon < spent <= budget.epsilon


def test_sums_move_by_no_more_than_the_account_says() -> None:
    """Breaks if one client's vector is longer than what the noise is made for: its own, or against any other of its."""
    for view, of_two in (("sums", False), ("each", True)):
        scenario = scenario_of(f"privacy.view={view}")
        budget = Budget.of(scenario)
        assert budget is not None
        layout = NoisedLayout.of(scenario, budget)
        most = math.sqrt(sum(count * by * by for by, count in budget.moves))
        chance = random.Random(5)
        ends = [{"test_correct": 0, "factory_correct": 40}, {"test_correct": 40, "factory_correct": 0}]
        made = [report(k, chance) for k in range(40)] + [
            report(0, chance, test_count=40, macs_done=done, macs_dense=1, **end)
            for end in ends
            for done in (0, 1)
        ]
        vectors = [layout.vector(each).astype(np.int64).astype(float) for each in made]
        against = vectors if of_two else [np.zeros(len(layout))]
        lengths = [float(np.linalg.norm(one - other)) for one in vectors for other in against]
        assert max(lengths) <= most * (1 + 1e-12)
        if not of_two:  # and no noise is wasted: some report is as long
            assert max(lengths) == pytest.approx(most)


class Crash(Exception):
    """The process is gone."""


class Disk:
    """What lies beneath the ledger: a process may end at any of its steps, and what was not synced may be lost."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path, self.chance, self.synced, self.left = path, chance, 0, 0
        self._write = os.write

    def step(self) -> bool:
        self.left -= 1
        return self.left == 0

    def write(self, descriptor: int, line: bytes) -> int:
        if self.step():
            self._write(descriptor, line[: self.chance.randrange(len(line))])
            raise Crash
        return self._write(descriptor, line)

    def fsync(self, descriptor: int) -> None:
        if self.step():
            raise Crash
        self.synced = self.path.stat().st_size if self.path.exists() else 0

    def crash(self) -> None:
        """Of what was written since the last sync any part is there."""
        if self.path.exists():
            size = self.path.stat().st_size
            os.truncate(self.path, self.chance.randint(min(self.synced, size), size))


def live(ledger: Ledger, disk: Disk, said: Counter[int]) -> None:
    """Charge and send until the budget is spent."""
    while True:
        clients = disk.chance.sample(range(8), 3)
        if ledger.charge(disk.chance.randrange(10**6), clients) != "charged":
            return
        said.update(clients)  # it is sent
        if disk.chance.random() < 0.2:
            raise Crash


def test_a_crash_at_any_moment_refunds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a round that was said is missing on the account, in 1,000 lives that each end at a random step."""
    path, chance = tmp_path / NAME, random.Random(11)
    disk = Disk(path, chance)
    monkeypatch.setattr(os, "write", disk.write)
    monkeypatch.setattr(os, "fsync", disk.fsync)
    said: Counter[int] = Counter()
    ends: Counter[str] = Counter()
    for life in range(1000):
        disk.left = chance.randint(1, 9)
        try:
            live(Ledger(path, SMALL), disk, said)
            ends["spent"] += 1
        except Crash:
            disk.crash()
            ends["crash"] += 1
        disk.left = 0
        after = Ledger(path, SMALL)
        for client, times in said.items():
            assert after.spent_after([client]) >= SMALL.spent(times + 1)
            assert SMALL.spent(times) <= SMALL.epsilon
        if life % 4 == 3:  # another run, with a ledger of its own
            path.unlink(missing_ok=True)
            said.clear()
            disk.synced = 0
    assert min(ends["spent"], ends["crash"]) > 300


def test_the_ledger_refuses_what_is_spent(tmp_path: Path) -> None:
    """Breaks if a client is told of more often than its budget allows, or another one pays for it."""
    ledger = Ledger(tmp_path / NAME, SMALL)
    assert [ledger.charge(round, [1, 2]) for round in (1, 2, 3)] == ["charged"] * 3
    assert ledger.charge(3, [1, 2]) == "again"
    assert ledger.charge(4, [2, 3]) == "spent" and ledger.charge(4, [3]) == "charged"
    assert ledger.spent() == SMALL.spent(3)
    assert Ledger(tmp_path / NAME, SMALL).charge(5, [1]) == "spent"


def test_a_damaged_ledger_is_no_empty_one(tmp_path: Path) -> None:
    """Breaks if a changed line is passed over, and what it charged is forgotten."""
    Ledger(tmp_path / NAME, SMALL).charge(1, [1, 2])
    text = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text(text.replace("[1, 2]", "[1]"))
    with pytest.raises(RunError, match="line 1 is damaged"):
        Ledger(tmp_path / NAME, SMALL)


def looks_gaussian(numbers: list[int], sigma: float) -> None:
    """Mean, variance and both tails, each within four standard errors of theory."""
    count = len(numbers)
    assert abs(statistics.fmean(numbers)) < 4 * sigma / math.sqrt(count)
    assert abs(statistics.pvariance(numbers) / sigma**2 - 1) < 4 * math.sqrt(2 / count)
    for reach in (1.0, 2.0, 3.0):
        beyond = math.erfc(reach / math.sqrt(2)) / 2
        edge = math.ceil(reach * sigma)  # of whole numbers: from half a step below
        exact = math.erfc((edge - 0.5) / sigma / math.sqrt(2)) / 2
        for side in (1, -1):
            share = sum(side * number >= edge for number in numbers) / count
            assert abs(share - exact) < 4 * math.sqrt(beyond / count)


@pytest.mark.parametrize("draws", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_noise_has_its_variance_and_its_tails(draws: int) -> None:
    """Breaks if the noise is another than the account is for."""
    looks_gaussian(gaussian(40.0)(draws), 40.0)


def test_noise_comes_from_no_seed() -> None:
    """Breaks if somebody who knows the run's seed, or numpy's or Python's, knows the noise."""
    drawn = set()
    for _ in range(2):
        random.seed(7)
        np.random.seed(7)
        drawn.add(tuple(gaussian(1000.0)(8)))
    assert len(drawn) == 2


def test_noise_of_tests_is_marked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks if foreseeable noise passes for real."""
    monkeypatch.setenv(FOR_TESTS, "3")
    assert gaussian(9.0)(5) == gaussian(9.0)(5)
    monkeypatch.setattr(Budget, "kept", lambda self: self)
    helper = Helper(scenario_of("privacy.view=sums"), tmp_path)
    assert helper.greeting()["foreseen"]


def test_the_coordinator_gets_no_sum_without_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the helper sends before it charges, sends exact sums, or the figures are far from the reports'."""
    monkeypatch.setattr(Budget, "spent", lambda self, rounds: 4.0 * rounds)
    scenario = scenario_of("privacy.view=sums", "privacy.bins=4", *(f"fleet.{k}.count=100" for k in range(3)))
    helper = Helper(scenario, tmp_path)
    key = bytes.fromhex(helper.greeting()["key"])
    view = Sums(scenario, tmp_path)
    layout: Any = view._layout
    chance = random.Random(2)
    made = [
        report(k, chance, 6, test_count=40, factory_correct=20, test_correct=30, test_gained=10, test_lost=0)
        for k in range(300)
    ]
    pairs = [split(layout.vector(each)) for each in made]
    sealed = {k: seal(other, key, place_of(6, k)) for k, (_, other) in enumerate(pairs)}
    assert helper.answer(5, sealed) == {"silent": "not_now"}
    said = helper.answer(6, sealed)
    assert said["spent"] == 4.0 and (tmp_path / NAME).stat().st_size > 0
    own = sum((own for own, _ in pairs), np.zeros(len(layout), dtype=np.uint64))
    total = (own + np.array(said["sum"], dtype=np.uint64)).tolist()
    exact = sum((layout.vector(each) for each in made), np.zeros(len(layout), dtype=np.uint64)).tolist()
    assert sum(one != other for one, other in zip(total, exact, strict=True)) >= len(layout) - 1
    named = layout.named(total, 300)
    sd = said["sigma"] / (2 * layout.levels * 300)
    assert abs(named["accuracy"] - 0.75) < 5 * sd and abs(named["factory"] - 0.5) < 5 * sd and sd < 0.006
    assert helper.answer(6, sealed) == {"silent": "again"}
    assert Helper(scenario, tmp_path).answer(6, sealed)["silent"] == "few"  # another key: no share opens


def test_rounding_before_noise_is_right_in_the_mean() -> None:
    """Breaks if whole numbers, of which there may be few, shift a mean that noise is meant to leave where it is."""
    layout = NoisedLayout(("accuracy",), 4, 1, {})
    made = report(
        0, random.Random(0), test_count=40, test_correct=36, factory_correct=36, test_gained=0, test_lost=0
    )
    steps = [int(layout.vector(made).astype(np.int64)[0]) for _ in range(2000)]
    assert set(steps) == {0, 1} and statistics.fmean(steps) == pytest.approx(0.8, abs=0.04)


def test_a_device_tells_its_own_noised_figures_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a repeated plan draws fresh noise, whose mean tells the number, or a spent device goes on."""
    monkeypatch.setattr(Budget, "spent", lambda self, rounds: 2.0 * rounds)
    monkeypatch.setattr(Budget, "kept", lambda self: self)
    scenario = scenario_of("privacy.speaks=2")
    said = [report(0, random.Random(k), round) for k, round in enumerate((4, 5, 6))]
    quiet, first, second = (reply(each, scenario, None, tmp_path) for each in said)
    assert set(quiet.content[NOISED]) == {"round", "client"}
    again = reply(said[1], scenario, None, tmp_path)
    assert again.content[NOISED]["entries"] == first.content[NOISED]["entries"]
    assert first.content[NOISED]["entries"] != second.content[NOISED]["entries"]
    assert content_bytes(first.content) == sent_bytes(scenario, 5)
    spent = scenario_of("privacy.speaks=3")
    with pytest.raises(DeviceFailure) as failure:
        reply(report(0, random.Random(9), 4), spent, None, tmp_path)
    assert failure.value.status is Status.BUDGET_SPENT


def test_a_run_that_is_begun_again_in_its_folder_is_another(tmp_path: Path) -> None:
    """Breaks if going on after a first round that was never whole forgets what was told, or running again does not."""
    scenario, out = scenario_of("privacy.view=sums"), tmp_path / "out"
    request = RunRequest(scenario, out)
    folder = request.open({})
    for place in ("helper", "devices/3"):
        (out / place).mkdir(parents=True)
        (out / place / NAME).write_text("")
        (out / place / "else").write_text("")
    RunRequest(scenario, out, resume=True).open({})
    assert (out / "helper" / NAME).is_file() and (out / "devices" / "3" / NAME).is_file()
    assert not (out / "helper" / "else").exists() and not (out / "reports.jsonl").exists()
    folder.commit(1, reports=[], egress=[], summary={})
    with pytest.raises(UserError, match="spent its epsilon"):
        request.refuse()
    with pytest.raises(UserError, match="divided among its 6 rounds"):
        longer = scenario.model_copy(update={"rounds": 7})
        RunRequest(longer, out, resume=True).refuse()
    again = RunRequest(scenario, out, overwrite=True)
    again.refuse()
    again.open({})
    assert not (out / "helper").exists()
    assert RunFolder.resume(out, scenario_toml(scenario), reports=False).round == 0


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if somebody without the extra gets a traceback, after minutes of preparation."""
    monkeypatch.setattr(budgets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "fedge\[privacy\]"') as error:
        require_packages()
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(UserError, match="opendp"):
        gaussian(12345.5)


def test_streams_have_no_noised_figures() -> None:
    """Breaks if a scenario is accepted of which half the figures would be missing."""
    with pytest.raises(UserError, match=r"data\.stream"):
        load_scenario("parked-camera", ["privacy.epsilon=4.0", "privacy.min_cohort=2"])
