"""Measured capability packs, and chips as data."""

from autoglm.catalog.chips import chip, chips, default_chip
from autoglm.catalog.describe import describe
from autoglm.catalog.features import Layout, features, signature
from autoglm.catalog.packs import Pack, dumps, load_pack, measured, merge, read_pack, shipped
from autoglm.catalog.rules import Condition, Measured, Row

__all__ = [
    "Condition",
    "Layout",
    "Measured",
    "Pack",
    "Row",
    "chip",
    "chips",
    "default_chip",
    "describe",
    "dumps",
    "features",
    "load_pack",
    "measured",
    "merge",
    "read_pack",
    "shipped",
    "signature",
]
