"""The host's side of isolation: starts a zygote, hands it messages, and holds what comes back against the rules."""

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping

from fedge.engine.isolation.confine import environment, libraries, refusal, require_apart
from fedge.engine.isolation.pipe import receive, send
from fedge.engine.isolation.room import Isolation
from fedge.engine.isolation.zygote import named
from fedge.engine.payload import seal, unseal
from fedge.engine.roster import THREAD_VARIABLES, ClientProgram, NodeConfig
from fedge.errors import RunError, UserError

_MODULE = "fedge.engine.isolation.zygote"
_CLOSE_S = 5.0


class EndedWithoutReply(Exception):
    """The process that answered a message ended before it had an answer."""


class IsolatedProgram:
    """Answers messages as `answer` does, each in a confined process. `close` ends what it started."""

    def __init__(
        self, program: ClientProgram, run_config: NodeConfig, threads: int, isolation: Isolation
    ) -> None:
        """UserError where this machine cannot confine a process, or where the program does not load in one."""
        require_possible()
        self._run_config = dict(run_config)
        self._room, self._check = named(isolation.room), named(isolation.check)
        asked, self._requests = os.pipe()
        self._replies, said = os.pipe()
        variables = environment() | dict.fromkeys(THREAD_VARIABLES, str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, str(asked), str(said)],
            env=variables | {"PYTHONPATH": os.pathsep.join(_import_path()), "CUDA_VISIBLE_DEVICES": ""},
            pass_fds=(asked, said),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if "FEDGE_DEBUG" in os.environ else subprocess.DEVNULL,
            start_new_session=True,  # a person's Ctrl-C is the host's to act on
        )
        os.close(asked)
        os.close(said)
        try:
            python_path = os.environ.get("PYTHONPATH")
            self._ask(program, self._run_config, threads, isolation.preload, isolation.warm, python_path)
        except BaseException:
            self.close()
            raise

    def _ask(self, *start: object) -> None:
        try:
            send(self._requests, start)
            answer = receive(self._replies)
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise RunError(
                "the process that isolates the clients ended while it started; FEDGE_DEBUG=1 shows why"
            )
        if answer[0] is not None:
            raise UserError(answer[0])

    def answer(self, packed: bytes, node_id: int, node_config: NodeConfig) -> bytes:
        """The payload of one message's reply, sealed. EndedWithoutReply where its process was killed, or ended."""
        room = self._room(node_config, self._run_config)
        try:
            send(self._requests, (packed, node_id, room, (*room.read, *room.write)))
            reply = receive(self._replies)
        except BrokenPipeError:  # the zygote itself was killed
            reply = None
        if reply is None:
            raise EndedWithoutReply
        if isinstance(reply[0], str):
            raise UserError(reply[0])
        if reply[0] is None:
            raise EndedWithoutReply
        checked = self._check(pickle.loads(packed), unseal(reply[0]), self._run_config, node_config)
        return seal(checked)

    def close(self) -> None:
        """End the zygote, and with it the process of a message that it is at. May be called twice."""
        for descriptor in (self._requests, self._replies):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._requests = self._replies = -1
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _import_path() -> list[str]:
    """Where this process finds its modules, so that the zygote finds the same; without the working directory."""
    return [entry for entry in sys.path if entry and os.path.isabs(entry)]


def require_possible(*private: str) -> None:
    """UserError where a process cannot be confined here, or where a `private` folder would be in its sight."""
    require_apart(libraries(), private)
    if reason := refusal():
        raise UserError(
            f"privacy.isolation is 'client' and cannot be had here: {reason}; set privacy.isolation to 'none', "
            "and client programs can read whatever you can"
        )


def isolated(
    program: ClientProgram, run_config: Mapping[str, int | float | str | bool], threads: int
) -> IsolatedProgram | None:
    """The program as a thing that answers in confined processes; None where it does not ask for that."""
    if program.isolation is None:
        return None
    return IsolatedProgram(program, dict(run_config), threads, program.isolation)
