"""The model in TensorFlow: the LSTM unroll and what is around it."""
