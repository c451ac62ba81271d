"""Choices as TOML text, which the standard library reads but does not write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml_text(choices: Mapping[str, Any]) -> str:
    """Return nested choices of plain values, lists and tables as TOML."""
    return _tables(choices, "").replace("\x7f", "\\u007f")


def _tables(choices: Mapping[str, Any], prefix: str) -> str:
    plain = {k: v for k, v in choices.items() if not isinstance(v, dict) and not _is_tables(v)}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    for key, value in choices.items():
        if isinstance(value, dict):
            lines += ["", f"[{prefix}{key}]", _tables(value, f"{prefix}{key}.")]
        elif _is_tables(value):
            lines += [f"\n[[{prefix}{key}]]\n{_tables(v, f'{prefix}{key}.')}" for v in value]
    return "\n".join(lines)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
