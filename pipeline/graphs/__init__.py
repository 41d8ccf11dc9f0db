"""The metric as a file that other programs run: ONNX, int8 ONNX, or torch.export.

In: a backbone and a head. Out: one file from pixels to distances, or from pixels to embeddings.
Read first: `graph` (what is computed), then `onnx_file`, `pt2_file` and `quantised`; `reference`
computes the same in float64 by other means, `card` is what a file says of itself.
"""
