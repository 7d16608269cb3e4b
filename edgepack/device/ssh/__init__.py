"""edgepack's own SSH client. With ``embedded`` the only importer of paramiko; imported only when somebody logs in."""

from __future__ import annotations

from edgepack.device.ssh.channel import SshChannel
from edgepack.device.ssh.connect import SshTransport

__all__ = ["SshChannel", "SshTransport"]
