"""`fedge audit` as a person types it, and what it leaves."""

import json
from pathlib import Path

import pytest

from fedge.audit.worlds import complete, trimmed, without_fortune
from fedge.errors import RunError
from fedge.page.audit import audit_page, section

TINY = [
    part
    for change in (
        "engine.kind=inline", "rounds=2", "training.epochs=1", "model.factory.epochs=1", "fleet.0.count=2",
        "fleet.1.count=1", "fleet.2.count=1",
    )
    for part in ("--set", change)
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "canary"], "canaries"),
        (["--clients", "3"], "--clients is 3"),
        (["--set", "engine.address=10.0.0.1:6379"], "engine.address"),
        (["--out", "file"], "is a file"),
        (["--out", "other"], "holds no audit"),
    ],
)
def test_wrong_input_is_one_line(fedge, tmp_path: Path, monkeypatch, arguments: list[str], said: str) -> None:
    """Breaks if a slip of the keyboard ends in a traceback, or wipes a folder that is no audit's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    code, out, err = fedge("audit", "quickstart", *arguments)
    assert (code, out) == (2, "") and said in err.splitlines()[-1]
    assert (tmp_path / "other" / "thesis.tex").exists()


def test_a_fleet_is_cut_down_evenly_and_left_to_itself(small) -> None:
    """Breaks if the audit's few clients are all of one device class, or if some are away and tell nothing."""
    fleet = small(shape=("fleet.0.count=50", "fleet.1.count=30", "fleet.2.count=20"))
    few, chosen = trimmed(fleet, 10)
    assert [each.count for each in few.fleet] == [5, 3, 2] and chosen == list(range(0, 100, 10))
    assert trimmed(small(), 12)[1] == list(range(6))
    away = small(
        "availability.kind=markov", "faults.crash.rate=0.5", "rounds=6", "selection.clients_per_round=2"
    )
    alone = without_fortune(away, 2)
    assert (alone.rounds, alone.availability.kind, alone.faults.crash.rate) == (2, "always", 0)
    assert alone.selection.clients_per_round is None
    assert without_fortune(small("rounds=4", "schedule.finetune_rounds=3"), 2).rounds == 4


def test_clients_that_failed_are_left_out_and_too_few_are_said() -> None:
    """Breaks if one client's failure shifts everybody's numbers, or figures stand on two clients."""
    rows = [
        {"client": client, "round": round, "status": "ok" if (client, round) != (1, 2) else "diverged"}
        for round in (1, 2)
        for client in range(6)
    ]
    told = complete([rows, rows], 6)
    assert [[own[0]["client"] for own in run] for run in told] == [[0, 2, 3, 4, 5]] * 2
    with pytest.raises(RunError, match="1 of 2 clients"):
        complete([rows], 2)


FOUND = {
    "scenario": "quickstart",
    "skipped": {"membership": "of data whose task is classes alone"},
    "canaries": {
        "client": 3, "planted": ["token", "patch"], "found": True,
        "places": [
            {"place": "what crossed", "bytes": 5000, "found": [], "skipped": ""},
            {"place": "Ray's logs", "bytes": 10**6, "skipped": "",
             "found": [{"canary": "token", "form": "hex of <bytes>", "within": "gzip, "}]},
        ],
        "figures": {"reports": 4, "comparisons": 1000, "found": []},
    },
    "reports": {"guesses": [
        {"canary": "a test row is a canary", "view": view, "coins": 504, "right": right, "epsilon_at_least": shown,
         "most_that_so_many_coins_show": 5.1, "epsilon_of_the_ledger": ledger}
        for view, right, shown, ledger in (("observer", 504, 5.1, None), ("server", 260, 0.0, 1.0))
    ]},
    "property": {"share": 0.8, "views": [
        {"view": view, "right": {"value": 0.75, "count": 18, "trials": 24, "low": 0.53, "high": 0.9}}
        for view in ("observer", "server")
    ]},
    "membership": {"arms": [
        {"arm": "dense", "clients": 12, "members": 900, "outsiders": 600, "area_under_curve": 0.53,
         "true_positives": {"value": 0.02, "count": 18, "trials": 900, "low": 0.012, "high": 0.031}},
        {"arm": "pruned", "clients": 12, "members": 900, "outsiders": 60, "area_under_curve": 0.52,
         "true_positives": None, "area_against_dense": {"mean": -0.01, "interval": [-0.02, 0.001]}},
    ]},
}  # fmt: skip


