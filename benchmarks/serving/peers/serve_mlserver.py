"""MLServer, REST and gRPC: serve_mlserver.py MODEL PORT [--grpc]."""

import asyncio
import os
import sys

import numpy as np
import onnxruntime as ort
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.types import InferenceResponse, ResponseOutput


class Mlp(MLModel):
    async def load(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MLP"], options)
        return True

    async def predict(self, payload):
        given = payload.inputs[0]
        x = np.array(given.data.root, np.float32).reshape(given.shape)
        y = self.session.run(None, {"x": x})[0]
        output = ResponseOutput(
            name="y", datatype="FP32", shape=list(y.shape), data=y.ravel().tolist()
        )
        return InferenceResponse(model_name="mlp", id=payload.id, outputs=[output])


async def main():
    os.environ["MLP"] = sys.argv[1]
    port = int(sys.argv[2])
    http_port, grpc_port = (port + 1, port) if "--grpc" in sys.argv else (port, port + 1)
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=port + 2,
        parallel_workers=0,
        use_structured_logging=False,
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="mlp", implementation=Mlp)])


if __name__ == "__main__":
    asyncio.run(main())
