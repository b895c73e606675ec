"""The fenced blocks of the README and the docs, and how each kind is taken."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPT_OUT = re.compile(r"<!-- not run: \S.*-->")
FENCE = re.compile(r"^```(\w*)[ \t]*$")


@dataclass(frozen=True)
class Snippet:
    """One fenced block: its language, text, and where it stands. `runs`: no opt-out on the line before it."""

    page: str
    line: int
    language: str
    text: str
    runs: bool

    @property
    def id(self) -> str:
        return f"{self.page}:{self.line}"


def snippets(*languages: str) -> list[Snippet]:
    """All blocks in these languages that do not opt out."""
    found = [snippet for page in PAGES for snippet in read(page)]
    return [snippet for snippet in found if snippet.language in languages and snippet.runs]


def read(page: Path) -> list[Snippet]:
    """The blocks of one page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    fences = [(number, fence[1]) for number, line in enumerate(lines) if (fence := FENCE.match(line))]
    found = []
    for (start, language), (end, _) in zip(fences[::2], fences[1::2], strict=True):
        before = next((text for text in reversed(lines[:start]) if text.strip()), "")
        found.append(
            Snippet(
                page=str(page.relative_to(ROOT)),
                line=start + 1,
                language=language,
                text="\n".join(lines[start + 1 : end]) + "\n",
                runs=not OPT_OUT.fullmatch(before.strip()),
            )
        )
    return found


def commands(text: str, program: str) -> list[list[str]]:
    """The arguments of every call of `program` in a shell text: continuations joined, comments, `&&` and `>` cut."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if ">" in words:
            words = words[: words.index(">")]
        if "&&" in words:
            words = words[len(words) - words[::-1].index("&&") :]
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # FEDGE_DATA=... fedge run
            words = words[1:]
        if words and Path(words[0]).name == program:
            found.append(words[1:])
    return found


def merged(base: dict[str, Any], fragment: dict[str, Any]) -> dict[str, Any]:
    """`base` with `fragment`'s keys; sections go into one another, but one with a `kind` replaces what was there."""
    result = dict(base)
    for key, value in fragment.items():
        under = result.get(key)
        if isinstance(value, dict) and isinstance(under, dict) and "kind" not in value:
            value = merged(under, value)
        result[key] = value
    return result
