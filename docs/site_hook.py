"""Hooks of the site's build: pages that benchmarks wrote become pages of the site.

In the repository, docs link to `benchmarks/results/NAME.md` by relative paths, which a code browser can follow. On the
site the same pages stand under `results/`, and the links are turned to them.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

MEASURED = "benchmarks/results"
LINK = re.compile(rf"\]\((?:\.\./)+{MEASURED}/((?:studies/)?[\w-]+)\.md\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every page of `benchmarks/results/` under `results/`."""
    measured = Path(config.config_file_path).parent / MEASURED
    for path in sorted(measured.rglob("*.md")):
        place = f"results/{path.relative_to(measured)}"
        files.append(File.generated(config, place, content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to the measured pages to those of the site."""
    up = "../" * page.file.src_uri.count("/")
    return LINK.sub(rf"]({up}results/\1.md)", markdown)
