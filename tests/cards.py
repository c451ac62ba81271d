"""Model cards as a Markdown reader sees them, and held against the folders that they lie in."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

Table = list[dict[str, str]]
SHA = re.compile(r"^\| Weights of (.+) \(SHA-256, first 16 digits\) \| (\w+) \|$", re.MULTILINE)


def tables(text: str) -> dict[str, list[Table]]:
    """Return the tables below each heading as a Markdown reader sees them."""
    found: dict[str, list[Table]] = {}
    heading, rows = "", list[list[str]]()
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = plain(tokens[place + 1])
        elif token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(plain(tokens[place + 1]))
        elif token.type == "table_close":
            head, *body = rows
            made = [dict(zip(head, row, strict=True)) for row in body]
            found.setdefault(heading, []).append(made)
    return found


def plain(token: Any) -> str:
    """Return the text of a cell; a Markdown or HTML element in it would be lost."""
    return "".join(
        child.content for child in token.children if child.type in ("text", "text_special")
    )


def networks_of(text: str) -> list[str]:
    """Return the networks that a card names as part of the model, trained or frozen."""
    several = tables(text).get("Model", [])
    return [row["network"] for table in several for row in table if "network" in row]


def require_true_of(folder: Path) -> None:
    """Hold what a card states of its folder's files against these files."""
    text = (folder / "MODEL_CARD.md").read_text()
    about = json.loads((folder / "model.json").read_text())
    lines = text.splitlines()
    (specified,) = (line for line in lines if line.startswith("| 22 |"))
    named = re.findall(r"`([^`]+)`", specified)
    assert len(named) >= 3
    assert [one for one in named if not (folder / one).exists()] == []
    (protocol,) = (line for line in lines if line.startswith("| 18c |"))
    assert "`protocol` in `model.json`" in protocol
    assert about["protocol"]["network"]
    for line in (one for one in lines if one.startswith("* **Files.**")):
        assert not re.search(r"\b0 films", line)
        for one in re.findall(r"[\w-]+\.(?:onnx|safetensors)", line):
            assert one == "predictor.safetensors" or (folder / one).exists() == (
                about["kind"] == "network"
            )
            assert [*folder.rglob(one)]
    inside = [json.loads(file.read_text()) | {"at": file} for file in folder.rglob("model.json")]
    expected = {
        one["name"]: hashlib.sha256(
            one["at"].with_name("weights.safetensors").read_bytes()
        ).hexdigest()[:16]
        for one in inside
        if one["kind"] == "network"
    }
    assert dict(SHA.findall(text)) == expected
    for one in inside:
        if one["kind"] != "network":
            assert f"| Fingerprint of {one['name']} | {one['fingerprints']['predictor']} |" in text
