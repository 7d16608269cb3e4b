"""Emulated devices: Debian for a Raspberry Pi's processor, under QEMU, with a real sshd on loopback.

:func:`start`, :func:`stop`, :func:`remove` and :func:`list_devices` are ``edgepack emulate``. An emulated device is
then an ordinary SSH address.
"""

from __future__ import annotations

from edgepack.device.emulated.systems import SYSTEMS
from edgepack.device.emulated.verbs import list_devices, remove, start, stop

__all__ = ["SYSTEMS", "list_devices", "remove", "start", "stop"]
