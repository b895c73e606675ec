"""Functions called by name, here or in a Ray worker: same results, same errors.

The functions called are small ones that are installed on every node anyway.
"""

import json
import os

import pytest

from fedge.engine.cluster import probe
from fedge.engine.tasks import run_task
from fedge.errors import RunError, UserError


@pytest.fixture(params=["inline", "ray"])
def call(request):
    """`run_task` of either kind."""
    return run_task if request.param == "inline" else request.getfixturevalue("cluster").run_task


def test_a_result_comes_back(call):
    """If this fails, preparation cannot tell the coordinator what it prepared."""
    assert call("fedge.engine.roster:node_id_of", {"client": 3}) == 4


def test_a_worker_has_the_priority_of_who_started_it(call):
    """If this fails, a run beside two busy processes takes twenty times as long: Ray's workers yield to everybody."""
    this_process = {"which": os.PRIO_PROCESS, "who": 0}
    assert call("os:getpriority", this_process) == os.getpriority(**this_process)


@pytest.mark.parametrize("expected", [UserError, RunError])
def test_our_own_errors_keep_class_and_line(call, expected):
    """If this fails, a missing data set ends with the wrong exit code or without its one clear line."""
    failed = json.dumps({"error": expected.__name__, "message": "data.root: no such folder"})
    with pytest.raises(expected, match=r"^data.root: no such folder$"):
        call("fedge.engine.tasks:unpack", {"answer": failed})


def test_another_error_is_named_with_its_line(call):
    """If this fails, a crash in preparation leaves nothing to look at, or points to a file in a temporary folder."""
    with pytest.raises(
        RunError, match=r"^json:loads failed: JSONDecodeError: Expecting .*\(.+\.py, line \d+\)$"
    ):
        call("json:loads", {"s": "{"})


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'"),
        ("ray://host", 'must be "local" or host:port'),
    ],
)
def test_a_cluster_that_is_not_there_is_one_clear_line(address, words):
    """If this fails, a mistyped address ends the process a minute later with Ray's own words, or none."""
    with pytest.raises(UserError, match=words):
        probe(address)
