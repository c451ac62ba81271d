"""The documentation site: Markdown pages of this folder, and a reference made from docstrings."""

import ast
import re
from pathlib import Path

from markdown_it import MarkdownIt
from sphinx.application import Sphinx

project = "Lucency"
author = copyright = "The Lucency developers"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "Lucency"
html_show_sphinx = False
exclude_patterns: list[str] = []
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "model_config, model_post_init"}
python_maximum_signature_line_length = 88
toc_object_entries = False

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "src" / "lucency"
EXAMPLE = re.compile(r"^>>> (?:.+\n)+", re.MULTILINE)  # up to the next empty line
PAGES = {
    "First steps": ["first-experiment", "own-films", "your-table", "chestxray14"],
    "Guides": [
        "sources", "preparation", "split", "balancing", "training", "sweep", "evaluation",
        "abstain", "unfamiliar", "external", "ensemble", "explanation", "audit", "problems",
        "deploy", "scale",
    ],
    "Sets of films": sorted(f"sources/{page.stem}" for page in (HERE / "sources").glob("*.md")),
    "Reference": ["commands", "protocol", "report", "python", "api/index", "glossary"],
    "Project": ["performance", "reliability", "decisions", "api/log"],
}  # fmt: skip


def adapt_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Lead links to the log to its copy; give the first page the site's table of contents."""
    source[0] = source[0].replace("](../dev/log.md", "](api/log.md")
    if page == "index":
        for caption, pages in PAGES.items():
            listed = "\n".join(pages)
            source[0] += f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n\n{listed}\n```\n"


def write_reference(app: Sphinx) -> None:
    """Write the sources of the reference, one page a package, and a copy of the log: `api/`."""
    folder = HERE / "api"
    folder.mkdir(exist_ok=True)
    log = (HERE.parent / "dev" / "log.md").read_text()
    log = log.replace("](../docs/", "](../").replace("](suspects.png", "](../../dev/suspects.png")
    write_changed(folder / "log.md", log)
    packages = sorted(file.parent for file in PACKAGE.glob("*/__init__.py"))
    rows = "".join(f"   {package.name}\n" for package in packages)
    text = f"{title('API reference')}\n{REFERENCE}\n.. toctree::\n\n{rows}"
    write_changed(folder / "index.rst", text)
    for package in packages:
        files = sorted(f for f in package.rglob("*.py") if f.name != "__init__.py")
        modules = [".".join(f.relative_to(PACKAGE.parent).with_suffix("").parts) for f in files]
        parts = [f"{title(m, '-')}\n.. automodule:: {m}\n" for m in modules]
        about = ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
        head = f"{title(f'lucency.{package.name}')}\n{about}\n"
        write_changed(folder / f"{package.name}.rst", "\n".join([head, *parts]))


REFERENCE = (
    "Every public function and class, by package, with the docstring of the source. Imports go\n"
    "one way, from ``core`` to ``cli``.\n"
)


def title(text: str, line: str = "=") -> str:
    """Return a heading of reStructuredText."""
    return f"{text}\n{line * len(text)}\n"


def write_changed(file: Path, text: str) -> None:
    """Write the file where it is not so already, so that unchanged pages are not read again."""
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


def as_markdown(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Render a docstring as Markdown, in which the source is written."""
    text = EXAMPLE.sub(r"```text\n\g<0>```\n", "\n".join([*lines, ""]))
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    indented = [f"   {line}" if line else "" for line in html.splitlines()]
    lines[:] = [".. raw:: html", "", *indented, ""]


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("builder-inited", write_reference)
    app.connect("source-read", adapt_page)
    app.connect("autodoc-process-docstring", as_markdown)
