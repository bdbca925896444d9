"""The error tree. Every message is one sentence that says what to do next.

NcaEdgeError            exit 1: something failed, the rest was done
|- InputError           a file, field or crop that cannot be used
|- CameraError          a camera that cannot be opened or gives nothing
|- StorageError         the session's place cannot be read or written
|- UsageError           exit 2: the command was called in a way that cannot work
|  `- MissingExtraError exit 2: an optional part of the installation is needed
|     `- MissingStepError the compiled step does not run here
`- BundleError          exit 3: a model that cannot be trusted
"""


class NcaEdgeError(Exception):
    """Base of all errors that a user can act on."""

    exit_code = 1


class InputError(NcaEdgeError):
    """An image or a data set that cannot be used."""


class CameraError(NcaEdgeError):
    """A camera that cannot be opened, is lost, or gives nothing that can be used."""


class StorageError(NcaEdgeError):
    """A session folder that cannot be read or written."""


class UsageError(NcaEdgeError):
    """A call that cannot work as it was given."""

    exit_code = 2


class MissingExtraError(UsageError):
    """A part that is not in the bare installation."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs an optional part: install it with pip install 'nca-edge[{extra}]'.")


class MissingStepError(MissingExtraError):
    """The compiled step is not in this installation, or not for this CPU."""

    def __init__(self, why: str) -> None:
        UsageError.__init__(self, f"the native backend does not run here: {why}; use --backend onnx or litert.")


class BundleError(NcaEdgeError):
    """A model bundle that is damaged, incomplete or does not reproduce its golden cells."""

    exit_code = 3
