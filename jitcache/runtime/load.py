"""`jitcache.load`: from a lock file, a manifest or a module's name to a loaded module.

A machine that serves has no compiler and no CK, so it can't compute an action key: the lock
says which objects to take, and the store, a seed or a remote gives them.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jitcache.errors import BuildError, DamagedError, ForbiddenError, InputError
from jitcache.lockfile import Lock, LockedModule, load_lock
from jitcache.runtime.content import Content
from jitcache.runtime.module import Module
from jitcache.runtime.objects import Loaded, Objects
from jitcache.runtime.policy import POLICY_VARIABLE, Refusal, RefusedError, jit_policy
from jitcache.runtime.shim import Shim
from jitcache.store.layout import Bucket, Layout, seed_roots
from jitcache.store.store import Store

if TYPE_CHECKING:
    from jitcache.codegen.catalog import Variant

_SUFFIX = ".lock.json"
_MODULE_PREFIX = "module_"


def load(
    what: str | os.PathLike[str],
    *,
    module: str | None = None,
    arch: str | None = None,
    store: Store | None = None,
) -> Module:
    """Load a module that was built.

    Args:
        what: path of a lock file, name of a manifest, or AITER's name of a module.
        module: which module, where the lock holds several.
        arch: which architecture, where there are locks of several.
        store: where objects are; the user's store with its seeds by default. What it lacks,
            the configured remotes are asked for.

    Raises:
        InputError: there is no such lock, `what` fits several, or something is missing and
            the configuration of remotes is malformed.
        RefusedError: an object is missing, damaged, not believed, or not what the lock names.
        ForbiddenError: nothing is built, and `JITCACHE_JIT` forbids to build it.
        BuildError: it was tried to build it, and that failed.
    """
    store = store or Store.of_user()
    path, name, built = _resolve(os.fspath(what), module, arch, store)
    lock = load_lock(path)
    return _open_or_build(path, lock, pick(lock, name), store, built)


def load_all(
    what: str | os.PathLike[str], *, arch: str | None = None, store: Store | None = None
) -> tuple[Module, ...]:
    """Load every module of a lock; of a module's name, that module.

    Arguments and errors are those of `load`.
    """
    store = store or Store.of_user()
    path, name, built = _resolve(os.fspath(what), None, arch, store)
    lock = load_lock(path)
    wanted = lock.modules if name is None else (pick(lock, name),)
    return tuple(_open_or_build(path, lock, locked, store, built) for locked in wanted)


def _resolve(
    text: str, module: str | None, arch: str | None, store: Store
) -> tuple[Path, str | None, tuple[str, ...]]:
    """The lock file, the module's name where one is named, and what was built to have it."""
    if module is None and text.startswith(_MODULE_PREFIX):
        module = text
    path = _find_lock(text, module, arch, store)
    if path is not None:
        return path, module, ()
    why = f"no lock file of {text}{f' for {arch}' if arch else ''} was found"
    built = (_build(text, arch, why, store),)
    path = _find_lock(text, module, arch, store)
    if path is None:
        raise BuildError("was built, but wrote no lock file", where=text)
    return path, module, built


def _open_or_build(
    path: Path, lock: Lock, locked: LockedModule, store: Store, built: tuple[str, ...]
) -> Module:
    try:
        return open_module(lock, locked, store, built=built)
    except RefusedError as refused:
        if all(r.reason in {"other-bytes", "not-a-shim"} for r in refused.refusals):
            raise
        if jit_policy() == "forbid":
            raise
        built = (*built, _build(lock.manifest, lock.arch, str(refused.refusals[0]), store))
        lock = load_lock(path)
        return open_module(lock, pick(lock, locked.name), store, built=built)


def pick(lock: Lock, name: str | None) -> LockedModule:
    """A module of a lock: the named one, or the only one.

    Raises:
        InputError: there isn't exactly one.
    """
    found = [m for m in lock.modules if name in (None, m.name)]
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"holds no module {name}" if name else f"holds {len(lock.modules)} modules",
        where=f"lock of {lock.manifest} for {lock.arch}",
        hint="name one of: " + (", ".join(m.name for m in lock.modules) or "(none)"),
    )


