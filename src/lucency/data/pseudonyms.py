"""Pseudonyms of patients, studies and films: keyed hashes, and the key in a file of its own.

A pseudonym is HMAC-SHA256 (RFC 2104) cut to 64 bits. Without the key it cannot be computed from an
identifier, nor be found by trying all; with it the same identifier has the same pseudonym in every
run. A run holds the key's fingerprint alone.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from lucency.core.files import flush_folder

BYTES, MODE = 32, 0o600
DIGITS = 16  # hexadecimal, of a pseudonym
NEW_KEY = "a run of these films began with that key: bring it back, or choose another --out"


@dataclass(frozen=True)
class PseudonymKey:
    """A secret key; its bytes are in no representation of it."""

    secret: bytes = field(repr=False)

    def pseudonym(self, kind: str, *identifier: str) -> str:
        """Return the pseudonym of an identifier, 16 hexadecimal digits.

        `kind` keeps a patient and a study of one number apart.
        """
        message = "\0".join((kind, *identifier)).encode(errors="surrogatepass")
        return hmac.digest(self.secret, message, "sha256").hex()[:DIGITS]

    @property
    def fingerprint(self) -> str:
        """What names the key in a run, and tells nothing of it."""
        return self.pseudonym("key")


def fleeting_key() -> PseudonymKey:
    """Return a new key that no file holds: its pseudonyms serve to count."""
    return PseudonymKey(secrets.token_bytes(BYTES))


def key_file(place: str) -> Path:
    """Return the file of the key: `place`, or lucency/pseudonym.key in the user's configuration.

    Raises ValueError where the user has no home, as in a container.
    """
    if place:
        return Path(place).absolute()
    configuration = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if not configuration.is_absolute():
        try:
            configuration = Path.home() / ".config"
        except RuntimeError as error:
            raise ValueError(
                "data.key: found no home folder of this user (HOME), expected one for the key of "
                "pseudonyms: set data.key to a file in a folder that only you can read"
            ) from error
    return configuration / "lucency" / "pseudonym.key"


def make_key(file: Path) -> PseudonymKey:
    """Return the key of a file, which is made where there is none: 32 random bytes, mode 0600."""
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_key(file)
        except FileExistsError:
            pass  # another process has made it just now
        except OSError as error:
            raise ValueError(
                f"{file}: no key of pseudonyms can be made there ({error.strerror}): set data.key "
                "to a file in a folder that only you can read"
            ) from error
    return read_key(file)


def _write_key(file: Path) -> None:
    """Make a key's file, whole from its first moment; raises FileExistsError where there is one."""
    place, beside = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # of mode 0600
    try:
        with os.fdopen(place, "wb") as stream:
            stream.write(secrets.token_bytes(BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        os.link(beside, file)
        flush_folder(file.parent)  # a lost key costs all that was made with it
    finally:
        Path(beside).unlink()


def read_key(file: Path) -> PseudonymKey:
    """Return the key of a file.

    Raises ValueError where there is none, where others may read it, and where it is no key.
    """
    expected = f"expected a key of pseudonyms, {BYTES} bytes of mode {MODE:04o}"
    try:
        found = file.stat()
        content = file.read_bytes() if stat.S_ISREG(found.st_mode) else b""
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file; {expected}; {NEW_KEY}") from None
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror}); {expected}") from error
    mode = stat.S_IMODE(found.st_mode)
    if os.name == "posix" and mode & 0o077:
        raise ValueError(f"{file}: found mode {mode:04o}, {expected}: chmod 600 {file}")
    if len(content) != BYTES:
        raise ValueError(f"{file}: found {len(content):,} bytes, {expected}; {NEW_KEY}")
    return PseudonymKey(content)
