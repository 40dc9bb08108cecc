"""What stays on disk: model files and runs."""
