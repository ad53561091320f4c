"""How many well-formed requests one HTTP/2 connection of zttp lives through, without a network.

    pip install zttp h2; python -m benchmarks.serving.zttp_streams

docs/protocol.md says why this decides which server gRPC runs on.
"""

from __future__ import annotations

import h2.config
import h2.connection
import zttp

MANY = 20_000
HEAD = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "a")]


def requests(client: h2.connection.H2Connection, server: zttp.H2Connection) -> int:
    """Ask and answer, one after the other, until the server refuses."""
    for number in range(MANY):
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, HEAD)
        client.send_data(stream, b"question", end_stream=True)
        try:
            server.receive_data(client.data_to_send())
            while (event := server.next_event()) is not zttp.NEED_DATA:
                if isinstance(event, zttp.Request):
                    answer = server.stream(event.stream_id)
                    answer.send_response(200, [(b"content-type", b"application/grpc")])
                    answer.send_data(b"answer")
                    answer.end_message([(b"grpc-status", b"0")])
        except zttp.RemoteProtocolError as error:
            print(f"request {number + 1}: {error}")
            return number
        client.receive_data(server.data_to_send())
    return MANY


def main() -> int:
    """Print how many requests were answered."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    server = zttp.Connection(zttp.SERVER, protocol=zttp.HTTP2)
    print(f"{requests(client, server)} of {MANY} requests answered")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
