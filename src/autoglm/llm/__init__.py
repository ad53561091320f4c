"""Language models: what a config.json promises, and what it takes to run it."""
