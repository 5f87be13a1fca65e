"""An archive of Cassandra's classes as Java has read and verified them: with it a node starts a third faster.

Java calls this class data sharing. The first node started without an archive also lists the classes it loads; once it
runs, a process of its own makes the archive from that list, for every later start. An archive that does not fit the
Java or the jars is one that Java does not use.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.process import child_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ATTEMPT_S = 600
"""After this time a list that never became an archive may be made anew."""


@dataclass(frozen=True)
class ClassData:
    """The archive of one release on one Java, at `archive`, if it is there yet."""

    java: Path
    jars: tuple[Path, ...]
    archive: Path

    @classmethod
    def of(cls, java: Path, jars: tuple[Path, ...], cache: Path) -> ClassData:
        """Return the archive of these jars on this Java."""
        what = "\0".join([str(java), str(java.stat().st_mtime_ns), *map(str, jars)])
        return cls(java, jars, cache / "class-data" / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.jsa")

    @property
    def _list(self) -> Path:
        return self.archive.with_suffix(".classes")

    @property
    def flags(self) -> list[str]:
        """What lets Java use the archive: nothing if there is none yet."""
        return [f"-XX:SharedArchiveFile={self.archive}"] if self.archive.exists() else []

    def listing(self) -> list[str]:
        """Return the flags of one node that lists its classes; none if that is done, or another process does it."""
        if self.archive.exists() or not self._claimed():
            return []
        return [f"-XX:DumpLoadedClassList={self._list}"]

    def _claimed(self) -> bool:
        """Whether the list is ours to make; one left by a start that failed is made again after a while."""
        try:
            self._list.parent.mkdir(parents=True, exist_ok=True)
            if time.time() - self._list.stat().st_mtime > ATTEMPT_S:
                self._list.unlink(missing_ok=True)
        except OSError:
            pass  # there is none
        try:
            self._list.touch(exist_ok=False)
        except OSError:  # another start makes it, or the cache cannot be written to: nodes start without it as well
            return False
        return True

    def make(self, module_flags: Sequence[str]) -> None:
        """Start making the archive from the list, behind everything else; it ends by itself and outlives us."""
        staging, whole = self.archive.with_suffix(".staging"), self.archive.with_suffix(".list")
        # The node goes on listing: its last line may be half there.
        whole.write_text(self._list.read_text(encoding="utf-8").rpartition("\n")[0] + "\n", encoding="utf-8")
        dump = [str(self.java), "-Xshare:dump", f"-XX:SharedClassListFile={whole}"]
        dump += [f"-XX:SharedArchiveFile={staging}", *module_flags, "-cp", ":".join(map(str, self.jars))]
        made = f"{shlex.join(dump)} && mv {shlex.quote(str(staging))} {shlex.quote(str(self.archive))}"
        subprocess.run(  # noqa: S603 - our own program
            ["nice", "-n", "19", "sh", "-c", f"({made}) &"],  # noqa: S607 - POSIX has both
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
        )
