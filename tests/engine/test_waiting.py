"""Which message goes next, and what a round's length is then."""

import heapq
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.engine.ray import RayGrid
from fedge.engine.roster import HostRequest
from fedge.engine.waiting import Durations, Job, Waiting


def in_order(waiting: Waiting) -> list[int]:
    return [waiting.pop().client for _ in range(len(waiting))]


def length_s(takes_s: Sequence[float], hosts: int, expected_s: Callable[[int], float]) -> float:
    """How long a round is in which each host takes the next waiting message as soon as it is free."""
    waiting = Waiting()
    for client in range(len(takes_s)):
        waiting.push(Job(client, b""), expected_s(client))
    free_at_s = [0.0] * hosts
    for client in in_order(waiting):
        heapq.heapreplace(free_at_s, free_at_s[0] + takes_s[client])
    return max(free_at_s)


def test_the_longest_goes_first_and_equals_as_they_came() -> None:
    """Breaks if a round has a tail, or if messages whose times nobody knows are shuffled."""
    waiting = Waiting()
    for client, expected_s in enumerate([1.0, 3.0, 2.0, 3.0]):
        waiting.push(Job(client, b""), expected_s)
    assert in_order(waiting) == [1, 3, 2, 0]


def test_a_retry_goes_before_all_others() -> None:
    """Breaks if a client whose host died is answered last, after a round's worth of others."""
    waiting = Waiting()
    waiting.push(Job(0, b""), 1e9)
    waiting.push(Job(1, b"", attempts=1))
    assert in_order(waiting) == [1, 0] and len(waiting) == 0


def test_what_a_client_took_counts_before_its_work() -> None:
    """Breaks if a newcomer is compared in rows with seconds of the others."""
    durations = Durations([10, 20, 40])
    assert [durations.expected_s(client) for client in range(3)] == [10, 20, 40]
    durations.took(0, 5.0)  # half a second per unit of work
    assert [durations.expected_s(client) for client in range(3)] == [5, 10, 20]
    durations.took(1, 40.0)
    assert durations.expected_s(1) == 40 and durations.expected_s(2) == pytest.approx(40 * 45 / 30)
    assert Durations().expected_s(7) == 1


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=60), st.integers(1, 8))
def test_within_grahams_bound(takes_s: list[float], hosts: int) -> None:
    """Breaks if a host idles while messages wait: longer than any list schedule may be."""
    ended_s = length_s(takes_s, hosts, lambda client: takes_s[client])
    assert ended_s <= sum(takes_s) / hosts + max(takes_s) * (1 - 1 / hosts) + 1e-6


@pytest.mark.parametrize("hosts", [2, 16, 64])
def test_a_dirichlet_fleets_round_is_hardly_longer_than_its_work(hosts: int) -> None:
    """Breaks if uneven clients bring back a tail: of 100 Dirichlet clients' work, at most 5 % above the shortest."""
    draw = np.random.default_rng(7)
    rows = sum(draw.multinomial(5_400, share) for share in draw.dirichlet([0.3] * 100, 10))
    takes_s = [float(count) for count in rows]
    least_s = max(sum(takes_s) / hosts, max(takes_s))
    assert length_s(takes_s, hosts, lambda client: takes_s[client]) <= 1.05 * least_s


def test_hosts_are_given_the_longest_first(cluster, program, fleet, plans, tmp_path) -> None:
    """Breaks if a grid that was told of the work, or has measured it, sends by client number."""
    body = """
with open(os.path.join(context.run_config["folder"], plan["round"]), "a") as file:
    file.write(f"{client} ")
time.sleep([0.3, 0.2, 0.1, 0.4][client] if plan["round"] == "1" else 0)
return reply(message, value=1)
"""
    with RayGrid(
        program(body),
        fleet(a=4),
        {"a": HostRequest(0.5)},
        {"folder": str(tmp_path)},
        cluster=cluster,
        hosts_per_class=1,
        work=[1, 3, 2, 1],
    ) as grid:
        for round in ("1", "2"):
            grid.send_and_receive(plans(4, round=round))
    assert [(tmp_path / round).read_text().split() for round in ("1", "2")] == [
        ["1", "2", "0", "3"],
        ["3", "0", "1", "2"],
    ]
