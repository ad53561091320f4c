"""What a return code of pyACL means."""

from __future__ import annotations

from autoglm.errors import ExecutionError

# cann/ge @ ffdcbc9f7496, docs/zh/api/graph_engine_api/c/acl/aclError.md and
# ge/ge_error_codes.h; acl/acl_base_rt.h for 1xxxxx and 5xxxxx.
_MEANINGS = {
    100000: "a parameter is wrong",
    100001: "ACL is not initialised",
    100002: "ACL is initialised twice",
    107001: "the device number is wrong, or no such device is here",
    107002: "the context is not set in this thread",
    145002: "the model's path is wrong",
    145003: "the model's number is wrong",
    145006: "the model file is not whole",
    145012: "an input has another size than the model takes",
    145013: "the batch size is not one of the model's gears",
    145021: "the shape is not one of the model's gears",
    207001: "the device has no memory left",
    245000: "memory could not be allocated",
    500000: "an internal error of ACL",
    507008: "the chip's name does not fit: the model was compiled for another soc_version",
    507018: "an AI CPU operator failed",
    507011: "the model failed while it ran",
    545001: "the model does not load: another CANN version or chip made it",
    545601: "the model ran past its time limit",
}
_HINTS = {
    107001: "`npu-smi info` and `autoglm devices` list the NPUs.",
    207001: "`npu-smi info` shows who holds the memory.",
    545001: "Compile again with this machine's CANN, for the chip that `npu-smi info` names.",
}


def check(code: int, call: str) -> None:
    """ExecutionError with the meaning of `code`, unless it is 0."""
    if code == 0:
        return
    raise ExecutionError(
        "{call} failed: {code}, {meaning}.",
        hint=_HINTS.get(code, "The details are in ~/ascend/log/debug/plog."),
        call=call,
        code=code,
        meaning=_MEANINGS.get(code, "a code that Huawei's aclError list explains"),
    )
