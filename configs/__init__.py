"""The experiments: `get_config` of each file returns its settings."""
