"""COLLECTIONS: every public collection by the name that `data.source` calls it."""

from __future__ import annotations

from lucency.data.collections.collection import PublicCollection

COLLECTIONS: dict[str, PublicCollection] = {}
