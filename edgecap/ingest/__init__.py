"""Verify, store, acknowledge."""
