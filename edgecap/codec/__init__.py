"""Arrays ↔ chunk bytes; FORMAT.md is the specification."""
