"""From a model to text, without TensorFlow: the batch-1 clone, sampling, and how samples are shown."""
