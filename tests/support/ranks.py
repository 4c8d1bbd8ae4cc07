"""Processes that train together: forks of one that has imported, which start without the seconds of a launcher."""

import faulthandler
import multiprocessing.connection
import os
import signal
import socket

import torch
from fork_server import SERVER
from torch import distributed

GRACE = 20  # seconds that the other processes have to notice that one is gone
LONGEST = 240  # seconds; pytest gives a test 300


def say_where_it_hangs() -> None:
    """End this process after `LONGEST` seconds, with the lines that its threads are in: others may wait for it."""
    faulthandler.dump_traceback_later(LONGEST, exit=True)


def join_in(rank, processes, port, said, target, args):
    """What a launcher gives a process, then the process's own work."""
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    where |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    if processes > 1:
        os.environ.update({name: str(value) for name, value in where.items()})
    torch.set_num_threads(1)
    with open(said, "w", encoding="utf-8") as file:  # that one is gone is noticed by many lines
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    say_where_it_hangs()
    target(rank, *args)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(target, *args, processes, folder, kills_all=True):
    """Whether `target(rank, *args)` came to its end in every process; False where a process killed itself on the way.

    With `kills_all` the others are killed with it, else they are left to notice it, as processes of one machine do when
    another machine fails.
    """
    port = free_port()
    said = [folder / f"said{rank}" for rank in range(processes)]
    children = [
        SERVER.Process(target=join_in, args=(rank, processes, port, said[rank], target, args))
        for rank in range(processes)
    ]
    for child in children:
        child.start()
    waiting = {child.sentinel: child for child in children}
    while waiting:
        for sentinel in multiprocessing.connection.wait(list(waiting)):
            child = waiting.pop(sentinel)
            child.join()
            if child.exitcode != 0 and waiting:
                if not (kills_all and child.exitcode == -signal.SIGKILL):
                    multiprocessing.connection.wait(list(waiting), GRACE)
                for other in waiting.values():
                    other.kill()
    if any(child.exitcode == -signal.SIGKILL for child in children):
        return False
    assert all(child.exitcode == 0 for child in children), "\n".join(path.read_text()[-3000:] for path in said)
    return True
