"""One process at work in a Maildir: `maildir_process.py ROLE FOLDER [NUMBER COUNT]`, ROLE deliver, move or read.

Prints a line for each message that it moved or read. Stops when there is a file `stop`.
"""

from __future__ import annotations

import os
import sys


def deliver(folder: str, number: int, count: int) -> None:
    """Each message is written in tmp, synced, and then appears in new: by rename, or by link and unlink."""
    for message in range(count):
        name = f"{number}.{message}"
        temporary = f"{folder}/tmp/{name}"
        with open(temporary, "x") as file:
            file.write(f"{name}\n" * (1 + message % 400))
            file.flush()
            if message % 4 == 0:
                os.fsync(file.fileno())
        if message % 2:
            os.rename(temporary, f"{folder}/new/{name}")
        else:
            os.link(temporary, f"{folder}/new/{name}")
            os.unlink(temporary)


def move(folder: str) -> None:
    """Moves what is in new to cur until told to stop."""
    while not os.path.exists(f"{folder}/stop"):
        for name in os.listdir(f"{folder}/new"):
            try:
                os.rename(f"{folder}/new/{name}", f"{folder}/cur/{name}:2,S")
            except FileNotFoundError:
                continue  # another one was quicker
            print("moved", name, flush=True)


def read(folder: str) -> None:
    """Reads what is in cur and deletes it, until told to stop."""
    while not os.path.exists(f"{folder}/stop"):
        for name in os.listdir(f"{folder}/cur"):
            path = f"{folder}/cur/{name}"
            try:
                with open(path) as file:
                    text = file.read()
                os.unlink(path)
            except FileNotFoundError:
                continue
            message = name.removesuffix(":2,S")
            whole = f"{message}\n" * (1 + int(message.split(".")[1]) % 400)
            print("read" if text == whole else "damaged", message, flush=True)


if __name__ == "__main__":
    role, folder = sys.argv[1:3]
    if role == "deliver":
        deliver(folder, int(sys.argv[3]), int(sys.argv[4]))
    else:
        {"move": move, "read": read}[role](folder)
