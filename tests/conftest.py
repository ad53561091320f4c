"""What every test shares: a private cache folder, English, and hypothesis without a clock."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A busy two-core machine makes any deadline a coin toss.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOGLM_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        for name in [n for n in os.environ if n in ("AUTOGLM_LANG", "AUTOGLM_DEBUG")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    yield
    from autoglm.messages import set_language

    set_language("en")
