"""The Ray grid: pools, faults, sharing of the machine."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from flwr.app import Message

from fedge.engine.cluster import RayCluster
from fedge.engine.flower_private import ErrorCode
from fedge.engine.inline import InlineGrid
from fedge.engine.pool import HostEvent
from fedge.engine.ray import RayGrid
from fedge.engine.roster import ClientProgram, HostRequest, Member
from fedge.errors import UserError

ONE_CPU = HostRequest(num_cpus=1)
Make = Callable[..., list]


def outcome(replies: Sequence[Message]) -> dict[int, object]:
    """Per client: the reported value, or the error's code and reason."""
    return {
        reply.metadata.src_node_id - 1: (reply.error.code, reply.error.reason)
        if reply.has_error()
        else reply.content["report"]["value"]
        for reply in replies
    }


def test_same_numbers_on_one_host_two_hosts_and_inline(cluster, program, fleet, plans):
    """If this fails, results depend on the engine or on how many hosts there are."""
    square = program(
        "return reply(message, value=client * client + plan['add'] + context.run_config['base'])"
    )
    found = []
    for hosts in (1, 2):
        with RayGrid(
            square, fleet(a=5), {"a": HostRequest(0.5)}, {"base": 7}, cluster=cluster, hosts_per_class=hosts
        ) as grid:
            found.append(outcome(grid.send_and_receive(plans(5, add=100))))
    with InlineGrid(square, fleet(a=5), {"base": 7}) as grid:
        found.append(outcome(grid.send_and_receive(plans(5, add=100))))
    assert found[0] == found[1] == found[2] == {client: client * client + 107 for client in range(5)}


@pytest.mark.long
def test_messages_stream_in_and_each_is_answered_once(cluster, program, fleet, plans):
    """If this fails, a progress view shows nothing until the end, or counts a reply twice."""
    echo = program("return reply(message, value=client)")
    with RayGrid(echo, fleet(a=20), {"a": ONE_CPU}, {}, cluster=cluster) as grid:
        left = set(grid.push_messages(plans(20)))
        seen: list[int] = []
        while left:
            replies = grid.pull_messages(left)
            left -= {reply.metadata.reply_to_message_id for reply in replies}
            seen += outcome(replies)
        assert sorted(seen) == list(range(20))
        assert grid.pull_messages([]) == []


@pytest.mark.long
def test_no_more_hosts_than_cpus_unless_asked(cluster, program, fleet, plans):
    """If this fails, quarter-CPU hosts fill the memory of a small machine and are no faster."""
    body = "time.sleep(0.1)\nreturn reply(message, value=os.getpid())"
    with RayGrid(program(body), fleet(a=12), {"a": HostRequest(0.25)}, {}, cluster=cluster) as grid:
        assert len(set(outcome(grid.send_and_receive(plans(12))).values())) <= 2


def kill_when_asked(folder: Path, stop: threading.Event) -> None:
    """SIGKILL each process that writes its id into the folder, as an out-of-memory killer would."""
    while not stop.is_set():
        for file in folder.glob("*.pid"):
            pid = int(file.read_text() or 0)
            if pid:
                file.unlink()
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


VICTIM = """
path = os.path.join(context.run_config["folder"], f"{client}.met")
if client == 1 and not os.path.exists(path):
    open(path, "w").close()
    with open(path + ".tmp", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".tmp", path.replace(".met", ".pid"))
    time.sleep(30)
return reply(message, value=client)
"""


@pytest.mark.parametrize(
    ("retries", "fate"),
    [pytest.param(0, (ErrorCode.CLIENT_APP_CRASHED, "host_died"), marks=pytest.mark.long), (2, 1)],
)
def test_sigkill_of_a_host_costs_only_its_message(cluster, program, fleet, plans, tmp_path, retries, fate):
    """If this fails, one killed process takes healthy clients, or the whole run, with it."""
    events: list[HostEvent] = []
    stop = threading.Event()
    killer = threading.Thread(target=kill_when_asked, args=(tmp_path, stop))
    killer.start()
    try:
        with RayGrid(
            program(VICTIM),
            fleet(a=6),
            {"a": ONE_CPU},
            {"folder": str(tmp_path)},
            cluster=cluster,
            retries=retries,
            on_event=events.append,
        ) as grid:
            first = outcome(grid.send_and_receive(plans(6)))
            second = outcome(grid.send_and_receive(plans(6)))
    finally:
        stop.set()
        killer.join()
    assert first == {0: 0, 1: fate, 2: 2, 3: 3, 4: 4, 5: 5}
    assert second == {client: client for client in range(6)}
    assert [event.client for event in events if event.kind == "host_died"] == [1]


@pytest.mark.long
def test_a_message_that_kills_every_host_is_given_up(cluster, program, fleet, plans):
    """If this fails, one poisonous client keeps the run going for ever."""
    events: list[HostEvent] = []
    body = "if client == 0:\n    os._exit(1)\nreturn reply(message, value=client)"
    with RayGrid(
        program(body), fleet(a=3), {"a": ONE_CPU}, {}, cluster=cluster, retries=1, on_event=events.append
    ) as grid:
        assert outcome(grid.send_and_receive(plans(3))) == {
            0: (ErrorCode.CLIENT_APP_CRASHED, "host_died"),
            1: 1,
            2: 2,
        }
    assert sum(event.kind == "host_died" for event in events) == 2


