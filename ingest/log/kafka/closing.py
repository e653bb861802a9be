"""kafka-python's connections, closed also when they fail.

kafka-python 3.0 forgets the socket of a connection that was refused or whose TLS handshake failed; it stays open until
the garbage collector finds it. A broker that is away for an hour is refused some thousand times, so file descriptors
would run out before memory is looked through.
"""

import socket
from typing import Any

from kafka.errors import KafkaConnectionError, KafkaError
from kafka.net.inet import KafkaNetSocket
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport


class ClosingManager(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python has no types
    """A connection manager whose failed connections leave nothing open."""

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        """Connect, and speak TLS where that is configured.

        Raises:
            KafkaConnectionError: none of the host's addresses takes the connection, or TLS failed.
        """
        connected = await self._connected(node.host, node.port, timeout_at)
        if self.ssl_enabled:
            configs = {name: value for name, value in self.config.items() if name.startswith("ssl_")}
            transport = KafkaSSLTransport(self._net, connected, host=node.host, **configs)
        else:
            transport = KafkaTCPTransport(self._net, connected, host=node.host)
        handed_over = False
        try:
            await transport.handshake()
            handed_over = True
        except Exception as error:
            raise KafkaConnectionError(f"Handshake failed: {error}") from error
        finally:
            # Also when the task is dropped while it waits.
            if not handed_over:
                transport.close()
        return transport

    async def _connected(self, host: str, port: int, timeout_at: float | None) -> socket.socket:
        connecting = KafkaNetSocket()
        failure: Exception = KafkaConnectionError("DNS Resolution failure")
        for family, kind, protocol, _name, address in connecting.dns_lookup(host, port):
            opened = socket.socket(family, kind, protocol)
            handed_over = False
            try:
                opened.setblocking(False)
                for option in self.config["socket_options"]:
                    opened.setsockopt(*option)
                await connecting.sock_connect(self._net, opened, address, timeout_at=timeout_at)
                handed_over = True
                return opened
            except (KafkaError, OSError) as error:
                failure = error if isinstance(error, KafkaConnectionError) else KafkaConnectionError(str(error))
            finally:
                if not handed_over:
                    opened.close()
        raise failure
