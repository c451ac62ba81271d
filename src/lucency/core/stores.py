"""Object stores: what lies at a URL is listed, read and written, with patience and in one voice.

The only module that imports fsspec. A place is text or a path. A URL may have gone through a path,
which makes `s3://bucket/1.png` of it `s3:/bucket/1.png`: `url_of` gives it back. Credentials stand
in no URL: the packages of the stores find them in the environment.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from lucency.core.files import NEW, replace_file, write_whole
from lucency.core.progress import say

PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between tries
LONG = 2.0  # the pause before which a line says why nothing happens
FORM = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)  # one letter is a drive
SECRET = re.compile(r"(\w\w:/+)(?:[^/\s:]*:\S*|[^/\s]*)@")  # with a colon, slashes too
WORD, LONGEST_URL = re.compile(r"\S+"), 4096
UNFINISHED = re.compile(rf".+\.[0-9a-f]{{32}}({re.escape(NEW)})?")  # beside one that is written
DAY = 86_400  # seconds
ANY = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
SAME = {"s3a": "s3", "gcs": "gs"}  # schemes of one store
LOCAL = ("file", "local")
OWN = "memory"  # of one process
EXTRAS = {"s3": "'lucency[s3]'", "gs": "gcsfs", **dict.fromkeys(("az", "abfs", "abfss"), "adlfs")}
OPTIONS: dict[str, dict[str, Any]] = {  # tries are counted here; an object is one request
    "s3": {"config_kwargs": {"retries": {"total_max_attempts": 1}}, "max_concurrency": 1},
}
WEB, CONNECT, SILENT = ("http:", "https:"), 5.0, 15.0  # schemes; seconds
ABSENT, REFUSED = (404, 410), (401, 403)  # of HTTP
SIGNS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "updated", "created")
HOPELESS = {  # of errors of the system: another try would be the same
    errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT,
}  # fmt: skip
FAILURES = (  # of the packages below fsspec's, whose errors are no OSError
    ("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"), ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"), ("azure.core.exceptions", "AzureError"),
)  # fmt: skip
REFUSALS = re.compile(r"credential|forbidden|unauthorized|profile|paramvalidation", re.IGNORECASE)
KEPT = "check that it can be reached; what is done is kept: run the same command again"
Answer = TypeVar("Answer")


class StoredObject(NamedTuple):
    """An object's size in bytes, and what is another number when its content has changed."""

    size: int
    modified: int


Listing = Mapping[str, StoredObject]  # by the name below a root


def url_of(place: str | Path) -> str:
    """Return the URL of a place in a store, as it was before it was a path; "" for a local place.

    >>> url_of(Path("s3://bucket/a/1.png")), url_of("C:/films"), url_of("films/1.png")
    ('s3://bucket/a/1.png', '', '')
    """
    text = place if isinstance(place, str) else place.as_posix()
    found = FORM.fullmatch(text)
    if not found:
        return ""
    scheme = found[1].lower()
    return f"{SAME.get(scheme, scheme)}://{'/' * (scheme in LOCAL)}{found[2].rstrip('/')}"


def named_place(place: str) -> str:
    """Return a place that somebody names: the path of file://, a URL as `url_of` has it, or itself.

    Raises ValueError for a URL of no known store, with credentials, of several files in one another
    (`::`), and of no folder in a store.

    >>> named_place("file:///films/a%20b"), named_place("s3a://bucket/films/"), named_place("films")
    ('/films/a b', 's3://bucket/films', 'films')
    """
    url = url_of(place)
    if not url and "://" not in place:
        return place
    scheme, _, below = url.partition("://")
    first, _, rest = below.partition("/")
    if "@" in first or (":" in first and "@" in rest):  # secrets of AWS may hold slashes
        raise ValueError(
            f"{without_credentials(url)}: a URL with credentials: put them where the store's own "
            "programs look for them (environment, profile)"
        )
    if not url or "::" in url:
        raise ValueError(
            f"{without_credentials(place)}: expected a folder, or the URL of one, such as "
            "s3://BUCKET/films"
        )
    if scheme in LOCAL:
        if re.match(r"\w+://[^/]", place):
            raise ValueError(
                f"{without_credentials(place)}: names a machine; expected file:///FOLDER with "
                "three slashes"
            )
        local = unquote(urlsplit(url).path)
        return local[1:] if re.match(r"/[A-Za-z]:", local) else local
    if not below:
        raise ValueError(f"{url}: expected a bucket, or a folder in one")
    _require_known(scheme, url)
    return url


def without_credentials(text: str) -> str:
    """Return text that may hold URLs without what stands before an @ in their places.

    >>> without_credentials("found s3://key:sec/ret@bucket/films, s3://bucket/a@b.png")
    'found s3://…@bucket/films, s3://bucket/a@b.png'
    """
    if "@" not in text:
        return text
    return WORD.sub(lambda word: _without_credentials(word[0]), text)


