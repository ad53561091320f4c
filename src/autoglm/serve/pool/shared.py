"""Memory that two processes see: the tensors between the server and an engine's process.

It has no name, only a file descriptor that the child inherits, so that nothing is left of it when
both are gone, however they went; and it is not what /dev/shm is bounded by.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile

from autoglm.errors import LimitError

LINE = 64  # bytes: arrays begin at multiples of it
_LEAST = 1 << 18
_STEP = 1 << 21
_KEPT = 1 << 26  # what is over it is given back after each use


class Shared:
    """Bytes that grow when asked; made by one process, opened by its descriptor in the other."""

    def __init__(self, fd: int = -1) -> None:
        self.fd = fd if fd >= 0 else _anonymous()
        self._map: mmap.mmap | None = None
        self._size = 0

    def view(self, size: int) -> memoryview:
        """The first `size` bytes; LimitError where there is no memory for them."""
        if size > self._size or (size > _KEPT and not self._reserved(size)):
            self._reserve(size)
            self._map_all()
        assert self._map is not None
        return memoryview(self._map)

    def trim(self) -> None:
        """Give back what a large tensor took; its content is lost."""
        if self._map is None or not hasattr(mmap, "MADV_REMOVE"):
            return
        whole = self._map_all()  # the other side may have made it larger
        if self._size > _KEPT:
            whole.madvise(mmap.MADV_REMOVE, _KEPT, self._size - _KEPT)

    def close(self) -> None:
        """Let it go; may be called twice."""
        self._map = None  # unmapped when the last array on it is gone
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _reserved(self, size: int) -> bool:
        """Whether there is memory for all of it: `trim` leaves a hole up to the file's end."""
        status = os.fstat(self.fd)
        return min(status.st_size, status.st_blocks * 512) >= size

    def _reserve(self, size: int) -> None:
        """Have memory for `size` bytes, or LimitError: to write where none can be had is fatal."""
        if self._reserved(size):
            return
        there = max(_LEAST, 1 << (size - 1).bit_length())
        if there > _KEPT:
            there = -(-size // _STEP) * _STEP
        try:
            os.posix_fallocate(self.fd, 0, there)
        except OSError as error:
            raise LimitError(
                "{size} bytes for the tensors of an engine's process cannot be had: {reason}.",
                hint="Send fewer rows at once, or give the server more memory.",
                size=there,
                reason=error.strerror or str(error),
            ) from error

    def _map_all(self) -> mmap.mmap:
        """Map the whole file, which never shrinks: the other side may use all of it."""
        there = os.fstat(self.fd).st_size
        if self._map is None or there > self._size:
            self._map, self._size = mmap.mmap(self.fd, there), there
        return self._map


def _anonymous() -> int:
    if not hasattr(os, "memfd_create"):  # not Linux
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    fd = os.memfd_create("autoglm-engine", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # to read past its end would be fatal
    return fd
