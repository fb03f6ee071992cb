"""What made the bundled checkpoint, reproducibly; see `python -m sjd_pipelines.training --help`."""
