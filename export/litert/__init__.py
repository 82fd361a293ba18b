"""LiteRT files (.tflite) written from octc's own ONNX files with the quantisers of training: no converter, no calibration."""
