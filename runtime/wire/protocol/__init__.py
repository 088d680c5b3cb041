"""The Open Inference Protocol v2, as device and cloud share it: messages, tensors, reasons for a refusal."""
