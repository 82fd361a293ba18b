"""Networks that were trained and exported elsewhere: an ONNX file or an OpenVINO IR becomes an artifact."""
