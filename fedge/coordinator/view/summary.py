"""summary.json where the coordinator reads every report; and what of it is the same where it does not."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedge.coordinator import streams
from fedge.coordinator.exits import exits
from fedge.coordinator.metrics import accuracy, errors, macs, own_figures, parameters_left, served
from fedge.coordinator.paired import gain, hurt
from fedge.coordinator.view.adaptation import adaptation
from fedge.protocol.budget import bits_at_most, facts_or_any
from fedge.results.run_folder import RunFolder
from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed

Row = dict[str, Any]


def summarise_run(scenario: Scenario, folder: RunFolder, last_ok: Mapping[int, Mapping[str, Any]]) -> Row:
    """summary.json: accuracy by each client's last good report, sums over all rounds. Unseen clients and their round
    stand under `unseen` alone; what left the devices, and the wall clock, is of all."""
    rows = [last_ok[client] for client in sorted(last_ok)]
    rounds = list(folder.rows("rounds.jsonl"))
    late = {"unseen": _outcome(scenario, rows, rounds, unseen=True)} if scenario.unseen else {}
    for figures in late.values():
        egress = folder.rows("egress.jsonl")
        figures["bytes"] = sum(row["bytes"] for row in egress if scenario.is_for_unseen(row["round"]))
    return {
        **_of_run(scenario, folder),
        **_outcome(scenario, rows, rounds, unseen=False),
        **late,
        "privacy": scenario.privacy.model_dump(),
        **own_figures(rows),
        **adaptation(scenario, folder),
        **streams.run_figures(scenario, rounds),
        "failures": sum(figures["clients"] - figures["ok"] for figures in rounds),
        "never_reported": scenario.clients - len(rows),
        "wall_s": round_s(sum(figures["wall_s"] for figures in rounds)),
    }


def summarise_sums(scenario: Scenario, folder: RunFolder, reported: int) -> Row:
    """summary.json of sums: accuracy by the last round that spoke, sums over the rounds that did.

    reported: how many clients ever answered with figures, counted or not.
    """
    rounds = list(folder.rows("rounds.jsonl"))
    spoke = [figures for figures in rounds if "silent" not in figures]
    late = {"unseen": _outcome_of_sums(scenario, rounds, unseen=True)} if scenario.unseen else {}
    return {
        **_of_run(scenario, folder),
        **_outcome_of_sums(scenario, rounds, unseen=False),
        **late,
        "privacy": {
            **scenario.privacy.model_dump(),
            "spoke": [figures["round"] for figures in spoke],
            **({"noise": spoke[-1]["noise"]} if spoke and "noise" in spoke[-1] else {}),
        },
        **adaptation(scenario, folder),
        **streams.run_figures(scenario, rounds),
        "failures": sum(figures["clients"] - figures["ok"] for figures in rounds),
        "never_reported": scenario.clients - reported,
        "wall_s": round_s(sum(figures["wall_s"] for figures in rounds)),
    }


_LASTING = ("accuracy", "error", "gain", "hurt", "served", "parameters_left", "own")


def _outcome_of_sums(scenario: Scenario, rounds: Sequence[Mapping[str, Any]], *, unseen: bool) -> Row:
    """What the last round that spoke says, and what all of them took."""
    own = [figures for figures in rounds if figures.get("unseen", False) is unseen]
    spoke = [figures for figures in own if "silent" not in figures] or own[-1:]
    last = {name: spoke[-1][name] for name in _LASTING if spoke and name in spoke[-1]}
    totals = [figures for figures in spoke if figures["macs_dense"] is not None]
    return {
        **({"clients": scenario.unseen} if unseen else {}),
        **last,
        "macs": macs(totals)
        if totals
        else {"done": None, "dense": None, "saved": spoke[-1]["saved"] if spoke else None},
        "time_s": None,
        "device_time_s": sum(figures["device_time_s"] for figures in totals) if totals else None,
        "energy_j": sum(figures["energy_j"] for figures in totals) if totals else None,
        "failures": sum(figures["clients"] - figures["ok"] for figures in own),
    }


def _outcome(
    scenario: Scenario,
    last_ok: Sequence[Mapping[str, Any]],
    rounds: Sequence[Mapping[str, Any]],
    *,
    unseen: bool,
) -> Row:
    """What the clients that nobody learns from have brought and cost in their one round, or all others in theirs."""
    rows = [row for row in last_ok if row.get("unseen", False) is unseen]
    own = [figures for figures in rounds if figures.get("unseen", False) is unseen]
    clients = scenario.unseen if unseen else scenario.clients - scenario.unseen
    return {
        **({"clients": clients} if unseen else {}),
        "accuracy": accuracy(rows),
        **errors(rows),
        "gain": gain(rows, seed=derive_seed(scenario.seed, "interval")),
        "hurt": hurt(rows),
        **served(rows),
        "macs": macs(own),
        "parameters_left": parameters_left(rows),
        "time_s": sum(figures["time_s"] for figures in own),
        "energy_j": sum(figures["energy_j"] for figures in own),
        **own_figures(rows),
        **exits(rows),
        "failures": sum(figures["clients"] - figures["ok"] for figures in own),
        "never_reported": clients - len(rows),
    }


def report_bits(scenario: Scenario, sent: Iterable[Mapping[str, Any]]) -> int:
    """What the client program can choose of one report of the run at most; `sent`: lines of plans.jsonl."""
    sent = list(sent)
    epochs, serves = (
        [
            getattr(scenario.training, key),
            *(row[f"training.{key}"] for row in sent if f"training.{key}" in row),
        ]
        for key in ("epochs", "serve")
    )
    served = 0 if set(serves) <= {"last"} else scenario.all_rounds
    facts = facts_or_any(scenario.data.dataset)
    return bits_at_most(
        max(epochs),
        scenario.report.figures,
        facts,
        served=served,
        frames=scenario.stream_frames,
        detecting=scenario.schedule.detector is not None,
        exits=scenario.training.exits.most if scenario.training.exits else 0,
    )


def _of_run(scenario: Scenario, folder: RunFolder) -> Row:
    """What is said of every run: which it was, and what left the devices."""
    messages, sent_bytes, fields = _egress_totals(folder.rows("egress.jsonl"))
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "clients": scenario.clients,
        "egress": {
            "messages": messages,
            "bytes": sent_bytes,
            "bits_at_most": report_bits(scenario, folder.rows("plans.jsonl")),
            "fields": fields,
        },
    }


def _egress_totals(rows: Iterable[Row]) -> tuple[int, int, list[str]]:
    messages, sent_bytes, fields = 0, 0, set()
    for row in rows:
        messages += 1
        sent_bytes += row["bytes"]
        fields.update(row.get("fields", ()))  # those of the line before
    return messages, sent_bytes, sorted(fields)


def round_s(seconds: float) -> float:
    """Wall-clock seconds as a result shows them."""
    return float(f"{seconds:.3f}")
