"""Reaching a device: one session with the agent there, over one of several transports.

:func:`connect` is all that the floors above need. Importing this package imports neither paramiko nor numpy.
"""

from __future__ import annotations

import functools

from edgepack.device.address import DeviceAddress
from edgepack.device.facts import DeviceFacts
from edgepack.device.opening import open_session
from edgepack.device.options import DEFAULT_ROOT, ConnectOptions
from edgepack.device.session import Session
from edgepack.device.transport import Transport
from edgepack.device.wire import Reply
from edgepack.errors import InputError

__all__ = [
    "DEFAULT_ROOT",
    "ConnectOptions",
    "DeviceAddress",
    "DeviceFacts",
    "Reply",
    "Session",
    "connect",
    "open_session",
    "open_transport",
]


def connect(
    address: str | DeviceAddress,
    options: ConnectOptions | None = None,
    *,
    app: str | None = None,
    lock: bool = False,
    look: bool = False,
    sudo: bool = False,
) -> Session:
    """Log in to a device and start the agent there. Where the line breaks later, the session logs in again.

    ``address`` as in :meth:`DeviceAddress.parse`. ``lock`` takes the device's lock until the session is closed;
    ``look`` asks at once for all that a probe wants to know; with ``sudo`` the agent is root's, where the login may do
    that without a password. Raises InputError (a bad address), UnreachableError (no way there, login refused),
    IntegrityError (host key), MisfitError (no Python there), LockedError.
    """
    place = DeviceAddress.parse(address) if isinstance(address, str) else address
    options = options or ConnectOptions()
    contradicted = options.root is not None and place.root not in (None, options.root)
    if contradicted and not options.root_gives_way:
        raise InputError(
            "bad-option",
            f"{place} names a folder of its own, and --root another: {options.root}.",
            hint="Leave one of them out.",
        )
    reach = functools.partial(open_transport, place, options)
    return open_session(reach, options, app=app, lock=lock, root=place.root, look=look, sudo=sudo)


def open_transport(address: DeviceAddress, options: ConnectOptions) -> Transport:
    """The transport to a device; logs in where it is edgepack's own SSH client."""
    if address.kind == "local":
        from edgepack.device.local import LocalTransport

        return LocalTransport(address.root)
    if options.transport == "openssh":
        from edgepack.device.openssh import OpenSshTransport

        return OpenSshTransport(address, options)
    from edgepack.device.ssh import SshTransport

    return SshTransport(address, options)
