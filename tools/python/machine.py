"""What a measurement was made on."""

import datetime
import os
import platform
from pathlib import Path


def cpu_name():
    """The processor's name as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe(*programs):
    """One line: date, processor and versions."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return f"{date}; {cpu_name()}, {os.cpu_count()} CPUs; {', '.join(programs)}"