def _without_credentials(word: str) -> str:
    if "@" not in word:
        return word
    return "…" if len(word) > LONGEST_URL else SECRET.sub(r"\1…@", word)


def place_text(place: str | Path) -> str:
    """Return a place as it is written: a URL with both its slashes, or a path."""
    return url_of(place) or str(place)


def is_own(place: str) -> bool:
    """Return whether a place is in the memory of this process, which no worker sees."""
    return url_of(place).startswith(f"{OWN}:")


def with_home(place: str) -> str:
    """Return a place with the home folder for the ~ that it begins with, as ~ or ~/…, as shells do.

    >>> with_home("~backup/x"), with_home("./~/x")
    ('~backup/x', './~/x')
    """
    return os.path.expanduser(place) if place == "~" or place.startswith("~/") else place  # noqa: PTH111 - text


def absolute_place(place: str) -> str:
    """Return a path as an absolute one; a URL as it is."""
    return url_of(place) or str(Path(place).absolute())


def resolved_place(place: str) -> str:
    """Return a path as a whole one without links; a URL as it is."""
    return url_of(place) or str(Path(place).resolve())


def list_objects(root: str) -> Listing:
    """Return what lies below a URL, by name, as it was when this process first found it.

    Left out are names that are no path: with empty parts, or with dots for parts; a line says so.
    Raises ValueError in one line where nothing is there, and for a store that cannot be listed.
    """
    url = url_of(root)
    found = _listed(url)
    _ROOTS[url] = None
    return found


def find_object(place: str | Path) -> StoredObject | None:
    """Return an object as listed with a root above it, else as the store states it now.

    None where it is not there. Raises ValueError as `list_objects` does, for other reasons.
    """
    url = url_of(place)
    for root in _ROOTS:
        if url.startswith(f"{root}/"):
            return _listed(root).get(url[len(root) + 1 :])
    system, path = _opened(url)
    try:
        about = _patiently(partial(system.info, path), url)
        return None if about["type"] == "directory" else _object(about)
    except FileNotFoundError:
        return None


def read_object(place: str | Path, *, start: int = 0, end: int | None = None) -> bytes:
    """Return the content of an object, or of a local file, from one byte up to another.

    Raises FileNotFoundError where it is not there, and ValueError in one line where it cannot be
    read: after several tries, with growing pauses, where the store fails or is busy.
    """
    url = url_of(place)
    if not url:
        with _in_one_line(place, "read", "expected a file that may be read"):
            return Path(place).read_bytes()[start:end]
    system, path = _opened(url)
    some = {"start": start, "end": end} if start or end is not None else {}
    return _patiently(partial(system.cat_file, path, **some), url)


def write_object(place: str, content: bytes) -> None:
    """Write an object, or a local file: whole, or not at all. Raises ValueError as above.

    Several may write the same at once.
    """
    url = url_of(place)
    if not url:
        with _in_one_line(place, "written", "expected a folder to write to: name another"):
            _write_local(Path(place), content)
        return
    system, path = _opened(url)
    try:
        _patiently(partial(system.pipe_file, path, content), url)
    except FileNotFoundError:
        raise ValueError(
            f"{url}: there is no such bucket: make it first, or name another"
        ) from None


def _write_local(file: Path, content: bytes) -> None:
    """Write a file by way of one beside it, which is not left behind; see `UNFINISHED`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        write_whole(beside, content)
        replace_file(beside, file)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _in_one_line(place: str | Path, act: str, remedy: str) -> Iterator[None]:
    """Raise ValueError for errors of the system; FileNotFoundError goes through for a read."""
    try:
        yield
    except OSError as error:
        if act == "read" and isinstance(error, FileNotFoundError):
            raise
        why = error.strerror or type(error).__name__
        raise ValueError(f"{place}: cannot be {act} ({why}): {remedy}") from None


def remove_unfinished(files: Iterable[Path]) -> int:
    """Remove, of local files, what a killed `write_object` left over a day ago; return how many.

    What others remove meanwhile, and what this user may not remove, is left to them.
    """
    removed, now = 0, time.time()
    for file in files:
        with suppress(FileNotFoundError, PermissionError):
            if UNFINISHED.fullmatch(file.name) and now - file.stat().st_mtime > DAY:
                file.unlink()
                removed += 1
    return removed


_ROOTS: dict[str, None] = {}  # that this process has listed


@cache
def _listed(root: str) -> Listing:
    """Return what lies below a root, which is looked at once; a failure is not remembered."""
    system, path = _opened(root)
    try:
        found: dict[str, Any] = _patiently(partial(system.find, path, detail=True), root)
    except FileNotFoundError:
        raise ValueError(f"{root}: there is no such folder or bucket") from None
    below = {name[len(path) :].removeprefix("/"): one for name, one in found.items()}
    kept = {name: _object(one) for name, one in below.items() if _is_path(name)}
    if odd := [name for name in below if name not in kept and not name.endswith("/")]:
        say(f"Left out below {root}: {len(odd):,} objects whose names are no paths ({odd[0]!r}, …)")
    if not kept:
        if root.startswith(WEB):  # fsspec lists nothing where a server fails
            with suppress(FileNotFoundError):
                _patiently(partial(system.info, path), root)
        raise ValueError(
            f"{root}: nothing lies there: expected the place of films, as s3://BUCKET/DIR"
        )
    return kept


def _is_path(name: str) -> bool:
    """Return whether a name stays what it is as a path; "" and names of folders are none."""
    plain = Path(name).as_posix() == name and "::" not in name
    return plain and {".", ".."}.isdisjoint(name.split("/"))


def _object(about: Mapping[str, Any]) -> StoredObject:
    sign = next((str(about[name]) for name in SIGNS if about.get(name)), "")
    number = hashlib.sha256(sign.encode()).digest()[:8]
    return StoredObject(int(about.get("size") or 0), int.from_bytes(number) >> 1)


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the place there."""
    from fsspec.core import strip_protocol

    require_package(url)
    return _system(url.partition("://")[0], os.getpid()), strip_protocol(url)


