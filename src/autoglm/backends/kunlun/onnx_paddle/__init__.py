"""ONNX calls written as Paddle programs: runs in the Paddle environment, on its own Python and
NumPy, and so imports nothing of autoglm.
"""
