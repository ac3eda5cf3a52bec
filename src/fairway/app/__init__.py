"""The only wiring, and the only reader of the environment and `fairway.toml`."""