@cache
def _system(scheme: str, process: int) -> Any:
    """Return the file system of a process: a forked one has no thread that does its work."""
    import fsspec

    del process
    about = {"skip_instance_cache": True, "use_listings_cache": False}
    return fsspec.filesystem(scheme, **about, **_options(scheme))


def _options(scheme: str) -> dict[str, Any]:
    """Return what a store's package is given; a silent web server is left as soon as s3fs does."""
    if f"{scheme}:" not in WEB:
        return OPTIONS.get(scheme, {})
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(sock_connect=CONNECT, sock_read=SILENT)}}


def _require_known(scheme: str, url: str) -> None:
    from fsspec import available_protocols

    if scheme not in available_protocols():
        raise ValueError(
            f"{url}: no store is called {scheme}://; expected s3://, gs:// or a folder"
        )


def require_package(place: str) -> None:
    """Raise ValueError where the package of a URL's store is absent, or it is none of objects."""
    import fsspec

    url = url_of(place)
    scheme = url.partition("://")[0]
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        package = EXTRAS.get(scheme, "")
        remedy = f"pip install {package}" if package else str(error)
        raise ValueError(f"{url}: the package for {scheme}:// is not installed: {remedy}") from None
    wanted = list(signature(kind.__init__).parameters.values())[1:]
    named = [one.name for one in wanted if one.default is one.empty and one.kind not in ANY]
    if named:  # a server with a user of its own
        raise ValueError(
            f"{url}: {scheme}:// needs {', '.join(named)} beside a URL; expected a store of "
            "objects, such as s3:// or gs://"
        )


def _patiently(act: Callable[[], Answer], url: str) -> Answer:
    """Return what `act` does, tried again where the store fails or is busy.

    FileNotFoundError goes through; ValueError in one line for what no other try would change, and
    once PAUSES are over.
    """
    began = time.monotonic()
    for pause in (*PAUSES, None):
        try:
            return act()
        except _failures() as raised:
            error = _behind(raised) if url.startswith(WEB) else raised
            if isinstance(error, FileNotFoundError):
                raise
            why = _reason(error)
            if _is_hopeless(error):
                raise ValueError(f"{url}: {why}") from None
            if pause is None:
                passed = f"{len(PAUSES) + 1} tries in {time.monotonic() - began:.0f} s"
                raise ValueError(f"{url}: the store fails, {passed}: {why}; {KEPT}") from None
            if pause == LONG:
                say(f"{url}: the store fails ({why}): trying again for half a minute")
            time.sleep(pause)
    raise AssertionError("a try returns or raises")


def _failures() -> tuple[type[BaseException], ...]:
    """Return the errors of stores: the system's, and those of packages that are in use."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in FAILURES)
    return (OSError, EOFError, *(one for one in found if one))


def _behind(error: BaseException) -> BaseException:
    """Return what a web server's error is, where fsspec says of each that nothing is there."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, _failures()):
        return error
    return error if getattr(cause, "status", 0) in ABSENT else cause


def _is_hopeless(error: BaseException) -> bool:
    if isinstance(error, OSError) and not isinstance(error, (TimeoutError, ConnectionError)):
        return isinstance(error, PermissionError) or error.errno in HOPELESS
    if getattr(error, "status", 0) in REFUSED:
        return True
    return bool(REFUSALS.search(type(error).__name__))


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, PermissionError):
        return f"no permission ({text})"
    if "credential" in type(error).__name__.lower():
        return f"no credentials ({text}): set them as the store's own programs expect"
    return text
