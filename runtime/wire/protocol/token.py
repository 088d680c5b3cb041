"""The token that a server may ask every request for."""

from pathlib import Path

from modeltree.errors import ConfigError


def read_token(file: Path) -> str:
    """The token in a file, blanks around it left out.

    Raises
    ------
    ConfigError : the file cannot be read, or what it holds is no token.
    """
    try:
        token = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read a token from {file}: {error}: it must be ASCII text") from error
    if not token or not token.isprintable() or " " in token:
        raise ConfigError(f"{file} holds no token: it must be one word of printable ASCII")
    return token
