"""What can be wrong with a use case, named by what its author does next."""

from __future__ import annotations


class UseCaseError(Exception):
    """Base of every error about a use case."""


class DeclarationError(UseCaseError):
    """The declaration contradicts itself or names what does not exist: correct the use case's file."""


class UnknownUseCase(UseCaseError):
    """No use case of that name is found: correct the name or DRIFTLOOP_USECASES."""


class LabelRefused(UseCaseError):
    """An event's fields give no label that the task knows: refuse the event, and declare the field it comes from with `one_of`."""
