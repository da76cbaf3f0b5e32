"""Containers of our image, as the documentation runs it: not root, a read-only root file system, no capabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .waiting import wait_for

if TYPE_CHECKING:  # collecting the tests must not load it
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

OURS = "grantledger:dev"

HARDENED: dict[str, Any] = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
# A check costs CPU time; the image asks every ten seconds.
HEALTHCHECK = {"interval": 3_000_000_000, "timeout": 20_000_000_000, "start_period": 300_000_000_000}


def our_container(*command: str, data: str, network: Network | None = None, **options: Any) -> DockerContainer:
    """Return a container that is not started yet.

    Args:
        data: name of the volume for the data folder.
        options: further ones of the engine.
    """
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(OURS, **{**HARDENED, "healthcheck": HEALTHCHECK, **options}).with_command(list(command))
    container.with_tmpfs_mount("/tmp")
    if network is not None:
        container = container.with_network(network)
    return container.with_volume_mapping(data, "/data", "rw")


def state(container: DockerContainer) -> dict[str, Any]:
    """Return the state of a container as the engine describes it."""
    wrapped = container.get_wrapped_container()
    wrapped.reload()
    found: dict[str, Any] = wrapped.attrs["State"]
    return found


def wait_healthy(container: DockerContainer, limit: float = 180.0) -> None:
    """Wait until the health check of a container succeeds; fail with its words if the container ends."""

    def healthy() -> bool:
        now = state(container)
        assert now["Running"] or now["Restarting"], f"it ended with {now['ExitCode']}: {text_of(container)}"
        return bool(now["Health"]["Status"] == "healthy")

    try:
        wait_for(healthy, "the container is healthy", limit=limit, pause=1.0)
    except AssertionError as error:
        checks = state(container)["Health"]["Log"]
        raise AssertionError(f"{error}\n{checks[-1:]}\n{text_of(container)}") from None


def text_of(container: DockerContainer) -> str:
    """Return what a container wrote."""
    return "\n".join(part.decode("utf-8", "replace") for part in container.get_logs())


def run_in(container: DockerContainer, *command: str, codes: tuple[int, ...] = (0,)) -> str:
    """Run a command in a container, and return its output."""
    done = container.exec(list(command))
    output = done.output.decode("utf-8", "replace")
    assert done.exit_code in codes, (command, done.exit_code, output)
    return output


def kill(container: DockerContainer) -> None:
    """End a container without a word, as a lost machine does."""
    container.get_wrapped_container().kill("SIGKILL")
    container.get_wrapped_container().wait()


def stop(container: DockerContainer, seconds: int = 90) -> int:
    """Let a container drain, and return its exit code."""
    container.get_wrapped_container().stop(timeout=seconds)
    return int(state(container)["ExitCode"])
