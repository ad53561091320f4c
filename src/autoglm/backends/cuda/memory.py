"""Device memory through NVIDIA's own Python binding of the CUDA runtime."""

from __future__ import annotations

from typing import Any

from autoglm.errors import BackendUnavailableError, ExecutionError


class Memory:
    """Allocations and one stream on one GPU; `close` frees all of it."""

    def __init__(self, number: int) -> None:
        self._cuda = _binding()
        self._number = number
        self._held: dict[str, tuple[int, int]] = {}
        self.enter()
        self.stream: Any = self._call("cudaStreamCreate")

    def _call(self, name: str, *arguments: Any) -> Any:
        return _checked(self._cuda, name, *arguments)

    def enter(self) -> None:
        """Make the GPU this thread's: CUDA keeps it per thread, and a new thread has GPU 0."""
        self._call("cudaSetDevice", self._number)

    def room(self, name: str, size: int) -> int:
        """The address of at least `size` bytes held under that name."""
        address, held = self._held.get(name, (0, -1))
        if held < size:
            if held >= 0:
                self._held.pop(name)
                self._call("cudaFree", address)
            address = int(self._call("cudaMalloc", max(size, 1)))
            self._held[name] = (address, size)
        return address

    def put(self, address: int, array: Any) -> None:
        """Copy an array to the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpy", address, array.ctypes.data, array.nbytes, kind)

    def get(self, address: int, array: Any) -> None:
        """Copy from the device into an array."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpy", array.ctypes.data, address, array.nbytes, kind)

    def wait(self) -> None:
        """Until the stream has done its work."""
        self._call("cudaStreamSynchronize", self.stream)

    def close(self) -> None:
        """Free everything; may be called twice."""
        held, self._held = self._held, {}
        for address, _ in held.values():
            self._call("cudaFree", address)
        if self.stream is not None:
            stream, self.stream = self.stream, None
            self._call("cudaStreamDestroy", stream)


def use_gpu(number: int) -> None:
    """Make the GPU of that number this thread's."""
    _checked(_binding(), "cudaSetDevice", number)


def _checked(cuda: Any, name: str, *arguments: Any) -> Any:
    code, *values = getattr(cuda, name)(*arguments)
    if int(code) != 0:
        raise ExecutionError(
            "CUDA's {call} failed: {code}.",
            hint="`nvidia-smi` shows the GPU, its memory and its driver.",
            call=name,
            code=str(code),
        )
    return values[0] if values else None


def _binding() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendUnavailableError(
            "cuda.bindings cannot be imported: {cause}.",
            hint="pip install cuda-python, of the CUDA version that the driver takes.",
            cause=str(error),
        ) from error
    return runtime
