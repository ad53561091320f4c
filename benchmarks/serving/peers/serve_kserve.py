"""KServe, v1 protocol: serve_kserve.py MODEL PORT."""

import sys

MODEL, PORT = sys.argv[1:3]
sys.argv[1:] = [f"--http_port={PORT}", "--enable_grpc=false", "--workers=1"]

import kserve  # noqa: E402
import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402


class Mlp(kserve.Model):
    def __init__(self, name):
        super().__init__(name)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(MODEL, options)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        x = np.array(payload["instances"], np.float32)
        return {"predictions": self.session.run(None, {"x": x})[0].tolist()}


if __name__ == "__main__":
    kserve.ModelServer(http_port=int(PORT), enable_grpc=False, access_log_format=None).start(
        [Mlp("mlp")]
    )
