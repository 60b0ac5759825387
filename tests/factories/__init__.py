"""Rows to begin a test with: a file a model, traits for states."""
