"""Entry point of the `jitcache` command.

Commands are listed here by name and one-line help, and imported when called, so that
`jitcache --help` and a warm `prebuild` pay for nothing they don't use. All errors end here:
a `JitcacheError` is printed without a traceback and gives its exit code; anything else is a
bug and says so.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback

import click

from jitcache._version import __version__
from jitcache.errors import ExitCode, JitcacheError

_COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("doctor", "Show what can be built here, and what is missing."),
    "plan": ("plan", "Compute the kernels a deployment can dispatch, with reasons."),
    "generate": ("generate", "Write a pruned AITER blob directory or native sources."),
    "prebuild": ("prebuild", "Build every kernel a deployment needs, once."),
    "widen": ("widen", "Build further kernels for a module of a lock file."),
    "sweep": ("sweep", "Build kernels under many sets of back-end flags, and compare."),
    "worker": ("worker", "Build one share of a plan file, and publish it."),
    "submit": ("submit", "Run a plan's workers with Slurm, Kubernetes, Dask or here."),
    "gather": ("gather", "Check that a plan is completely built, and write its lock files."),
    "pack": ("pack", "Pack everything a lock file needs as one file or image."),
    "unpack": ("unpack", "Verify a pack and put it into a store."),
    "wheel": ("wheel", "Write a wheel of everything that a lock file names."),
    "warm": ("warm", "Have every kernel of a lock in place before a server starts."),
    "import": ("import_", "Take prebuilt code objects into the store."),
    "find": ("find", "Look imported code objects up by the columns of their tables."),
    "report": ("report", "Show the critical path of a build."),
    "durations": ("durations", "Show, export or merge what compiles have cost."),
    "push": ("push", "Sign what a lock file names, and push it to a remote."),
    "pull": ("pull", "Fetch what a lock file names, and check every claim."),
    "remote": ("remote", "List remotes, or prove them end to end."),
    "key": ("key", "Make, trust and revoke the keys that records are signed with."),
    "ls": ("ls", "List what the store holds."),
    "show": ("show", "Show one stored action: inputs, outputs, history."),
    "verify": ("verify", "Check every stored object against its digest."),
    "rm": ("rm", "Remove stored actions and what only they used."),
    "gc": ("gc", "Remove what was least recently used, down to a size or age."),
    "pin": ("pin", "Keep what a lock file names, whatever gc is asked for."),
    "stats": ("stats", "Show hits, misses by reason, and the compile time saved."),
    "why-miss": ("why_miss", "Explain which input differs from the nearest stored action."),
    "manifest": ("manifest", "Write a manifest from a config.json, or list the shipped ones."),
    "aiter": ("aiter", "Install built modules where AITER's loader finds them."),
    "capture": ("capture", "Write sample launches with their expected results."),
    "selftest": ("selftest", "Run every kernel on a GPU and compare it with the reference."),
    "replay": ("replay", "Run a captured launch again and compare its result."),
    "audit": ("audit", "Show what a deployment's calls fall through to in AITER."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names in the order of work, not of the alphabet."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of one command."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"jitcache.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in _COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="jitcache")
def cli() -> None:
    """Prebuild, cache and explain the GPU kernels that a deployment dispatches."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        argv: arguments without the program's name; `sys.argv` when not given.
    """
    try:
        # A command that called `ctx.exit` comes back with the code; others with nothing.
        result = cli.main(args=argv, prog_name="jitcache", standalone_mode=False)
        code = result if isinstance(result, int) else int(ExitCode.OK)
    except click.exceptions.Exit as e:
        code = e.exit_code
    except click.ClickException as e:
        e.show()
        code = int(ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)  # noqa: T201
        code = int(ExitCode.INTERRUPTED)
    except JitcacheError as e:
        print(f"error: {e}", file=sys.stderr)  # noqa: T201
        code = int(e.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = int(ExitCode.OK)
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        print(  # noqa: T201
            "error: this is a bug in jitcache; please report it with the lines above",
            file=sys.stderr,
        )
        code = int(ExitCode.BUG)
    sys.exit(code)
