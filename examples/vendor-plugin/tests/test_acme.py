"""The acme backend under the shipped conformance suite: inherit, name the backend, done."""

from autoglm.testing.conformance import BackendConformance


class TestAcme(BackendConformance):
    """Every cell of the suite, on acme."""

    backend = "acme"
