"""Part of the stand-in for cuda-python."""
