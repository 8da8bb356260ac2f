"""What the verbs of the `bags` command do; their flags are in `cli`. Nothing is imported here: `bags --help` answers at once."""
