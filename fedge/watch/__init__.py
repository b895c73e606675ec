"""Trackers that a run can be watched by: TensorBoard, MLflow, Weights & Biases, or a class of one's own."""
