"""What a summary says of low-cost adaptation: what was shipped, and how often heads were trained anew."""

import json
from typing import Any

from fedge.results.record import ENVIRONMENT
from fedge.results.run_folder import RunFolder
from fedge.scenario.schema import Scenario


def adaptation(scenario: Scenario, folder: RunFolder) -> dict[str, Any]:
    """`{"adaptation": ...}`; empty where no device class has a label prior or a head on features.

    shipped_bytes: by device class, beside the network, once; None where hosts have not said it. retrainings: rounds of
    clients in which there was one, where `adaptation.moved` decides and reports are seen one by one.
    """
    trainings = [scenario.training_of(each) for each in scenario.fleet]
    if not any(each.finds_prior or each.source for each in trainings):
        return {}
    found: dict[str, Any] = {"shipped_bytes": _shipped(folder)}
    if scenario.privacy.whole_reports and any(each.adaptation.moved for each in trainings):
        rows = folder.rows("reports.jsonl")
        found["retrainings"] = sum(row["status"] == "ok" and row["samples_seen"] > 0 for row in rows)
    return {"adaptation": found}


def _shipped(folder: RunFolder) -> dict[str, int] | None:
    path = folder.folder / ENVIRONMENT
    hosts = json.loads(path.read_text(encoding="utf-8")).get("hosts", []) if path.is_file() else []
    said: dict[str, int] | None = next(
        (host["shipped_bytes"] for host in hosts if "shipped_bytes" in host), None
    )
    return said
