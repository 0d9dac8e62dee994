"""A TCP proxy between the workers and the broker, that can cut connections in mid-message or let them go silent."""

import contextlib
import random
import socket
import struct
import threading

CHUNK = 65_536
# Closing with this sends a reset: what was under way is lost, as when a cable is pulled and the peer told.
RESET = struct.pack("ii", 1, 0)


class Connection:
    """Two sockets and the two directions between them: 0 to the broker, 1 to the client."""

    def __init__(self, client, broker):
        self.sockets = client, broker
        self.silent = set()
        self.left = [None, None]  # bytes that still go through before the connection is cut
        self.open = True
        for direction in (0, 1):
            threading.Thread(target=self._pump, args=(direction,), daemon=True).start()

    def _pump(self, direction):
        source, target = self.sockets if direction == 0 else self.sockets[::-1]
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if direction in self.silent:
                    continue
                left = self.left[direction]
                if left is not None and len(data) >= left:
                    target.sendall(data[:left])
                    self.reset()
                    break
                if left is not None:
                    self.left[direction] = left - len(data)
                target.sendall(data)
        self.close()

    def reset(self):
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def close(self):
        self.open = False
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Proxy:
    """Listens on a port of the loopback address and passes everything on to another one."""

    def __init__(self, port, target_port):
        self.port = port
        self.target_port = target_port
        self.connections = []
        self.listen()

    def listen(self):
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def refuse(self):
        """Take no connections any more, as a machine does on which nobody listens."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                try:
                    broker = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
                except OSError:
                    client.close()
                    continue
                broker.settimeout(None)
                self.connections = [each for each in self.connections if each.open] + [Connection(client, broker)]

    def cut(self, rng: random.Random) -> int:
        """Let some connections break after some more bytes, in one direction or the other; gives how many."""
        chosen = self._some(rng)
        for each in chosen:
            each.left[rng.randrange(2)] = rng.choice([0, rng.randrange(200), rng.randrange(200_000)])
        return len(chosen)

    def silence(self, rng: random.Random) -> int:
        """Let some connections go silent for good, in one direction or in both; gives how many."""
        chosen = self._some(rng)
        for each in chosen:
            each.silent = rng.choice([{0}, {1}, {0, 1}])
        return len(chosen)

    def close(self):
        self.refuse()
        for each in self.connections:
            each.close()

    def _some(self, rng):
        alive = [each for each in self.connections if each.open]
        return rng.sample(alive, rng.randint(1, len(alive))) if alive else []
