"""The cloud's side: models that answer many devices over the Open Inference Protocol v2."""
