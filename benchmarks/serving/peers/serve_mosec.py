"""mosec, one request at a time: serve_mosec.py MODEL PORT."""

import os
import sys

BATCH = int(os.environ.get("BATCH", "1"))
if "MLP" not in os.environ:  # its worker processes import this file again
    os.environ["MLP"] = sys.argv[1]
    sys.argv[1:] = ["--port", sys.argv[2], "--address", "127.0.0.1"]

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
from mosec import Server, Worker  # noqa: E402


class Mlp(Worker):
    def __init__(self):
        super().__init__()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MLP"], options)

    def forward(self, data):
        if isinstance(data, list):
            x = np.array([d["data"] for d in data], np.float32)
            return [{"result": row.tolist()} for row in self.session.run(None, {"x": x})[0]]
        x = np.array([data["data"]], np.float32)
        return {"result": self.session.run(None, {"x": x})[0][0].tolist()}


if __name__ == "__main__":
    server = Server()
    if BATCH > 1:
        server.append_worker(Mlp, num=1, max_batch_size=BATCH, max_wait_time=1)
    else:
        server.append_worker(Mlp, num=1)
    server.run()