def open_module(
    lock: Lock,
    locked: LockedModule,
    store: Store,
    *,
    built: tuple[str, ...] = (),
    remotes: bool = True,
) -> Module:
    """Read and verify all that a module needs.

    Args:
        lock: the lock.
        locked: the module of it.
        store: where objects are.
        built: what was built for it, as sentences.
        remotes: whether the configured remotes are asked for what the store lacks.

    Raises:
        RefusedError: with every refusal, not only the first.
        InputError: something is missing, and the configuration of remotes is malformed.
    """
    begin = time.perf_counter()
    content, told = _open(lock, locked, store, remotes=remotes)

    def widen(held: Content, instance: str, variant: Variant, why: str) -> Content:
        from jitcache.runtime import building

        wider = building.with_kernel(held.lock, locked.name, instance, variant, store, why)
        return _open(wider, pick(wider, locked.name), store, remotes=remotes)[0]

    return Module(
        content,
        widen=widen,
        built=built,
        told=told,
        load_ms=(time.perf_counter() - begin) * 1000,
    )


def _open(
    lock: Lock, locked: LockedModule, store: Store, *, remotes: bool
) -> tuple[Content, tuple[tuple[str, str, str], ...]]:
    """The content of a module, and what remotes said of it in vain."""
    source = Objects(store, lock.arch, remotes=remotes)
    actions = {v.action.key: v.action for i in locked.instances for v in i.variants}
    read = {key: source.read(action) for key, action in actions.items()}
    host = source.read(locked.host)
    source.close()
    objects = {key: got for key, got in read.items() if isinstance(got, Loaded)}
    refusals = [got for got in (*read.values(), host) if isinstance(got, Refusal)]
    shim = _open_shim(host, locked) if isinstance(host, Loaded) else None
    if isinstance(shim, Refusal):
        refusals.append(shim)
    if refusals or not isinstance(shim, Shim) or isinstance(host, Refusal):
        raise RefusedError(
            f"{locked.name} (lock of {lock.manifest} for {lock.arch})",
            tuple(refusals),
            f"build or fetch it: `jitcache prebuild {lock.manifest} --arch {lock.arch}`",
        )
    return Content(lock, locked, replace(host, data=b""), objects, shim), tuple(source.told)


def _open_shim(host: Loaded, locked: LockedModule) -> Shim | Refusal:
    try:
        shim = Shim(Path(host.path) if host.path else host.data)
    except (DamagedError, InputError) as e:
        return Refusal("not-a-shim", host.name, e.what)
    lacking = [i.name for i in locked.instances if i.name not in shim.names]
    if lacking:
        return Refusal("not-a-shim", host.name, f"lacks {', '.join(lacking)}")
    return shim


def _find_lock(text: str, module: str | None, arch: str | None, store: Store) -> Path | None:
    if text.endswith(".json") or os.sep in text:
        return Path(text)
    found = []
    for path in _locks(store):
        manifest, _, of_arch = path.name.removesuffix(_SUFFIX).rpartition(".")
        if arch not in (None, of_arch):
            continue
        if text == module:
            if any(m.name == module for m in load_lock(path).modules):
                found.append(path)
        elif manifest == text:
            found.append(path)
    # The local store comes first: a seed's lock of the same name is an older one.
    first = {path.name: path for path in reversed(found)}
    if len(first) > 1:
        raise InputError(
            f"fits {len(first)} lock files: {', '.join(sorted(first))}",
            where=text,
            hint="give the path of one, or its architecture (arch=)",
        )
    return next(iter(first.values()), None)


def _locks(store: Store) -> Iterator[Path]:
    for root in (store.layout.root, *seed_roots()):
        directory = Layout(root).bucket(Bucket.LOCKS)
        if directory.is_dir():
            yield from sorted(directory.glob(f"*{_SUFFIX}"))


def _build(manifest: str, arch: str | None, why: str, store: Store) -> str:
    """Build a manifest as the policy says, in a process of its own; a sentence about it."""
    policy = jit_policy()
    command = ["prebuild", manifest, *(["--arch", arch] if arch else [])]
    if policy == "forbid":
        raise ForbiddenError(
            f"{why}, and nothing may be built while serving",
            where=manifest,
            hint=f"run `jitcache {' '.join(command)}` first, or set {POLICY_VARIABLE}=allow",
        )
    if manifest.startswith(_MODULE_PREFIX):
        raise InputError(why, where=manifest, hint="load it by its manifest's name to build it")
    if policy == "warn":
        warnings.warn(f"jitcache compiles {manifest} now: {why}", RuntimeWarning, stacklevel=4)
    # Imported here: a load that finds everything never needs it.
    from jitcache.runtime import building

    said = building.run(command, store, why)
    return f"built {said['built']} objects of {manifest}: {why}"