def test_the_page_has_two_columns_and_says_how_many_trials(tmp_path: Path) -> None:
    """Breaks if a reader cannot tell the server's knowledge from the observer's, or a figure stands without trials."""
    text = "\n".join(section(FOUND))
    for words in (
        "the observer knows", "the server knows", "A canary is outside its device", "(gzip, hex of &lt;bytes&gt;)",
        "100.0% right: epsilon ≥ 5.10 (no ledger)", "51.6% right: epsilon ≥ 0.00 (ledger 1)", "504 coins", "24 guesses",
        "2.0% [1, 3]", "900 members, 600 outsiders", "too few outsiders", "-0.010 [-0.020, +0.001]",
        "membership: of data whose task is classes alone",
    ):  # fmt: skip
        assert words in text, words
    (tmp_path / "audit.json").write_text(json.dumps(FOUND))
    assert "What leaks, measured" in audit_page(tmp_path)


LEAKY = """
from pathlib import Path
from flwr.clientapp import ClientApp
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate

app = ClientApp(mods=[egress_gate])

@app.train()
@on_device
def leak(device, plan):
    device.train()
    results = device.location.device_folder.parent.parent
    (results / f"{device.client}.txt").write_text(device.shard.x.tobytes().hex())
    return device.report()
"""


@pytest.mark.slow
def test_a_whole_audit(fedge, tmp_path: Path) -> None:
    """Breaks if a part of the audit does not run, a clean run is accused, or the page and JSON are not left."""
    out = tmp_path / "audit"
    code, said, err = fedge("audit", "quickstart", *TINY, "--out", str(out), "--jobs", "1", "--json")
    assert code == 0, err
    found = json.loads((out / "audit.json").read_text())
    assert found == json.loads(said)
    assert f"audit of {found['scenario']}" in err and "about" in err
    assert found["canaries"]["found"] is False and found["canaries"]["planted"] == [
        "token",
        "patch",
        "labels",
    ]
    places = {place["place"]: place for place in found["canaries"]["places"]}
    assert places["what crossed"]["bytes"] > 1000 and places["results, without devices"]["bytes"] > 1000
    assert "own process" in places["memory of the coordinator"]["skipped"]
    guesses = {(each["canary"], each["view"]): each for each in found["reports"]["guesses"]}
    assert (
        guesses["a test row is a canary", "server"]["right"] > 480
    )  # without noise a report tells of single rows
    assert len(found["property"]["views"]) == 2 and len(found["membership"]["arms"]) == 3
    assert "What leaks, measured" in (out / "report.html").read_text()
    assert not list(out.rglob("x.npy"))
    code, _, err = fedge("report", str(out))
    assert code == 0, err


@pytest.mark.long
def test_a_program_that_writes_rows_among_the_results_is_found(fedge, tmp_path: Path) -> None:
    """Breaks if a planted leak passes, or the exit code does not say it."""
    (tmp_path / "leaky.py").write_text(LEAKY)
    changes = [*TINY, "--set", f"client={tmp_path / 'leaky.py'}"]
    code, said, err = fedge(
        "audit", "quickstart", *changes, "--out", str(tmp_path / "out"), "--only", "canaries"
    )
    assert code == 1, err
    assert "a canary is outside its device" in said
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    (place,) = [place for place in found["canaries"]["places"] if place["found"]]
    assert place["place"] == "results, without devices"
    assert {hit["canary"] for hit in place["found"]} == {"token", "patch"}
