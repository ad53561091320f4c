"""Stand-ins for vendor tools that cannot be installed here.

Each enforces the vendor's documented contract (flags, call order, types, resources given back) and
computes with ONNX Runtime what the chip would. None is the tool itself: what passes here was not
run on the real one.
"""
