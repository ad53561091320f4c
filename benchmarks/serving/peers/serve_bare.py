"""A bare ASGI application: serve_bare.py MODEL PORT."""

import sys

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options)


async def app(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    x = np.array(orjson.loads(body)["data"], np.float32)
    (y,) = session.run(None, {"x": x})
    answer = {"result": y, "status_code": 200, "message": "ok"}
    out = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(out))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": out})


uvicorn.run(
    app,
    port=int(sys.argv[2]),
    lifespan="off",
    access_log=False,
    log_level="warning",
    loop="uvloop",
    http="httptools",
)
