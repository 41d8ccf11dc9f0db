"""The metric as a file for other programs, checked in the program that runs it.

In: settings of a metric. Out: an ONNX file or one of torch.export, and what its check found. Read
first: `model` (export and check), then `samples` (images to check with) and `int8` (quantisation
and its report).
"""
