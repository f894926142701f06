"""Arrays over TCP, Unix and datagram sockets, scattered and gathered: sendmsg, recvmsg_into, sendall, timeouts."""

import socket
import threading

import numpy as np

a = np.arange(300_000)
listener = socket.create_server(("127.0.0.1", 0))
got = np.zeros_like(a)


def serve() -> None:
    peer, _ = listener.accept()
    with peer:
        view = got.view("u1")
        filled = 0
        while filled < view.size:
            filled += peer.recv_into(view[filled : filled + 70_001])
        peer.sendall(got[::-1].copy())


thread = threading.Thread(target=serve)
thread.start()
back = np.zeros_like(a)
with socket.create_connection(listener.getsockname()) as client:
    client.sendall(a)
    with client.makefile("rb") as stream:
        print(stream.readinto(back))
thread.join()
listener.close()
print(np.array_equal(a, got), np.array_equal(a[::-1], back))
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
print(one.sendmsg([a[:1000], a[2000:2500]]))
target = [np.zeros(1200, "i8"), np.zeros(1000, "i8")]
print(other.recvmsg_into(target)[0], int(target[0].sum()), int(target[1].sum()))
one.send(a[:10])
print(other.recv_into(got[:4]), got[:5])
other.settimeout(0.05)
try:
    other.recv_into(got)
except TimeoutError as error:
    print(error)
one.close(), other.close()
