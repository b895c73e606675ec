"""The inline grid, and what both grids promise about a client program's mistakes."""

import pytest

from fedge.engine.cluster import RayCluster
from fedge.engine.flower_private import ErrorCode
from fedge.engine.inline import InlineGrid
from fedge.engine.ray import RayGrid
from fedge.engine.roster import ClientProgram, HostRequest, client_of, node_id_of
from fedge.errors import UserError

RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.long)])
def open_grid(request):
    """Opens either grid, so that a promise is checked on both."""

    def make(program, roster, run_config=None):
        if request.param == "inline":
            return InlineGrid(program, roster, run_config or {})
        cluster: RayCluster = request.getfixturevalue("cluster")
        return RayGrid(program, roster, {"a": HostRequest(1)}, run_config or {}, cluster=cluster)

    return make


MISTAKES = {
    "raise ValueError('secret row 42')": "ValueError",
    "raise type('secret_42', (KeyError,), {})('x')": "KeyError",
    "sys.exit('secret 42')": "SystemExit",
    "raise MemoryError": "MemoryError",
    "return 'secret 42'": "handler_returned_no_message",
    "return None": "handler_returned_no_message",
}


def test_a_raising_program_costs_its_message_and_tells_nothing(open_grid, program, fleet, plans):
    """If this fails, text out of a device reaches the server, or a mistake of one client ends the run."""
    mistakes = [f"if client == {client}:\n    {mistake}" for client, mistake in enumerate(MISTAKES)]
    broken = program("\n".join([*mistakes, "return reply(message, value=client)"]))
    count = len(MISTAKES) + 1
    with open_grid(broken, fleet(a=count)) as grid:
        replies = grid.send_and_receive(plans(count))
    assert [(reply.error.code, reply.error.reason) for reply in replies[:-1]] == [
        (RAISED, reason) for reason in MISTAKES.values()
    ]
    assert replies[-1].content["report"]["value"] == count - 1
    assert "secret" not in repr(replies)


def test_nothing_is_shared_between_messages_or_with_the_server(open_grid, program, fleet, plans):
    """If this fails, one client sees another's state, or changes the server's copy of a plan."""
    body = """
seen = len(context.state)
context.state["note"] = MetricRecord({"n": 1})
context.run_config["seen"] = client
context.node_config["seen"] = client
plan["x"] = 99
return reply(message, value=seen, configs=len(context.run_config) + len(context.node_config))
"""
    with open_grid(program(body), fleet(a=2)) as grid:
        messages = plans(2, x=1)
        for _ in range(2):
            replies = grid.send_and_receive(messages)
            assert [dict(r.content["report"]) for r in replies] == [{"value": 0, "configs": 3}] * 2
    assert [message.content["plan"]["x"] for message in messages] == [1, 1]


def test_a_reply_cannot_be_addressed_to_another_message(open_grid, program, fleet, plans):
    """If this fails, one client can answer in another's name."""
    body = """
message.metadata.__dict__["_message_id"] = "000000000001"
message.metadata.__dict__["_dst_node_id"] = 1
return reply(message, value=client)
"""
    with open_grid(program(body), fleet(a=2)) as grid:
        replies = grid.send_and_receive(plans(2))
    assert [client_of(reply.metadata.src_node_id) for reply in replies] == [0, 1]


def test_a_reply_that_would_run_code_is_not_opened(open_grid, program, fleet, plans, tmp_path):
    """If this fails, a client program can make the coordinator execute what it sends."""
    body = """
class Trojan(RecordDict):
    def __reduce__(self):
        return open, (context.run_config["trace"], "w")

return Message(Trojan(), reply_to=message)
"""
    trace = tmp_path / "opened"
    with open_grid(program(body), fleet(a=1), {"trace": str(trace)}) as grid:
        (reply,) = grid.send_and_receive(plans(1))
    assert (reply.error.code, reply.error.reason) == (RAISED, "reply_is_no_record")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1", "defines nothing of that name"),
        ("app = 3", "defines a int"),
        ("import os\nraise OSError('no camera')", "OSError on line 2: no camera"),
        ("def broken(:", "SyntaxError on line 1"),
        ("import sys; sys.exit(3)", "SystemExit on line 1"),
    ],
)
def test_a_program_that_does_not_load_is_one_clear_line(source, words, fleet):
    """If this fails, a user sees a traceback of fedge's instead of the line of their own mistake."""
    with pytest.raises(UserError, match=words) as caught:
        InlineGrid(ClientProgram("mine", source), fleet(a=1), {})
    assert "\n" not in str(caught.value)


def test_an_unknown_node_is_refused(program, fleet, plans):
    """If this fails, a message to nobody is lost in silence."""
    with InlineGrid(program("pass"), fleet(a=2), {}) as grid, pytest.raises(UserError, match="node 3"):
        grid.push_messages(plans(3))


def test_node_ids_are_client_numbers_plus_one(program, fleet):
    """If this fails, results name the wrong device."""
    with InlineGrid(program("pass"), fleet(a=3), {}) as grid:
        assert list(grid.get_node_ids()) == [1, 2, 3]
    assert [client_of(node_id_of(client)) for client in range(5)] == list(range(5))
