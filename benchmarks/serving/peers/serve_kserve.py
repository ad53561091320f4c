"""KServe, protocols v1, v2 and gRPC: serve_kserve.py MODEL PORT [--grpc]."""

import sys

MODEL, PORT = sys.argv[1:3]
GRPC = "--grpc" in sys.argv
HTTP_PORT, GRPC_PORT = (int(PORT) + 1, int(PORT)) if GRPC else (int(PORT), int(PORT) + 1)
sys.argv[1:] = []  # kserve reads the command line while it is imported

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
        if isinstance(payload, dict):  # v1
            x = np.array(payload["instances"], np.float32)
            return {"predictions": self.session.run(None, {"x": x})[0].tolist()}
        y = self.session.run(None, {"x": payload.inputs[0].as_numpy()})[0]
        output = kserve.InferOutput(name="y", shape=list(y.shape), datatype="FP32")
        output.set_data_from_numpy(y, binary_data=GRPC)
        return kserve.InferResponse(
            response_id=payload.id, model_name=self.name, infer_outputs=[output]
        )


if __name__ == "__main__":
    kserve.ModelServer(
        http_port=HTTP_PORT,
        grpc_port=GRPC_PORT,
        enable_grpc=GRPC,
        workers=1,
        enable_latency_logging=False,
        access_log_format=None,
    ).start([Mlp("mlp")])
