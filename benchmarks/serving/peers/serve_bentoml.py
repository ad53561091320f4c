"""BentoML: serve_bentoml.py MODEL PORT."""

import os
import sys
import tempfile
from pathlib import Path

SERVICE = """
import os
import bentoml
import numpy as np

@bentoml.service(workers=1)
class Mlp:
    def __init__(self):
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MLP"], options)

    @bentoml.api
    def predict(self, x: list[list[float]]) -> list[list[float]]:
        return self.session.run(None, {"x": np.array(x, np.float32)})[0].tolist()
"""

folder = Path(tempfile.mkdtemp(prefix="bentoml-"))
(folder / "service.py").write_text(SERVICE)
os.environ["MLP"] = sys.argv[1]
program = str(Path(sys.executable).with_name("bentoml"))
os.execv(
    program,
    [
        program,
        "serve",
        "service:Mlp",
        "--working-dir",
        str(folder),
        "--port",
        sys.argv[2],
        "--host",
        "127.0.0.1",
    ],
)
