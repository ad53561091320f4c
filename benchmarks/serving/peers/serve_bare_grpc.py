"""The floor: bare grpc.aio, no limits, no checks, the model run in the handler. MODEL PORT"""

import asyncio
import sys

import grpc
import numpy as np
import onnxruntime

from autoglm.serve.proto import oip_pb2

MODEL, PORT = sys.argv[1:3]


async def main() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODEL, options)

    async def infer(message: oip_pb2.ModelInferRequest, _: object) -> oip_pb2.ModelInferResponse:
        x = np.frombuffer(message.raw_input_contents[0], np.float32)
        y = session.run(None, {"x": x.reshape(tuple(message.inputs[0].shape))})[0]
        answer = oip_pb2.ModelInferResponse(
            model_name="mlp", id=message.id, raw_output_contents=[y.tobytes()]
        )
        answer.outputs.add(name="y", datatype="FP32", shape=y.shape)
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        infer,
        oip_pb2.ModelInferRequest.FromString,
        oip_pb2.ModelInferResponse.SerializeToString,
    )
    server = grpc.aio.server()
    name = "inference.GRPCInferenceService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {"ModelInfer": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
