"""ChestX-ray14's archives from NIH's server, whole or not at all; where other sets are requested.

A file grows as NAME.part, goes on where it stopped (RFC 9110, 13.1.5 and 14: If-Range, Range), and
has its name only after size and MD5 are as published.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple

from filelock import Timeout

from lucency.core.files import flush_file, refuse_full_disk, replace_file, write_whole
from lucency.core.locks import held_lock
from lucency.core.manifest import counted, listed, nearest
from lucency.core.memory import thread_pool
from lucency.core.progress import progress, say

AT_ONCE = 3  # files
BLOCK = 1 << 20  # bytes that are read at once
PATIENCE = 30.0  # seconds without a byte, after which a connection is made anew
TRIES = 6  # connections in a row that bring nothing
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before the next of them
MEGABYTE = 1_000_000
AGAIN = (408, 425, 429)  # answers of a busy server; those from 500 on too
NIH_SERVER = "https://nihcc.box.com/shared/static/"
NIH_TABLES = "Data_Entry_2017_v2020.csv, BBox_List_2017.csv, train_val_list.txt, test_list.txt"
NIH_PAGE = "https://nihcc.app.box.com/v/ChestXray-NIHCC"


class Archive(NamedTuple):
    """A published file: its name, where it lies, its bytes, and their MD5."""

    name: str
    address: str
    size: int
    md5: str


def _nih(number: int, key: str, size: int, md5: str) -> Archive:
    return Archive(f"images_{number:03d}.tar.gz", f"{NIH_SERVER}{key}.gz", size, md5)


NIH = (  # as batch_download_zips.py of the data set lists them; sizes and MD5 as published
    _nih(1, "vfk49d74nhbxq3nqjg0900w5nvkorp5c", 2008470987, "fe8ed0a6961412fddcbb3603c11b3698"),
    _nih(2, "i28rlmbvmfjbl8p2n3ril0pptcmcu9d1", 3952623504, "ab07a2d7cbe6f65ddd97b4ed7bde10bf"),
    _nih(3, "f1t00wrtdk94satdfb9olcolqx20z2jp", 3929234850, "2301d03bde4c246388bad3876965d574"),
    _nih(4, "0aowwzs5lhjrceb3qp67ahp0rd1l1etg", 3838903983, "9f1b7f5aae01b13f4bc8e2c44a4b8ef6"),
    _nih(5, "v5e3goj22zr6h8tzualxfsqlqaygfbsn", 3935496531, "1861f3cd0ef7734df8104f2b0309023b"),
    _nih(6, "asi7ikud9jwnkrnkj99jnpfkjdes7l6l", 3986301172, "456b53a8b351afd92a35bc41444c58c8"),
    _nih(7, "jn1b4mw4n6lnh74ovmcjb8y48h8xj07n", 4016328426, "1075121ea20a137b87f290d6a4a5965e"),
    _nih(8, "tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j", 4018347353, "b61f34cec3aa69f295fbb593cbd9d443"),
    _nih(9, "upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj", 4111327929, "442a3caa61ae9b64e61c561294d1e183"),
    _nih(10, "l6nilvfa9cg3s28tqv1qc1olm3gnz54p", 4181556296, "09ec81c4c31e32858ad8cf965c494b74"),
    _nih(11, "hhq8fkdgvcari67vfhs7ppg2w6ni4jze", 4187084020, "499aefc67207a5a97692424cf5dbeed5"),
    _nih(12, "ioqwiy20ihqwyr8pf4c24eazhh281pbu", 2914187733, "dc9fda1757c2de0032b63347a7d2895c"),
)
BY_HAND = {  # sets that people fetch: where they are requested, what belongs together
    "chexpert": "Stanford AIMI's agreement, https://aimi.stanford.edu/datasets; keep train.csv, "
    "valid.csv and the folders train/ and valid/ together",
    "chexpert-plus": "Stanford AIMI's agreement, https://aimi.stanford.edu/datasets; keep "
    "df_chexpert_plus_240401.csv, chexbert_labels.zip and the folders of films together",
    "mimic-cxr": "a credentialed account of PhysioNet, "
    "https://physionet.org/content/mimic-cxr-jpg/2.1.0; keep files/ and the tables "
    "mimic-cxr-2.0.0-*.csv.gz together",
    "cxr-lt": "a credentialed account of PhysioNet, "
    "https://physionet.org/content/cxr-lt-iccv-workshop-cvamd/2.0.0; its films are MIMIC-CXR-JPG's",
    "padchest": "a registration with BIMCV, https://bimcv.cipf.es/bimcv-projects/padchest; keep "
    "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz and the folders of films together",
    "vindr-cxr": "a credentialed account of PhysioNet, "
    "https://physionet.org/content/vindr-cxr/1.0.0; keep train/, test/ and annotations/ together",
    "brax": "a credentialed account of PhysioNet, https://physionet.org/content/brax/1.1.0; keep "
    "master_spreadsheet_update.csv and images/ together",
    "openi": "no agreement, https://openi.nlm.nih.gov/faq#collection; keep NLMCXR_reports.tgz and "
    "NLMCXR_png.tgz, or what they hold, together",
    "rsna": "an account of Kaggle, "
    "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge; keep stage_2_train_images/, "
    "stage_2_train_labels.csv and stage_2_detailed_class_info.csv together",
    "siim": "an account of Kaggle, "
    "https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation; keep dicom-images-train/ and "
    "train-rle.csv together",
    "nih-lt": "no agreement, the folders LongTailCXR/ and PruneCXR/ beside ChestX-ray14 at "
    "https://nihcc.app.box.com/v/ChestXray-NIHCC; its films are ChestX-ray14's",
}


@dataclass(kw_only=True, eq=False)
class _Work:
    """What all files share: where they go, how long is waited, what has come; `stopped` ends it."""

    out: Path
    patience: float
    pauses: Sequence[float]
    total: int
    done: int
    show: Callable[[int, int], None]
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def add(self, size: int) -> None:
        """Count so many bytes more, or fewer; megabytes are shown."""
        with self.lock:
            before, self.done = self.done, self.done + size
            if before // MEGABYTE != self.done // MEGABYTE:
                self.show(self.done // MEGABYTE, self.total // MEGABYTE)


def download(
    name: str,
    out: Path,
    *,
    archives: Sequence[Archive] = NIH,
    patience: float = PATIENCE,
    pauses: Sequence[float] = PAUSES,
) -> tuple[Path, ...]:
    """Fetch the archives of ChestX-ray14 (`name` is "nih") into `out`, and return their files.

    Files that are there whole are kept, others go on where they stopped. `patience` is in seconds,
    and so are `pauses`, the waits between connections that bring nothing. Raises ValueError for
    another name, with where that set is requested; where the disk has too little space; where
    another process downloads into `out`; and when a file cannot be had, or is not as published,
    after the others have been fetched.
    """
    _refuse_others(name)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: expected a folder, which may not exist yet")
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(held_lock(out / ".download.lock", wait=0.0))
        except Timeout:
            raise ValueError(f"{out}: another process downloads into it: wait for it") from None
        total, held = sum(one.size for one in archives), sum(_held(one, out) for one in archives)
        _refuse_little_space(out, needed=total - held)
        with progress("Downloading", unit="MB") as advance:
            advance(held // MEGABYTE, total // MEGABYTE)
            about = {"patience": patience, "pauses": pauses, "total": total, "done": held}
            _fetch_all(archives, _Work(out=out, show=advance, **about))
    return tuple(out / one.name for one in archives)


def _refuse_others(name: str) -> None:
    if name in BY_HAND:
        raise ValueError(f"{name} is not fetched by this program; it needs {BY_HAND[name]}")
    if name != "nih":
        known = ("nih", *BY_HAND)
        raise ValueError(f"{name!r} is unknown: expected {listed(known)}{nearest(name, known)}")


def _refuse_little_space(out: Path, *, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise ValueError(
            f"{out}: {needed / 1e9:.1f} GB are still to come, {free / 1e9:.1f} GB are free there: "
            "make room, or choose another folder (--out)"
        )


def _fetch_all(archives: Sequence[Archive], work: _Work) -> None:
    """Fetch AT_ONCE files at once; what fails is reported when all others are there."""
    with ExitStack() as undo:
        pool = thread_pool(AT_ONCE, name="download")
        undo.callback(pool.shutdown, cancel_futures=True)
        undo.callback(work.stopped.set)
        jobs = [pool.submit(_fetch, one, work) for one in archives]
        failed = [str(error) for job in as_completed(jobs) if (error := job.exception())]
    if failed:
        raise ValueError(
            f"{counted(len(failed), 'file', of=len(archives))} could not be had: {failed[0]}"
            f"{'; …' if len(failed) > 1 else ''}; the same command goes on"
        )


def _fetch(archive: Archive, work: _Work) -> None:
    """Fetch one file, unless it is there whole."""
    file, part = work.out / archive.name, _part(archive, work.out)
    if _size(file) == archive.size:
        if _md5(file, work.stopped) in (archive.md5, ""):
            _validator(part).unlink(missing_ok=True)  # left by a kill
            return
        work.add(min(_size(part), archive.size) - archive.size)
    if _size(part) > archive.size:
        part.unlink()
        work.add(-archive.size)
    for is_last in (False, True):
        _fill(archive, part, work)
        found = _md5(part, work.stopped)
        if work.stopped.is_set():
            return
        if found == archive.md5:
            flush_file(part)
            replace_file(part, file)
            _validator(part).unlink(missing_ok=True)
            return
        part.unlink()
        _validator(part).unlink(missing_ok=True)
        work.add(-archive.size)
        if is_last:
            raise ValueError(
                f"{archive.name}: its MD5 is {found}, published is {archive.md5}: the server has "
                "another file"
            )
        say(f"{archive.name}: not as published, fetched anew")


def _fill(archive: Archive, part: Path, work: _Work) -> None:
    """Let `part` grow to its size, by as many connections as that takes."""
    vain = 0
    while (before := _size(part)) != archive.size and not work.stopped.is_set():
        why = _connect(archive, part, work)
        vain = 0 if _size(part) > before else vain + 1
        if vain >= TRIES:
            raise ValueError(f"{archive.name}: {TRIES} connections brought nothing: {why}")
        if vain == 1:
            say(f"{archive.name}: {why}: trying again")
        if vain:
            work.stopped.wait(work.pauses[min(vain, len(work.pauses)) - 1])


def _connect(archive: Archive, part: Path, work: _Work) -> str:
    """Append what one connection brings; return why it ended, where another may bring more."""
    try:
        _grow(archive, part, work)
    except urllib.error.HTTPError as error:
        why = f"the server answered {error.code}"
        if error.code < 500 and error.code not in AGAIN:
            raise ValueError(f"{archive.name}: {why} for {archive.address}") from None
        return why
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError):
            refuse_full_disk(error, part, needed=archive.size - _size(part))
        return str(getattr(error, "reason", error)) or type(error).__name__
    return "the connection ended"


def _grow(archive: Archive, part: Path, work: _Work) -> None:
    """Append what one connection brings; begin anew where the server's file is another."""
    start, known = _size(part), _validator(part)
    request = urllib.request.Request(archive.address, headers={"Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if known.is_file():
            request.add_header("If-Range", known.read_text(encoding="utf-8"))
    with closing(urllib.request.urlopen(request, timeout=work.patience)) as answer:
        goes_on = answer.status == 206
        _check_answer(archive, answer, start=start if goes_on else 0)
        tag = answer.headers.get("ETag", "")
        if not goes_on:
            work.add(-start)
            known.unlink(missing_ok=True)
        with part.open("ab" if goes_on else "wb", buffering=0) as stream:
            if tag and not tag.startswith("W/"):  # a weak one vouches for no bytes
                write_whole(known, tag)
            left = archive.size - (start if goes_on else 0)
            while left and not work.stopped.is_set() and (block := answer.read1(BLOCK)):
                stream.write(block[:left])
                work.add(len(block[:left]))
                left -= len(block[:left])


def _check_answer(archive: Archive, answer: HTTPResponse, *, start: int) -> None:
    """Raise ValueError where the server sends another part, or a file of another size."""
    length, where = answer.headers.get("Content-Length"), answer.headers.get("Content-Range", "")
    expected = f"bytes {start}-{archive.size - 1}/{archive.size}"
    partly = answer.status == 206 and where != expected
    if partly or (length is not None and int(length) != archive.size - start):
        found = where or f"{int(length or 0):,} bytes"
        raise ValueError(
            f"{archive.name}: found {found} at {archive.address}, expected {archive.size:,} bytes "
            f"from {start:,} on: the server has another file"
        )


def _held(archive: Archive, out: Path) -> int:
    """Return how many bytes of a file are there already, as far as its size says."""
    if _size(out / archive.name) == archive.size:
        return archive.size
    return min(_size(_part(archive, out)), archive.size)


def _part(archive: Archive, out: Path) -> Path:
    return out / f"{archive.name}.part"


def _validator(part: Path) -> Path:
    """Return the file that keeps the ETag of what has come so far."""
    return part.with_name(f"{part.name}.etag")


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _md5(file: Path, stopped: threading.Event) -> str:
    """Return the MD5 of a file's content, "" where the work was stopped."""
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(8 * BLOCK):
            if stopped.is_set():
                return ""
            digest.update(block)
    return digest.hexdigest()
