"""What every test shares: a private cache folder, English, and hypothesis without a clock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from autoglm.settings import Settings

# A busy two-core machine makes any deadline a coin toss.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

_TOOLCHAINS = Settings.read().cache_dir / "toolchains"  # the user's, before the cache is private


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOGLM_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        for name in [n for n in os.environ if n in ("AUTOGLM_LANG", "AUTOGLM_DEBUG")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _toolchain(request: pytest.FixtureRequest) -> None:
    """What `@pytest.mark.toolchain("sophon")` asks for: it is there, or the test says why not."""
    marker = request.node.get_closest_marker("toolchain")
    if marker is None:
        return
    from autoglm.toolchain.environment import find

    (name,) = marker.args
    private = Path(os.environ["AUTOGLM_CACHE_DIR"]) / "toolchains"
    if _TOOLCHAINS.is_dir() and not private.exists():
        private.symlink_to(_TOOLCHAINS)
    if find(name) is None:
        pytest.skip(f"toolchain {name} is not installed: autoglm toolchain install {name}")


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    yield
    from autoglm.messages import set_language

    set_language("en")
