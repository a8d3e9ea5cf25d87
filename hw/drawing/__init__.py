"""Pictures and tables of hw/, made from its TOML files: `python -m hw.drawing`."""
