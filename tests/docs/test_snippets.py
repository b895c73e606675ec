"""What the README and the docs tell people to type is typed here."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import fedge
import fedge.launch
import fedge.scenario.load
from fedge import cli
from fedge.catalog.files import scenario_path
from fedge.catalog.program import Program
from fedge.data.own.importing import import_images, import_table
from fedge.network import NetworkSource
from fedge.network.check import check_network
from fedge.scenario.file import parse_scenario
from fedge.scenario.load import check, load_scenario
from fedge.torchvision_compat import with_torchvision
from tests.data.own.folders import pictures, recordings
from tests.docs.snippets import PAGES, ROOT, Snippet, commands, merged, read, snippets

FIRST = "docs/guide/first_scenario.md"
OWN_DATA = "docs/guide/own_data.md"
OWN_NETWORK = "docs/guide/own_network.md"
TINY = ["engine.kind=inline", "rounds=2", "training.epochs=1", "model.factory.epochs=1"]


def named(blocks: list[Snippet]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("snippet", blocks, ids=lambda snippet: snippet.id)


def is_program(snippet: Snippet) -> bool:
    return "ClientApp(" in snippet.text


def is_policy(snippet: Snippet) -> bool:
    return "def plan(" in snippet.text


def networks() -> list[Snippet]:
    """The networks' programs, in the order of their page."""
    return [block for block in snippets("python") if block.page == OWN_NETWORK and "def build(" in block.text]


@pytest.fixture
def tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds what a reader of the docs has by then: the tutorials' files."""
    for block in snippets("toml"):
        if block.page in (FIRST, OWN_DATA, OWN_NETWORK) and (name := tomllib.loads(block.text).get("name")):
            (tmp_path / f"{name}.toml").write_text(block.text)
    (tmp_path / "net.py").write_text(networks()[0].text)
    monkeypatch.syspath_prepend(tmp_path)
    pictures(tmp_path / "photos")
    recordings(tmp_path / "watch.csv")
    policy = next(block for block in snippets("python") if is_policy(block))
    (tmp_path / "policy.py").write_text(policy.text)
    (tmp_path / "mine.py").write_text((ROOT / "clients" / "edge.py").read_text())
    (tmp_path / "clients").symlink_to(ROOT / "clients")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenarios that a snippet loads are cut to two short rounds of one client per class, in this process."""

    def load(name: str, changes: tuple[str, ...] = ()) -> Any:
        classes = len(load_scenario(name, changes).fleet)
        return load_scenario(name, [*changes, *TINY, *(f"fleet.{index}.count=1" for index in range(classes))])

    monkeypatch.setattr(fedge.scenario.load, "load_scenario", load)
    monkeypatch.setattr(fedge.launch, "load_scenario", load)


@named([block for block in snippets("python") if not is_program(block)])
def test_python_runs(snippet: Snippet, tutorial: Path, tiny: None) -> None:
    """Breaks if somebody who copies a Python block gets an error."""
    code = compile(snippet.text, snippet.id, "exec")
    with_torchvision(lambda: exec(code, {"__name__": "snippet"}))


@named([block for block in snippets("python") if is_program(block)])
def test_client_programs_run(snippet: Snippet, tmp_path: Path) -> None:
    """Breaks if a client program that the docs offer is refused, or fails on a device."""
    program = tmp_path / "mine.py"
    program.write_text(snippet.text)
    few = [f"fleet.{index}.count=1" for index in range(3)]
    norms = ["model.name=resnet8"] if "BatchNorm" in snippet.text else []
    scenario = load_scenario("quickstart", [*TINY, *few, *norms, f"client={program}"])
    result = fedge.run(scenario, tmp_path / "run")
    assert [row["status"] for row in result.reports()] == ["ok"] * 6


@named([block for block in snippets("python") if is_policy(block)])
def test_policies_run(snippet: Snippet, tutorial: Path) -> None:
    """Breaks if a policy that the docs offer is refused, or decides nothing."""
    few = [f"fleet.{index}.count=1" for index in range(3)]
    args = "schedule.args={slow_s=0.12, low=0.3, high=0.7}"
    result = fedge.run(load_scenario("quickstart", [*TINY, *few, "schedule.program=policy.py", args]), "run")
    assert [row["status"] for row in result.reports()] == ["ok"] * 6
    sent = [json.loads(line) for line in (tutorial / "run" / "plans.jsonl").read_text().splitlines()]
    assert {row.get("training.pruning.level") for row in sent if row["round"] == 2} <= {0.3, 0.7}


def test_the_network_of_ones_own_runs_and_hands_its_weights_on(tutorial: Path) -> None:
    """Breaks if a reader of the page on networks does not get from net.py to reports, or from a file to its weights."""
    tiny = [*TINY, "fleet.0.count=2"]
    results = [fedge.run(load_scenario("own.toml", tiny), tutorial / "own")]
    making = next(block for block in snippets("python") if "letters.pth" in block.text)
    exec(compile(making.text, making.id, "exec"), {"__name__": "snippet"})
    results.append(fedge.run(load_scenario("transfer.toml", tiny), tutorial / "transfer"))
    for result in results:
        assert [row["status"] for row in result.reports()] == ["ok"] * 4


@pytest.mark.slow
def test_the_wrapped_network_of_torchvisions_passes() -> None:
    """Breaks if the page's way around a first layer of three channels is refused."""
    source = NetworkSource("net.py:build", {}, Program("net", networks()[1].text, {}))
    check_network(source, load_scenario("quickstart"), 10, (1, 28, 28))


