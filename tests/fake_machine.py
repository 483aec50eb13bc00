"""A machine of files: a stub compiler, HIP headers, device libraries and CK, for tests."""

from __future__ import annotations

import os
import shlex
import textwrap
from pathlib import Path

from jitcache.toolchain.base import Request

STUB = """\
#!/bin/sh
# Answers like a clang as far as the search asks; every call is a line of the log.
PATH=/usr/bin:/bin
echo "$*" >> {log}
out= in= last=
read -r rejected < {rejected}
for word in "$@"; do
    case " $rejected " in *" $word "*)
        echo "clang++: error: unknown argument: '$word'" >&2
        exit 1 ;;
    esac
    [ "$last" = -o ] && out=$word
    case $word in *.ll | *.hip) in=$word ;; esac
    last=$word
done
case " $* " in
    *" -print-file-name=crti.o "*) echo {libc}/crti.o ;;
    *" -v "*) while IFS= read -r line; do echo "$line"; done < {answer} >&2 ;;
    *) [ "$out" = /dev/null ] || while read -r line; do echo "$line"; done < "$in" > "$out" ;;
esac
"""
HOST_OBJECTS = ("crtbeginS.o", "crtendS.o", "libgcc.a", "libgcc_eh.a", "libstdc++.a")


class FakeMachine:
    """Files below one directory that look like a machine to the search.

    Args:
        base: an empty directory.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "root"
        self.log = base / "calls.log"
        self.rejected = base / "rejected"
        self.cache = base / "cache"
        self.ck = base / "ck"
        self.environ = {"PATH": str(self.root / "usr/bin")}
        self.rejected.parent.mkdir(parents=True, exist_ok=True)
        self.rejected.write_text("")
        self.log.write_text("")
        self.write("usr/lib/gcc/x86_64-linux-gnu/12/x.txt", "")
        for name in HOST_OBJECTS:
            self.write(f"usr/lib/gcc/x86_64-linux-gnu/12/{name}", f"host {name}")
        for name in ("crti.o", "crtn.o"):
            self.write(f"usr/lib/x86_64-linux-gnu/{name}", f"host {name}")
        self.add_ck(self.ck)

    def write(self, path: str, text: str) -> Path:
        """A file below the root."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def add_clang(
        self,
        path: str,
        version: str,
        *,
        lld: bool = True,
        salt: str = "",
        banner: str = "Some clang version {} (vendor)",
    ) -> Path:
        """A stub driver, in a bin directory of its own, with lld beside it."""
        resource = self.root / path / ".." / ".." / "lib" / "clang" / version.split(".")[0]
        include = Path(os.path.normpath(resource)) / "include"
        include.mkdir(parents=True, exist_ok=True)
        gcc = self.root / "usr/lib/gcc/x86_64-linux-gnu/12"
        answer = self.base / f"answer-{path.replace('/', '-')}"
        answer.write_text(
            textwrap.dedent(f"""\
                {banner.format(version)}
                Target: x86_64-unknown-linux-gnu
                Selected GCC installation: {gcc}
                 "clang" -cc1 -resource-dir {include.parent} -E
                #include <...> search starts here:
                 {self.root}/usr/include/c++/12
                 {include}
                 {self.root}/usr/include
                End of search list.
                """)
        )
        places = {
            "log": self.log,
            "rejected": self.rejected,
            "libc": self.root / "usr/lib/x86_64-linux-gnu",
            "answer": answer,
        }
        script = STUB.format(**{k: shlex.quote(str(v)) for k, v in places.items()})
        driver = self.write(path, script + f"# {salt}\n")
        driver.chmod(0o755)
        if lld:
            linker = self.write(str(Path(path).parent / "lld"), "linker")
            linker.chmod(0o755)
        return driver

    def add_hip(self, prefix: str = "usr", version: str = "5.2.21153") -> Path:
        """HIP headers below `<prefix>/include`."""
        words = zip(("MAJOR", "MINOR", "PATCH"), version.split("."), strict=True)
        text = "".join(f"#define HIP_VERSION_{k} {v}\n" for k, v in words)
        self.write(f"{prefix}/include/hip/hip_runtime.h", "// runtime\n")
        return self.write(f"{prefix}/include/hip/hip_version.h", text).parent

    def add_device_libs(self, path: str = "usr/lib/x86_64-linux-gnu/amdgcn/bitcode") -> Path:
        """The code libraries, without constants."""
        for name in ("ocml.bc", "ockl.bc"):
            self.write(f"{path}/{name}", f"bitcode of {name}")
        return self.root / path

    def add_ck(self, path: Path, text: str = "// ck\n") -> Path:
        """A CK tree."""
        header = path / "include" / "ck" / "ck.hpp"
        header.parent.mkdir(parents=True, exist_ok=True)
        header.write_text(text)
        return path

    def llvm(self) -> FakeMachine:
        """Everything that the llvm provider needs."""
        self.add_clang("usr/bin/clang++-22", "22.1.8")
        self.add_hip()
        self.add_device_libs()
        return self

    def rocm(self, version: str = "7.0.1", clang: str = "20.0.0") -> FakeMachine:
        """Everything that the rocm provider needs, in /opt/rocm."""
        self.add_clang("opt/rocm/lib/llvm/bin/clang++", clang)
        self.add_hip("opt/rocm", version="7.0.51831" if version[0] == "7" else "6.3.42131")
        self.add_device_libs("opt/rocm/amdgcn/bitcode")
        for isa in ("942", "950"):
            self.write(f"opt/rocm/amdgcn/bitcode/oclc_isa_version_{isa}.bc", isa)
        self.write("opt/rocm/.info/version", f"{version}-38\n")
        return self

    def request(self, arch: str = "gfx950", **changes: object) -> Request:
        """A search of this machine only."""
        plain = Request(
            arch=arch, cache_dir=self.cache, environ=self.environ, ck=self.ck, root=self.root
        )
        return plain._replace(**changes)

    def calls(self) -> list[str]:
        """Command lines of all compiler calls so far."""
        return self.log.read_text().splitlines()
