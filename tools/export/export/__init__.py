"""Real vision-language checkpoints to the ONNX folders that groundd loads."""
