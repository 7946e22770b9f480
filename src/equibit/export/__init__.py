"""Export to ONNX, and the proof that the file computes what the model computes."""

from equibit.export.inspect_file import summarize_onnx
from equibit.export.layer_check import LayerCheck
from equibit.export.onnx_file import export_onnx
from equibit.export.verify import Check, verify_onnx

__all__ = ["Check", "LayerCheck", "export_onnx", "summarize_onnx", "verify_onnx"]
