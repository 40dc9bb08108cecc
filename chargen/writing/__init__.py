"""From a model to text: the batch-1 clone, sampling, and what is shown of it. Without TensorFlow."""
