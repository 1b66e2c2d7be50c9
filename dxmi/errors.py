"""The one error that means: what the user gave is wrong. Standard library only: the command line starts fast."""


class ConfigError(ValueError):
    """The message is one line that names the key or file and says what to do; the command line exits with status 2."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)
