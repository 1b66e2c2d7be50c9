"""The one error that means: what the user gave is wrong. Standard library only, so that the command line starts fast."""


class ConfigError(ValueError):
    """The message is one line that names the key or file and says what to do; the command line exits with status 2."""
