"""Runs work in child processes, so that a crash costs one item and not the run."""

import multiprocessing
from multiprocessing.connection import wait


def _serve(connection, work, items):
    for item in items:
        connection.send(work(item))
    connection.close()


def run(work, items, processes=2, on_crash=None):
    """`[work(item) for item in items]` in child processes; `on_crash(item, exit code)` stands in for a crashed one."""
    context = multiprocessing.get_context("fork")
    results = [None] * len(items)
    running = {}

    def start(indices):
        if not indices:
            return
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=_serve, args=(send, work, [items[i] for i in indices]))
        child.start()
        send.close()
        running[receive] = (child, list(indices))

    for k in range(processes):
        start(range(k, len(items), processes))
    while running:
        for connection in wait(list(running)):
            child, indices = running[connection]
            try:
                results[indices[0]] = connection.recv()
                indices.pop(0)
            except EOFError:
                child.join()
                del running[connection]
                if indices:
                    results[indices[0]] = on_crash(items[indices[0]], child.exitcode)
                    start(indices[1:])
    return results
