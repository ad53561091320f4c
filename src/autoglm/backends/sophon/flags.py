"""Settings as options of `model_deploy.py`: those that change neither chip, precision nor files."""

from __future__ import annotations

from collections.abc import Mapping

from autoglm.errors import ConfigError

_BOOL = ("true", "false")
# An allow-list: the tool takes a later value over ours and any unique beginning of a name.
FLAGS: Mapping[str, tuple[str, ...]] = {
    "asymmetric": _BOOL,
    "compress_mode": ("none", "weight", "activation", "all"),
    "disable_affine": _BOOL,
    "disable_layer_group": _BOOL,
    "disable_structure_detect_opt": _BOOL,
    "disable_topo_sort": _BOOL,
    "do_winograd": _BOOL,
    "gelu_mode": ("normal", "tanh", "sigm"),
    "group_by_cores": ("auto", "true", "false"),
    "high_precision": _BOOL,
    "ignore_f16_overflow": _BOOL,
    "log_level": ("0", "1"),
    "matmul_perchannel": _BOOL,
    "num_core": ("1", "2"),
    "op_divide": _BOOL,
    "opt": ("1", "2", "3"),
    "shape_secs_search_strategy": ("0", "1", "2"),
    "weight_deduplicate": _BOOL,
}


def flags(settings: Mapping[str, str]) -> list[str]:
    """The arguments; ConfigError names what is allowed."""
    found: list[str] = []
    for name, value in sorted(settings.items()):
        allowed = FLAGS.get(name)
        if allowed is None:
            raise ConfigError(
                "sophon has no setting {name}; it takes {known}.",
                hint="Chip, precision, inputs and files come from the compile options.",
                name=name,
                known=", ".join(FLAGS),
            )
        if value not in allowed:
            raise ConfigError(
                "sophon's setting {name} is one of {allowed}; found {value!r}.",
                name=name,
                allowed=", ".join(allowed),
                value=value,
            )
        if allowed is not _BOOL:
            found += [f"--{name}", value]
        elif value == "true":
            found.append(f"--{name}")
    return found