def test_a_hung_client_is_killed_at_the_deadline(cluster, program, fleet, plans):
    """If this fails, one endless loop in a client program hangs the run."""
    body = "if client == 0:\n    time.sleep(60)\nreturn reply(message, value=client)"
    began_s = time.monotonic()
    with RayGrid(program(body), fleet(a=3), {"a": ONE_CPU}, {}, cluster=cluster, deadline_s=1.0) as grid:
        assert outcome(grid.send_and_receive(plans(3))) == {
            0: (ErrorCode.NODE_UNAVAILABLE, "deadline_exceeded"),
            1: 1,
            2: 2,
        }
    assert time.monotonic() - began_s < 20


@pytest.mark.long
def test_classes_take_turns_when_they_do_not_fit_together(cluster, program, fleet, plans):
    """If this fails, a third class on a machine for two waits for ever."""
    events: list[HostEvent] = []
    echo = program("return reply(message, value=client)")
    requests = {"a": ONE_CPU, "b": ONE_CPU, "c": HostRequest(2)}
    with RayGrid(echo, fleet(a=2, b=2, c=2), requests, {}, cluster=cluster, on_event=events.append) as grid:
        assert outcome(grid.send_and_receive(plans(6))) == {client: client for client in range(6)}
    assert {event.device_class for event in events if event.kind == "host_started"} == {"a", "b", "c"}
    assert [event.device_class for event in events if event.kind == "host_released"].count("c") == 0


MEETING = """
folder = context.run_config["folder"]
begin = time.monotonic()
open(os.path.join(folder, str(client)), "w").close()
while sum(1.0 if int(other) < 6 else 0.25 for other in os.listdir(folder)) <= 1.0 and time.monotonic() < begin + 60:
    time.sleep(0.01)
time.sleep(0.05)
return reply(message, value=[begin, time.monotonic()])
"""


@pytest.mark.long
def test_unlike_classes_never_exceed_the_machine(cluster, program, fleet, plans, tmp_path):
    """If this fails, hosts of 1 and of 0.25 CPUs together hold more than the machine's 2 CPUs at some moment.

    Each client reports when it began and ended on this machine's clock, and the first wait for others; at each
    beginning the shares of all that were running are added up.
    """
    requests = {"big": HostRequest(1.0), "small": HostRequest(0.25)}
    clients, config = fleet(big=6, small=10), {"folder": str(tmp_path)}
    with RayGrid(program(MEETING), clients, requests, config, cluster=cluster, hosts_per_class=9) as grid:
        spans = outcome(grid.send_and_receive(plans(16)))
    share = {client: 1.0 if client < 6 else 0.25 for client in range(16)}
    held = [
        sum(share[other] for other, (began, ended) in spans.items() if began <= moment < ended)
        for moment, _ in spans.values()
    ]
    assert max(held) <= 2.0
    assert max(held) > 1.0  # and they did run side by side


def test_a_custom_resource_bounds_its_class(cluster, program, fleet, plans):
    """If this fails, a class that needs a device runs twice where there is one."""
    echo = program("return reply(message, value=os.getpid())")
    request = HostRequest(0.5, resources={"camera": 1})
    with RayGrid(echo, fleet(a=4), {"a": request}, {}, cluster=cluster) as grid:
        assert len(set(outcome(grid.send_and_receive(plans(4))).values())) == 1


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (HostRequest(64), "64 CPU, and the best node has 2 CPU"),
        (HostRequest(1, memory_bytes=10**15), "MB memory"),
        (HostRequest(1, num_gpus=1), "1 GPU, and the best node has 0 GPU"),
        (HostRequest(1, resources={"telescope": 1}), "1 telescope, and the best node has 0 telescope"),
        (HostRequest(0), "above 0"),
    ],
)
def test_a_request_that_never_fits_is_refused_at_once(cluster, program, fleet, request_, words):
    """If this fails, Ray queues the host silently and the run hangs."""
    with pytest.raises(UserError, match=words):
        RayGrid(program("pass"), fleet(a=1), {"a": request_}, {}, cluster=cluster)


def test_a_program_that_does_not_load_ends_the_run_with_its_line(cluster, fleet, plans):
    """If this fails, a typing mistake in a client program hangs or kills hosts without a word."""
    with (
        RayGrid(
            ClientProgram("mine", "import os\nx = 1 / 0"), fleet(a=1), {"a": ONE_CPU}, {}, cluster=cluster
        ) as grid,
        pytest.raises(UserError, match="'mine' does not load: ZeroDivisionError on line 2"),
    ):
        grid.send_and_receive(plans(1))


def test_threads_are_set_before_the_program_loads(cluster, program, fleet, plans):
    """If this fails, each host spreads over all cores and unlike hosts give unlike sums."""
    body = "return reply(message, value=int(os.environ['OMP_NUM_THREADS']))"
    with RayGrid(program(body), fleet(a=1), {"a": ONE_CPU}, {}, cluster=cluster, threads=3) as grid:
        assert outcome(grid.send_and_receive(plans(1))) == {0: 3}


def test_a_class_without_a_request_is_refused(cluster, program, plans):
    """If this fails, a device of an unknown class waits for ever."""
    with (
        RayGrid(program("pass"), [Member(0, "x")], {"a": ONE_CPU}, {}, cluster=cluster) as grid,
        pytest.raises(UserError, match="'x' has no host request"),
    ):
        grid.push_messages(plans(1))


def test_close_leaves_a_ray_that_is_not_ours_running(cluster: RayCluster, program, fleet):
    """If this fails, a second run in one process, or a shared cluster, loses its Ray."""
    RayGrid(program("pass"), fleet(a=1), {"a": ONE_CPU}, {}, cluster=cluster).close()
    cluster.close()
    assert cluster.nodes()
