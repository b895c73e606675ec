"""The second server: a process of its own that holds one share of each report, and says sums of them.

    coordinator                                  helper
        | <-- {"key": ...} ------------------------ |   its public key; plans carry it to the devices
        | --- {"round", "sealed": {client: ...}} -> |   shares that it alone can open
        | <-- {"clients", "sum"} ------------------ |   those that it could open, and the sum of their shares
        |  or {"silent": why} --------------------- |   few: fewer than min_cohort; again, spent: see Ledger;
        |                                           |   not_now: a round that does not speak

Lines of JSON, and nothing else, pass between the two. Where there is a budget the helper adds the noise, so that the
coordinator never sees a sum without it; and it charges its ledger first. It never sees the coordinator's shares, nor a
sum of reports.
"""

import base64
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from fedge.errors import FedgeError
from fedge.privacy.noise.budget import Budget
from fedge.privacy.noise.gaussian import gaussian, is_foreseen
from fedge.privacy.noise.ledger import NAME, Ledger
from fedge.privacy.noise.vector import length_of
from fedge.privacy.sums.layout import Vector, add_up
from fedge.privacy.sums.shares import new_key, open_sealed, place_of, public_bytes
from fedge.scenario.schema import Scenario

Answer = dict[str, Any]


class Helper:
    """folder: its own, for its ledger. Errors of the ledger, and of packages that are missing, are FedgeErrors."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self._scenario, self._length = scenario, length_of(scenario)
        self._key = new_key()
        budget = Budget.of(scenario)
        self._budget = None if budget is None else budget.kept()
        self._draw = None if self._budget is None else gaussian(self._budget.sigma)
        folder.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger(folder / NAME, self._budget)

    def greeting(self) -> Answer:
        """Its public key; and whether its noise comes from a seed, which hides nothing."""
        return {"key": public_bytes(self._key).hex(), "foreseen": is_foreseen() and self._draw is not None}

    def answer(self, round: int, sealed: Mapping[int, bytes]) -> Answer:
        """The sum of the shares of `sealed` (client -> share) that open; or why there is none."""
        if not _speaks(self._scenario, round):
            return {"silent": "not_now"}
        opened = self._opened(round, sealed)
        if len(opened) < self._scenario.privacy.min_cohort:
            return {"silent": "few"}
        verdict = self._ledger.charge(round, opened)
        if verdict != "charged":
            return {"silent": verdict}
        total = add_up(opened.values(), self._length)
        said: Answer = {"clients": sorted(opened), "sum": [int(entry) for entry in total + self._noise()]}
        if self._budget is not None:
            said |= {"sigma": self._budget.sigma, "spent": self._ledger.spent()}
        return said

    def _opened(self, round: int, sealed: Mapping[int, bytes]) -> dict[int, Vector]:
        shares = {
            client: open_sealed(share, self._key, place_of(round, client), self._length)
            for client, share in sealed.items()
        }
        return {client: share for client, share in shares.items() if share is not None}

    def _noise(self) -> Vector:
        if self._draw is None:
            return np.zeros(self._length, dtype=np.uint64)
        return np.array(self._draw(self._length), dtype=np.int64).astype(np.uint64)


def _speaks(scenario: Scenario, round: int) -> bool:
    return scenario.privacy.speaks_in(round, scenario.rounds)


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer line by line until there are no more. The first line is {"scenario", "folder"}."""
    try:
        begin = json.loads(requests.readline())
        helper = Helper(Scenario.model_validate_json(begin["scenario"]), Path(begin["folder"]))
        _say(answers, helper.greeting())
        for line in requests:
            asked = json.loads(line)
            sealed = {int(client): base64.b64decode(share) for client, share in asked["sealed"].items()}
            _say(answers, helper.answer(asked["round"], sealed))
    except FedgeError as error:
        _say(answers, {"error": str(error), "exit_code": error.exit_code})


def _say(answers: IO[str], said: Answer) -> None:
    print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
