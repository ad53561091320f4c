"""get_datatype_by_numpy, as Cambricon's samples import it."""

from magicmind.python.runtime import DataType


def get_datatype_by_numpy(dtype):
    """The MagicMind type of a NumPy dtype."""
    return DataType[dtype.name.upper()]
