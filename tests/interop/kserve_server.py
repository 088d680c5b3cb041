"""KServe with every ONNX file of a folder as a model: `kserve_server.py FOLDER --http_port N --grpc_port N`.

Runs in an environment with kserve and onnxruntime; knows nothing of this project.
"""

import sys
from pathlib import Path

import kserve
import onnxruntime


class OnnxModel(kserve.Model):
    """Named as its file; one float32 tensor in, one out."""

    def __init__(self, file: Path) -> None:
        super().__init__(file.stem)
        self.session = onnxruntime.InferenceSession(str(file))
        self.ready = True

    def get_input_types(self) -> list[dict]:
        return [_described(one) for one in self.session.get_inputs()]

    def get_output_types(self) -> list[dict]:
        return [_described(one) for one in self.session.get_outputs()]

    def predict(self, payload: kserve.InferRequest, headers: object = None, response_headers: object = None) -> object:
        given, name = payload.inputs[0], self.session.get_outputs()[0].name
        (y,) = self.session.run(None, {given.name: given.as_numpy()})
        made = kserve.InferOutput(name=name, shape=list(y.shape), datatype="FP32")
        made.set_data_from_numpy(y, binary_data=bool(payload.use_binary_outputs))
        return kserve.InferResponse(
            response_id=payload.id, model_name=self.name, infer_outputs=[made],
            use_binary_outputs=payload.use_binary_outputs,
        )  # fmt: skip


def _described(tensor: object) -> dict:
    return {"name": tensor.name, "datatype": "FP32", "shape": [-1, *tensor.shape[1:]]}


if __name__ == "__main__":
    models = [OnnxModel(file) for file in sorted(Path(sys.argv[1]).glob("*.onnx"))]
    kserve.ModelServer(workers=1, enable_grpc=True).start(models)
