"""`python -m fedge`, completion in a shell, and help."""

import os
import subprocess
import sys

import pytest


def completions(line: str) -> list[str]:
    """What bash is offered at the end of `line`."""
    words = line.split(" ")
    environment = os.environ | {
        "_FEDGE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "import sys; sys.argv[0] = 'fedge'; from fedge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fedge run qui", ["quickstart"]),
        ("fedge try cifar1", ["cifar10-pathological", "cifar100-subsets"]),
        ("fedge show dead", ["deadline"]),
        ("fedge study what", ["what-pays"]),
        ("fedge list mod", ["models"]),
        ("fedge new mine.py --kind cri", ["criterion"]),
        ("fedge cac", ["cache"]),
    ],
)
def test_the_shell_completes_names(line: str, offered: list[str]) -> None:
    """Breaks if people have to type names that fedge knows."""
    assert completions(line) == offered


def test_completion_can_be_installed(fedge) -> None:
    """Breaks if completion is there and nobody can switch it on."""
    _, out, _ = fedge("--help")
    assert "--install-completion" in out


def test_python_m_fedge_is_the_command() -> None:
    """Breaks where pip's scripts are not on the path."""
    done = subprocess.run(
        [sys.executable, "-m", "fedge", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout[:6]) == (0, "fedge ")


@pytest.mark.parametrize("arguments", [("import", "table", "--help"), ("import", "images", "--help")])
def test_help_has_no_markup(fedge, arguments: tuple[str, ...]) -> None:
    """Breaks if a backslash that is meant for another library is shown."""
    code, out, _ = fedge(*arguments)
    assert code == 0
    assert "[required]" in out and "\\" not in out
