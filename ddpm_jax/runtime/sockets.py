"""Sockets that other hosts connect to."""

import socket


def listen(port: int, *, backlog: int) -> socket.socket:
    """Listens on a port of all addresses, IPv6 and IPv4 where the system can do both; 0: the system chooses the port.

    Raises:
        OSError: if the port is taken.
    """
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    return socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=backlog)
