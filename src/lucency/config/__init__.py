"""The protocol: its sections, reading and writing TOML."""
