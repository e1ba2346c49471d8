"""Every error that Reverie raises on purpose.

ReverieError                 one line: what was got, what was expected, what to do; exit code 2 on the command line
├── ActionError              an action, a key name or an action script that is not valid
├── ImageError               an image that cannot be read or used
├── ShapeError               a tensor or array of another shape than asked for
├── CheckpointError          a model folder or a weight file that cannot be loaded
├── DataError                a dataset or recording that is missing, damaged or of another kind
├── WorldError               a game that is unknown, missing or failed
├── DeviceError              a device or a dtype that this machine does not have
├── HubError                the Hugging Face Hub cannot be reached, or refuses
├── TrainError               a training that cannot start, resume or go on
└── ServeError               the server cannot start (a port in use, for example)
    └── ProtocolError        a message of a client that breaks the protocol
"""


class ReverieError(Exception):
    """Base of all errors raised on purpose."""


class ActionError(ReverieError, ValueError):
    """An action, a key name or an action script that is not valid."""


class ImageError(ReverieError, ValueError):
    """An image that cannot be read or used."""


class ShapeError(ReverieError, ValueError):
    """A tensor or array of another shape than asked for."""


class CheckpointError(ReverieError):
    """A model folder or a weight file that cannot be loaded."""


class DataError(ReverieError):
    """A dataset or recording that is missing, damaged or of another kind."""


class WorldError(ReverieError):
    """A game that is unknown, missing or failed."""


class DeviceError(ReverieError):
    """A device or a dtype that this machine does not have."""


class HubError(ReverieError):
    """The Hugging Face Hub cannot be reached, or refuses."""


class TrainError(ReverieError):
    """A training that cannot start, resume or go on."""


class ServeError(ReverieError):
    """The server cannot start."""


class ProtocolError(ServeError, ValueError):
    """A message of a client that breaks the protocol."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type's name."""
    return (str(error).splitlines() or [type(error).__name__])[0]
