"""Write `infer_pb2` and `oip_pb2` from the .proto files: `make proto`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = {"autoglm/v1/infer.proto": "infer_pb2", "inference/oip.proto": "oip_pb2"}


def generate() -> Iterator[tuple[Path, str]]:
    """Path and text of every generated module and stub."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as scratch:
        argv = ["protoc", f"-I{HERE}", f"--python_out={scratch}", f"--pyi_out={scratch}"]
        if protoc.main([*argv, *SOURCES]):
            raise SystemExit("protoc refused the .proto files; its message is above")
        for source, module in SOURCES.items():
            made = Path(scratch, source.replace(".proto", "_pb2"))
            for suffix in (".py", ".pyi"):
                yield HERE / f"{module}{suffix}", _adapt(made.with_suffix(suffix).read_text())


def _adapt(text: str) -> str:
    """Our pool in place of the process-wide one."""
    lines = ("# mypy: ignore-errors", text)
    return (
        "\n".join(lines)
        .replace(
            "from google.protobuf import descriptor_pool as _descriptor_pool",
            "from autoglm.serve.proto.pool import POOL as _pool",
        )
        .replace("_descriptor_pool.Default()", "_pool")
    )


if __name__ == "__main__":
    for path, text in generate():
        path.write_text(text)
