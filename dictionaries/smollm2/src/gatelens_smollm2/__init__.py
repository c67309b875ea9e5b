"""Dictionaries in sae-lens' format, a folder each; nothing here is code. See the README beside pyproject.toml."""
