"""The books of who holds what on which node, by hand and for random requests."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.engine.placement import Node, Placement
from fedge.engine.roster import HostRequest
from fedge.errors import UserError


def two_nodes() -> Placement:
    """A small node with a camera, and a larger one without; given in the wrong order of names."""
    return Placement([large(), small()])


def large() -> Node:
    return Node("2", "large", {"CPU": 4, "memory": 2**30})


def small() -> Node:
    return Node("1", "a-small", {"CPU": 1, "camera": 1})


def test_hosts_spread_over_the_emptiest_nodes_and_stop_when_full():
    """If this fails, one node is crowded while another idles, or more is booked than there is."""
    placement = two_nodes()
    claims = [placement.claim(HostRequest(1)) for _ in range(6)]
    assert claims[0] == "2"
    assert sorted(claims[:5]) == ["1", "2", "2", "2", "2"]
    assert claims[5] is None
    placement.release(HostRequest(1), "1")
    assert placement.claim(HostRequest(1)) == "1"


def test_room_counts_the_scarcest_resource():
    """If this fails, a pool is allowed hosts that never fit, or too few."""
    placement = two_nodes()
    assert placement.room(HostRequest(0.25)) == 20
    assert placement.room(HostRequest(0.25, memory_bytes=2**28)) == 4
    assert placement.room(HostRequest(0.25, resources={"camera": 0.5})) == 2


def test_nodes_come_in_order_of_their_names():
    """If this fails, sticky device state is looked for on another node after Ray restarts."""
    assert two_nodes().nodes_for(HostRequest(1)) == ["1", "2"]


def test_needs_that_no_single_node_has_together_are_refused():
    """If this fails, a host that needs the camera of one node and the memory of another waits for ever."""
    with pytest.raises(UserError, match="but none all"):
        two_nodes().check({"a": HostRequest(1, memory_bytes=2**20, resources={"camera": 1})})


def test_a_lost_node_takes_its_claims_with_it():
    """If this fails, hosts are placed on a node that is gone."""
    placement = two_nodes()
    placement.claim(HostRequest(1))
    assert placement.refresh([small()], grow=True) == ([], ["large"])
    placement.release(HostRequest(1), "2")
    assert placement.nodes_for(HostRequest(1)) == ["1"]
    assert placement.claim(HostRequest(2)) is None


def test_a_node_that_joins_is_booked_like_the_others_and_told_once():
    """If this fails, a machine that is added to a running cluster idles, or the books of the others start anew."""
    placement = Placement([small()])
    assert placement.claim(HostRequest(1)) == "1"
    assert placement.refresh([small(), large()], grow=True) == (["large"], [])
    assert placement.claim(HostRequest(1)) == "2" and placement.cpus == 5
    assert placement.refresh([small(), large()], grow=True) == ([], [])
    assert placement.claim(HostRequest(4)) is None


def test_where_state_is_bound_to_nodes_none_is_taken_in():
    """If this fails, sticky clients are divided among other nodes than those that hold their state."""
    placement = Placement([small()])
    assert placement.refresh([small(), large()], grow=False) == (["large"], [])
    assert placement.refresh([small(), large()], grow=False) == ([], [])
    assert placement.nodes_for(HostRequest(1)) == ["1"]


def test_nodes_of_one_name_cannot_hold_sticky_state():
    """If this fails, two nodes are taken for one another after a restart."""
    with pytest.raises(UserError, match="called 'a'"):
        Placement([Node("1", "a", {"CPU": 1}), Node("2", "a", {"CPU": 1})]).check_names()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0, 1.5]), max_size=30))
def test_claims_never_exceed_a_node(shares):
    """If this fails, hosts together hold more than a node's CPUs. Releasing all leaves the books as they
    were.
    """
    placement = two_nodes()
    held: list[tuple[HostRequest, str]] = []
    for share in shares:
        request = HostRequest(share)
        if node_id := placement.claim(request):
            held.append((request, node_id))
    for node_id, cpus in (("1", 1.0), ("2", 4.0)):
        assert sum(request.num_cpus for request, where in held if where == node_id) <= cpus + 1e-6
    for request, node_id in held:
        placement.release(request, node_id)
    assert placement.claim(HostRequest(4)) == "2"
