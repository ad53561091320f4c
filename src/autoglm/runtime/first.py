"""Open a model without measuring: the first engine, in order of trust, whose measured table takes
every node.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.errors import BackendError, UnsupportedOperatorError
from autoglm.plan.explain import lacks
from autoglm.runtime.build import plan_and_build
from autoglm.runtime.candidate import options_of, run_options
from autoglm.runtime.prepare import Loaded, Planned, installed, plan_for
from autoglm.runtime.samples import make_samplings
from autoglm.runtime.session import PlanSession, open_parts
from autoglm.spec import Fit

if TYPE_CHECKING:
    from autoglm.config import AdaptConfig
    from autoglm.plan import Machine

_RANK = {Fit.FITS: 0, Fit.FALLBACKS: 1, Fit.NO: 2}


def open_first(loaded: Loaded, config: AdaptConfig, *, use_cache: bool = False) -> PlanSession:
    """A session over artifacts that live as long as it does.

    An engine that refuses to compile what its table promised is passed over, and the error says
    so where no other takes the model: UnsupportedOperatorError.
    """
    from autoglm.plan import Machine  # its defaults: nothing is measured here

    precision = "fp32" if config.precision == "auto" else config.precision
    engines = [config.backend] if config.backend != "auto" else _engines()
    reasons: list[str] = []
    machine = Machine()
    for planned in _ranked(loaded, engines, config, precision, machine):
        if planned.plan.fit is Fit.NO:
            reasons.append(f"{planned.plan.backend}: {' '.join(lacks(planned.plan))}")
            continue
        try:
            return _open(loaded, planned, config, machine, precision, use_cache)
        except (BackendError, UnsupportedOperatorError) as error:
            reasons.append(f"{planned.plan.backend}: {error}")
    raise UnsupportedOperatorError(
        "No engine here takes {model}: {reasons}.",
        hint="`autoglm check` lists every refusal, node by node.",
        model=loaded.name,
        reasons="; ".join(r[:300] for r in reasons) or "none is installed",
    )


def _ranked(
    loaded: Loaded, engines: list[str], config: AdaptConfig, precision: str, machine: Machine
) -> list[Planned]:
    plans: list[Planned] = []
    for name in engines:
        planned = plan_for(loaded, name, config, machine, precision=precision)
        if planned.plan.fit is Fit.FITS:
            # Engines come in order of trust, so the first full yes is the answer.
            return [planned, *sorted(plans, key=lambda p: _RANK[p.plan.fit])]
        plans.append(planned)
    return sorted(plans, key=lambda p: _RANK[p.plan.fit])


def _open(
    loaded: Loaded,
    planned: Planned,
    config: AdaptConfig,
    machine: Machine,
    precision: str,
    use_cache: bool,
) -> PlanSession:
    # Removed when closed, collected, or at exit: a session nobody closes leaves nothing behind.
    folder = tempfile.TemporaryDirectory(prefix="autoglm-run-", ignore_cleanup_errors=True)
    try:
        planned, built = plan_and_build(
            loaded,
            planned,
            config,
            machine,
            options_of(config, precision, make_samplings(loaded.inputs, config).calibration),
            Path(folder.name),
            use_cache=use_cache,
        )
        return open_parts(
            planned.plan.partitions,
            built.artifacts,
            Path(folder.name),
            loaded.inputs,
            loaded.outputs,
            run_options(config),
            on_close=folder.cleanup,
        )
    except BaseException:
        folder.cleanup()
        raise


def _engines() -> list[str]:
    return [name for name in installed() if name != "reference"]