def import_own_data() -> None:
    """What the page on data of one's own has imported, by its own words."""
    page = [block for block in snippets("bash") if block.page == OWN_DATA and "fedge import" in block.text]
    kinds = {"images": import_images, "table": import_table}
    for _, kind, source, *options in (call for block in page for call in commands(block.text, "fedge")):
        given = dict(zip((name.strip("-") for name in options[::2]), options[1::2], strict=True))
        out = given.pop("out")
        kinds[kind](source, out, **{name: int(v) if v.isdigit() else v for name, v in given.items()})


@named(snippets("toml"))
def test_toml_is_a_scenario(snippet: Snippet, tutorial: Path) -> None:
    """Breaks if a key in the docs is unknown, misspelt or out of range. A fragment is tried on top of quickstart."""
    import_own_data()
    table = tomllib.loads(snippet.text)
    if "name" not in table:
        table = merged(tomllib.loads(scenario_path("quickstart").read_text()), table)
    check(parse_scenario(table))


@named([block for block in snippets("bash") if commands(block.text, "fedge")])
def test_fedge_commands_are_understood(
    snippet: Snippet, tutorial: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a command in the docs has an option, a key or a scenario that there is not. Runs stop at their start;
    everything else is done."""

    if "fedge import" not in snippet.text:
        import_own_data()
    started = []

    def start(*arguments: object, **_: object) -> None:
        started.append(arguments)
        raise SystemExit(0)

    monkeypatch.setattr(fedge.launch, "run_checked", start)
    calls = commands(snippet.text, "fedge")
    for arguments in calls:
        monkeypatch.setattr(sys, "argv", ["fedge", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code, capsys.readouterr().err
    assert len(started) == sum(arguments[0] == "run" for arguments in calls)


def test_every_block_is_one_that_is_checked_or_says_why_not() -> None:
    """Breaks if a block escapes these tests by its language, or by an opt-out that gives no reason."""
    known = {"python", "toml", "bash", ""}
    for page in PAGES:
        for block in read(page):
            assert block.language in known, f"{block.id}: language {block.language!r}"
            if not block.runs:
                continue
            foreign = block.language == "" and ("import " in block.text or "fedge run" in block.text)
            assert not foreign, f"{block.id}: name the block's language"


def test_readme_and_ci_run_the_same_tests() -> None:
    """Breaks if the README's install-and-test command is not the one that CI proves to work."""
    ci = (ROOT / ".ci" / "run").read_text()
    test = next(block for block in snippets("bash") if block.page == "README.md" and "pytest" in block.text)
    assert '-e ".[test' in test.text
    assert "-c constraints.txt" in test.text
    assert ".venv/bin/python -m pytest" in test.text
    assert ".venv/bin/python -m pytest" in ci
