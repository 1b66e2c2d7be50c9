"""What the user may write: every key of every YAML file, checked; plugins by name."""
