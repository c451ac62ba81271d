"""The process of the tests reaches no other machine: an audit hook refuses and notes connections.

Processes that it forks have the hook too, and Python programs that it starts with its environment.
"""

import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Any

REFUSED: list[str] = []  # what was refused, so that a test may look
HOSTS = ("", "localhost", "localhost.localdomain", "testserver")
OWN_ADDRESS = ("8.8.8.8", "2001:4860:4860::8888")  # where distributed's get_ip connects, sends not
PACKETS = ("socket.sendto", "socket.sendmsg")


class OutwardError(ConnectionRefusedError):
    """A connection to another machine, which tests do not make."""


def is_here(host: object) -> bool:
    """Say whether an address is of this machine; None and "" are all of its own.

    >>> is_here("127.0.0.1"), is_here("::1"), is_here(b"localhost"), is_here("0.0.0.0")
    (True, True, True, True)
    >>> is_here("8.8.8.8"), is_here("example.org"), is_here("10.0.0.1")
    (False, False, False)
    """
    if host is None:
        return True
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name.lower().rstrip(".") in HOSTS:
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def refuse_outward(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise OutwardError where a socket is about to reach another machine, or to look up its name.

    A datagram socket may connect to OWN_ADDRESS: that sends nothing, and shows which address this
    machine has.
    """
    if event == "socket.connect":
        made, address = arguments
        outward = isinstance(address, tuple) and not is_here(address[0])
        if outward and made.type == socket.SOCK_DGRAM:
            outward = address[0] not in OWN_ADDRESS
    elif event in PACKETS:
        address = arguments[1]
        outward = isinstance(address, tuple) and not is_here(address[0])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = arguments
        outward = not (is_here(arguments[0]) or arguments[0] in (socket.gethostname(), None))
    else:
        return
    if outward:
        REFUSED.append(f"{event} {address}")
        raise OutwardError(f"tests reach no other machine: {event} {address}")


def block() -> None:
    """Refuse connections to other machines in this process, from here to its end."""
    sys.addaudithook(refuse_outward)


def block_children() -> None:
    """Let Python programs that this process starts do the same, by a sitecustomize of the tests."""
    here = Path(__file__).parent
    places = [str(here / "children"), str(here), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
