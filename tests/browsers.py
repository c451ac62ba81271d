"""The browser and the script engine of this machine, or what to do where there is none."""

import shutil

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome")
     if (found := shutil.which(name))),
    "",
)  # fmt: skip
needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium on the path: make browser installs it"
)
needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="no node on the path: apt-get install nodejs"
)
