"""Tests, and what they start, reach no other machine; importing Lucency opens no connection."""

import socket
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

import offline

IMPORTS_ALL = """
import pkgutil, sys
OPENED = []
KINDS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
sys.addaudithook(lambda event, about: OPENED.append((event, about)) if event in KINDS else None)
{first}
import lucency
for one in pkgutil.walk_packages(lucency.__path__, "lucency."):
    if not one.name.endswith("__main__"):
        __import__(one.name)
print(len([name for name in sys.modules if name.startswith("lucency.")]), OPENED)
"""


def imported_all(first: str = "") -> tuple[int, str]:
    """Import every module in a fresh Python; return their number and the connections opened."""
    words = [sys.executable, "-W", "ignore", "-c", IMPORTS_ALL.format(first=first)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    number, opened = done.stdout.strip().split(" ", 1)
    return int(number), opened


@pytest.mark.slow  # torch is imported twice
def test_importing_opens_no_connection():
    modules = [*Path(offline.__file__).parents[1].glob("src/lucency/*/**/*.py")]
    number, opened = imported_all()
    assert number > 0.9 * len(modules)
    assert opened == "[]"
    looked_up = "import socket; socket.getaddrinfo('localhost', 80)"
    assert "localhost" in imported_all(looked_up)[1]


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.org"])
def test_another_machine_is_refused_and_noted(host: str):
    before = len(offline.REFUSED)
    with pytest.raises(offline.OutwardError):
        socket.create_connection((host, 80), timeout=0.1)
    with pytest.raises(OSError, match="tests reach no other machine"):
        urllib.request.urlopen(f"http://{f'[{host}]' if ':' in host else host}/", timeout=0.1)
    assert len(offline.REFUSED) == before + 2
    del offline.REFUSED[before:]


def test_a_program_that_tests_start_reaches_no_other_machine():
    words = [sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert "OutwardError: tests reach no other machine" in done.stderr


def test_a_packet_to_another_machine_is_refused():
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as line:
        refused = pytest.raises(offline.OutwardError)
        with refused:
            line.sendto(b"x", ("192.0.2.1", 9))
        with refused:
            line.connect(("192.0.2.1", 9))
    del offline.REFUSED[-2:]


def test_this_machine_may_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        socket.create_connection(listening.getsockname()[:2], timeout=5).close()
    assert socket.getaddrinfo("localhost", 80)
