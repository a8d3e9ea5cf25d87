"""Chunks → checked session → exports."""
