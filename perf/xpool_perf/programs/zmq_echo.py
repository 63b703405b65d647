"""A bare ZeroMQ echo: ``zmq_echo.py NBYTES`` answers each message with so many bytes.

Prints its port and serves one DEALER until that says something empty.
"""

from __future__ import annotations

import sys

import zmq


def main(answer_nbytes: int) -> None:
    """Serve."""
    answer = bytes(answer_nbytes)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        print(port, flush=True)
        while True:
            peer, message = socket.recv_multipart()
            socket.send_multipart([peer, answer])
            if not message:
                return


if __name__ == "__main__":
    main(int(sys.argv[1]))
