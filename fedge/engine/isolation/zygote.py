"""A process that has imported the libraries and answers each message in a fork of its own, which sees its room alone.

    host (Ray or the run's own process)  --request-->  zygote  --fork-->  child: confine, load the program, answer
                                         <--reply----          <--pipe---

The zygote has no connection to Ray, executes nothing of the client program's, and ends when its host does: it reads
the end of its requests. A child that ends without an answer is told of as such.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from fedge.engine.flower_private import identify
from fedge.engine.isolation.confine import confine, libraries, require_apart
from fedge.engine.isolation.pipe import MOST_BYTES, receive, send
from fedge.engine.isolation.room import Room
from fedge.engine.programs.modules import TravelledModules, installed_only
from fedge.engine.programs.program import answer, load
from fedge.errors import UserError


def named(target: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, _, function = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def main(requests: int, replies: int) -> None:
    """Serve until the requests end. `requests` and `replies`: descriptors."""
    start = receive(requests)
    try:
        zygote = _Zygote(requests, *start)
    except Exception as error:
        send(replies, (f"{type(error).__name__}: {error}",))
        return
    send(replies, (zygote.refused(),))
    while not zygote.orphaned and (request := receive(requests)) is not None:
        send(replies, (zygote.child(*request),))


class _Zygote:
    """Holds what is the same for all messages."""

    def __init__(
        self,
        requests: int,
        program: Any,
        run_config: Any,
        threads: int,
        preload: tuple[str, ...],
        warm: str,
        python_path: str | None,
    ) -> None:
        os.environ.pop("PYTHONPATH")  # all of the host's path, so that fedge was found
        if python_path is not None:
            os.environ["PYTHONPATH"] = python_path  # what counts as installed
        self.orphaned = False
        self._requests, self._program, self._run_config, self._threads = (
            requests,
            program,
            run_config,
            threads,
        )
        for module in preload:
            importlib.import_module(module)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)  # threads of OpenMP's would not be there after a fork
        if warm:
            named(warm)(run_config)
        self._libraries = libraries()
        with installed_only():  # once for all: it looks through the folders of packages
            pass
        gc.collect()
        gc.freeze()  # so that a child's collector does not touch, and so copy, what all have in common

    def refused(self) -> str | None:
        """Why the program cannot be loaded here, in one line; None where it can: it is, in a confined child."""
        nowhere = Room((), (), "/", {})
        return _said(self._fork(self._load_only, nowhere))

    def child(self, packed: bytes, node_id: int, room: Room, private: tuple[str, ...]) -> bytes | str | None:
        """What a confined child answers; a text: why there could be none; None: it ended without."""
        try:
            require_apart(self._libraries, private)
        except UserError as error:
            return str(error)

        def reply() -> bytes:
            identify(node_id)
            app = self._loaded()
            return answer(app, packed, dict(room.node_config), self._run_config)

        return self._fork(reply, room)

    def _loaded(self) -> Any:
        TravelledModules(self._program.files).install()
        return load(self._program, self._threads)

    def _load_only(self) -> bytes:
        try:
            self._loaded()
        except UserError as error:
            return str(error).encode()
        return b""

    def _fork(self, work: Callable[[], bytes], room: Room) -> bytes | None:
        """What `work` gives in a confined child; None where it ends without."""
        reading, writing = os.pipe()
        zygote = os.getpid()
        child = os.fork()
        if not child:
            _be_child(work, room, self._libraries, writing, zygote)
        os.close(writing)
        try:
            return self._read(reading)
        finally:
            os.close(reading)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def _read(self, reading: int) -> bytes | None:
        """To the end of a child's answer; None where it is none, too long, or nobody wants it any more."""
        pieces: list[bytes] = []
        length = 0
        while length <= MOST_BYTES:
            ready = select.select([reading, self._requests], [], [])[0]
            if self._requests in ready:  # nothing is asked meanwhile: this is the host's end
                self.orphaned = True
                return None
            piece = os.read(reading, 65536)
            if not piece:
                whole = b"".join(pieces)
                return whole[1:] if whole[:1] == b"!" else None
            pieces.append(piece)
            length += len(piece)
        return None


def _said(raw: bytes | None) -> str | None:
    if raw is None:
        return "the client program's process ended while it loaded"
    return raw.decode("utf-8", "replace") or None


def _be_child(work: Callable[[], bytes], room: Room, paths: list[str], writing: int, zygote: int) -> NoReturn:
    """Confine this process, work, write `!` and the answer, and end, whatever happens."""
    code = 1
    try:
        _die_with(zygote)
        confine(room, paths, writing)
        raw = b"!" + work()
        while raw:
            raw = raw[os.write(writing, raw) :]
        code = 0
    finally:
        os._exit(code)


def _die_with(zygote: int) -> None:
    """End this process when the zygote's ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != zygote:
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
