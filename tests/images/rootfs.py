"""A root file system as a tar file: programs of this machine with the libraries that they load, trees, and texts."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

_SEARCHED = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")
"""Where the loader looks without being told."""
_LIBRARY = re.compile(r"(/\S+) \(0x")
_NAME_SERVICES = re.compile(r"lib(nss_(files|dns)|resolv)\.so\.2")
"""What the C library loads only when a name is looked up."""
_WHEELS = re.compile(r"lib(pthread|dl|rt|util|m|gcc_s|stdc\+\+)\.so\.\d")
"""What a wheel for manylinux may take for granted."""
_SHELL = """
bash sh awk cat chmod chown cp cut date env find getent grep head hostname id install ip kill ln ls mkdir mv ps pwd rm
sed setpriv sleep sort stat tail test touch tr uname wc
"""


class RootFs:
    """Writes one root file system, each path once."""

    def __init__(self, target: Path) -> None:
        self._tar = tarfile.open(target, "w")  # noqa: SIM115 - closed by `close`
        self._written: set[str] = set()

    def close(self) -> None:
        """Finish the tar file."""
        self._tar.close()

    def shell(self) -> None:
        """Add a shell and the small programs around it, and how the C library looks up names."""
        for name in _SHELL.split():
            found = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
            if found is None:
                msg = f"{name}: not on this machine, and a root file system needs it"
                raise FileNotFoundError(msg)
            self.program(Path(found), f"/usr/bin/{name}")
        self.link("/bin", "usr/bin")
        self._beside_the_c_library(_NAME_SERVICES)
        self.text("/etc/nsswitch.conf", "hosts: files dns\npasswd: files\ngroup: files\n")
        self.directory("/tmp", mode=0o1777)

    def for_wheels(self) -> None:
        """Add the libraries that a package from the index may need and does not bring."""
        self._beside_the_c_library(_WHEELS)

    def users(self, **ids: int) -> None:
        """Name the users, root and nobody beside them; each has a group of its own."""
        known = {"root": 0, "nobody": 65534, **ids}
        passwd = (f"{name}:x:{uid}:{uid}::/{'root' if uid == 0 else ''}:/bin/sh\n" for name, uid in known.items())
        self.text("/etc/passwd", "".join(passwd))
        self.text("/etc/group", "".join(f"{name}:x:{uid}:\n" for name, uid in known.items()))

    def program(self, source: Path, at: str) -> None:
        """Add a program, whatever link leads to it, and its libraries."""
        self.file(source.resolve(), at)
        self._libraries_of([source.resolve()])

    def tree(self, source: Path, at: str, leave_out: Callable[[Path], bool] = lambda _: False) -> None:
        """Add a directory with all that is in it, links as links, and the libraries that its files load."""
        binaries = []
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            if leave_out(inside) or path.is_dir():
                continue
            self.file(path, f"{at}/{inside}")
            if not path.is_symlink() and _is_binary(path):
                binaries.append(path)
        self._libraries_of(binaries, within=source)

    def file(self, source: Path, at: str) -> None:
        """Add one file, owned by root."""
        if self._is_new(at):
            self._tar.add(source, at.lstrip("/"), recursive=False, filter=_roots)

    def text(self, at: str, text: str, mode: int = 0o644, uid: int = 0) -> None:
        """Add a file with this text."""
        content = text.encode()
        entry = _entry(at, tarfile.REGTYPE, mode, uid)
        entry.size = len(content)
        if self._is_new(at):
            self._tar.addfile(entry, io.BytesIO(content))

    def directory(self, at: str, mode: int = 0o755, uid: int = 0) -> None:
        """Add an empty directory; what is to be another user's is added before its files."""
        if self._is_new(at):
            self._tar.addfile(_entry(at, tarfile.DIRTYPE, mode, uid))

    def link(self, at: str, target: str) -> None:
        """Add a symbolic link."""
        entry = _entry(at, tarfile.SYMTYPE, 0o777, 0)
        entry.linkname = target
        if self._is_new(at):
            self._tar.addfile(entry)

    def _beside_the_c_library(self, wanted: re.Pattern[str]) -> None:
        loaded = next(path for path in _libraries(Path("/bin/sh").resolve()) if path.name.startswith("libc.so"))
        for path in sorted(loaded.parent.glob("lib*.so.*")):
            if wanted.fullmatch(path.name):
                self.file(path.resolve(), str(path))

    def _libraries_of(self, binaries: Iterable[Path], within: Path | None = None) -> None:
        for binary in binaries:
            for library in _libraries(binary):
                own = within is not None and within in library.parents
                if own and not library.name.startswith("libpython"):
                    continue  # found beside what loads it
                searched = str(library).startswith(_SEARCHED)
                self.file(library.resolve(), str(library) if searched else f"/usr/lib/{library.name}")

    def _is_new(self, at: str) -> bool:
        """Whether nothing is there yet; the directories above it are made, so that all users may enter them."""
        if at in self._written:
            return False
        self._written.add(at)
        above = str(PurePosixPath(at).parent)
        if above != "/":
            self.directory(above)
        return True


def _libraries(binary: Path) -> list[Path]:
    """Return what the loader would load; nothing for what is no dynamic program."""
    done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    return [Path(found) for found in _LIBRARY.findall(done.stdout)]


def _is_binary(path: Path) -> bool:
    with path.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def _entry(at: str, kind: bytes, mode: int, uid: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(at.lstrip("/"))
    entry.type, entry.mode, entry.uid, entry.gid = kind, mode, uid, uid
    return entry


def _roots(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
