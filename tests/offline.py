"""No connection leaves this machine while tests run: an audit hook refuses and notes them."""

import ipaddress
import socket
import sys
from typing import Any

REFUSED: list[str] = []  # what was refused, so that a test may look
HOSTS = ("", "localhost", "localhost.localdomain", "testserver")
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

    A datagram socket is let connect: that sends nothing, and tells this machine's own address.
    """
    if event == "socket.connect":
        made, address = arguments
        outward = made.type != socket.SOCK_DGRAM and isinstance(address, tuple)
        outward = outward and not is_here(address[0])
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
