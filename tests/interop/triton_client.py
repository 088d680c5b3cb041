"""What NVIDIA's client hears from a server, as JSON: `triton_client.py grpc|http HOST:PORT MODEL INPUT.npy`.

Runs in an environment with tritonclient and numpy; knows nothing of this project.
"""

import importlib
import json
import sys

import numpy as np


def main(kind: str, place: str, model: str, file: str) -> None:
    triton = importlib.import_module(f"tritonclient.{kind}")
    x = np.load(file)
    plain = {"as_json": True} if kind == "grpc" else {}
    told = {}
    with triton.InferenceServerClient(place) as client:
        told["live"], told["ready"] = client.is_server_live(), client.is_server_ready()
        told["model_ready"] = [client.is_model_ready(model), client.is_model_ready(model, "1")]
        told["server"] = client.get_server_metadata(**plain)
        told["model"] = client.get_model_metadata(model, **plain)
        given = triton.InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        answer = client.infer(model, [given], request_id="seven")
        told["logits"] = answer.as_numpy("logits").tolist()
        told["id"] = answer.get_response().id if kind == "grpc" else answer.get_response()["id"]
        asked = client.infer(model, [given], outputs=[triton.InferRequestedOutput("logits")], model_version="1")
        told["asked"] = asked.as_numpy("logits").tolist()
        if kind == "http":
            given.set_data_from_numpy(x, binary_data=False)
            output = triton.InferRequestedOutput("logits", binary_data=False)
            told["listed"] = client.infer(model, [given], outputs=[output]).as_numpy("logits").tolist()
        told["refused"] = []
        wrong = triton.InferInput("x", [1, 2], "FP32")
        wrong.set_data_from_numpy(np.zeros((1, 2), np.float32))
        for name, inputs in (("nothing", [given]), (model, [wrong])):
            try:
                client.infer(name, inputs)
            except importlib.import_module("tritonclient.utils").InferenceServerException as error:
                told["refused"].append(error.message())
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
