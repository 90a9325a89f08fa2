"""The schema's enumerations: the values live in the lower rooms, their descriptions for readers of the API here."""

from enum import Enum

import strawberry

from core.download_windows import Weekday
from core.errors import ErrorCode, JobErrorCode
from core.hub import AccessOutcome
from core.job import FileState, JobKind, JobPriority, JobStage, JobState, LogLevel, WaitReason
from core.selection import FileFormat
from core.token import Scope
from core.weight_set import WeightSetState
from db.admission import InstallOutcome
from db.weight_sets import WeightSetOrderField
from resolvers.events import ResyncReason
from resolvers.health import ComponentName, ComponentState
from resolvers.plans import FileAction, RiskCode


def describe(values: type[Enum], description: str, **meanings: str) -> None:
    """Make a GraphQL enumeration of existing values; every one of them must be given its meaning."""
    definition = strawberry.enum(values, description=description).__strawberry_definition__  # type: ignore[attr-defined]
    if {value.name for value in definition.values} != meanings.keys():
        raise TypeError(f"{definition.name} needs a meaning for each of its values and no other")
    for value in definition.values:
        value.description = meanings[value.name]


describe(
    ErrorCode,
    "What kind of refusal it is.",
    INVALID="The input is not well-formed; the message says what would be.",
    NOT_FOUND="There is no such thing.",
    ALREADY_EXISTS="Something else is there under that name.",
    CONFLICT="The present state forbids it.",
    IN_USE="Something needs it.",
    POLICY_DENIED="A rule of this installation forbids it.",
    HUB_ACCESS_DENIED="The Hub does not let us have it.",
    HUB_UNAVAILABLE="The Hub does not answer.",
    INSUFFICIENT_STORAGE="There is not enough room on the volume.",
    PLAN_CHANGED="What would be done has changed since the plan was shown.",
    IDEMPOTENCY_MISMATCH="The idempotency key came with another input before.",
)
describe(
    JobErrorCode,
    "Why a job failed.",
    INVALID="What was asked for cannot be done as it is.",
    NOT_FOUND="The repository or revision is not there.",
    HUB_ACCESS_DENIED="The Hub does not let us have it.",
    HUB_UNAVAILABLE="The Hub did not answer often enough.",
    UPSTREAM_CHANGED="The content changed while it was being fetched.",
    CORRUPT="The bytes that came do not have the digest that was announced.",
    INSUFFICIENT_STORAGE="There is not enough room on the volume.",
    VOLUME_ERROR="The volume refused to be written.",
    WORKER_CRASHED="Its worker died time after time.",
    INTERNAL="An error of this server; its log has the details.",
)
describe(
    JobKind,
    "What a job does.",
    INSTALL_WEIGHTS="Downloads a repository's files and publishes them as a weight set.",
    DELETE_WEIGHTS="Removes a weight set from the volume.",
)
describe(
    JobState,
    "Where a job is in its life.",
    QUEUED="Waits; `waitingFor` says for what.",
    RUNNING="A worker is at it.",
    PAUSED="Held until it is resumed.",
    SUCCEEDED="Done; final.",
    FAILED="Ended in an error; can be retried.",
    CANCELLED="Ended by somebody; can be retried from zero.",
)
describe(
    JobStage,
    "What a running job is doing just now.",
    RESOLVING="Asks the Hub for the commit and its files.",
    DOWNLOADING="Fetches and verifies files.",
    PUBLISHING="Makes the set visible.",
    DELETING="Removes files.",
)
describe(
    JobPriority,
    "Who goes first among the jobs that wait.",
    HIGH="Before all others.",
    NORMAL="In the order of creation.",
    LOW="After all others.",
)
describe(
    WaitReason,
    "Why a queued job is not moving.",
    SPACE="There is not enough room on the volume yet.",
    SLOT="As many jobs of its kind run as may.",
    TARGET="Another job works on the same weight set.",
    WINDOW="No download window is open.",
    RETRY="It failed and is tried again at `nextAttemptAt`.",
)
describe(
    FileState,
    "Where one file of an install is.",
    WAITING="Not begun.",
    DOWNLOADING="Bytes are coming.",
    VERIFYING="All bytes are here; the digest is being compared.",
    DONE="Whole and verified.",
    REUSED="Taken from what was on the volume.",
    FAILED="Could not be had.",
)
describe(
    LogLevel,
    "How loud a line is.",
    DEBUG="For developers.",
    INFO="What happens.",
    WARNING="Worth a look.",
    ERROR="Went wrong.",
)
describe(
    FileFormat,
    "What a file is for, told by its name.",
    SAFETENSORS="Weights that can be loaded without running code.",
    GGUF="Weights in llama.cpp's format.",
    PICKLE="Weights whose loading can run code.",
    ONNX="A model graph in ONNX.",
    CONFIG="Configuration.",
    TOKENIZER="Part of a tokenizer.",
    TEXT="For people: readme, licence, template.",
    OTHER="Anything else.",
)
describe(
    Scope,
    "What a token may do; each includes the ones before it.",
    READ="Look.",
    OPERATE="Install, delete, cancel, retry.",
    ADMIN="Everything, tokens and settings included.",
)
describe(
    WeightSetState,
    "What is known of a set.",
    INSTALLING="A job is bringing it; nothing of it is visible yet.",
    READY="Whole, verified and published.",
    DELETING="Out of use; its files are being removed.",
)
describe(
    InstallOutcome,
    "What came of asking for an install.",
    STARTED="A new job was made.",
    JOINED="A job of just that is under way (or stands for the idempotency key).",
    ALREADY_INSTALLED="It is there already; nothing was started.",
)
describe(
    WeightSetOrderField,
    "What sets can be sorted by.",
    NAME="Their directory.",
    SIZE="The sum of their files.",
    INSTALLED_AT="When they were published; sets that are not yet come first.",
)
describe(
    AccessOutcome,
    "Whether the Hub would give us a repository.",
    OK="It would.",
    TOKEN_MISSING="It is gated or private and there is no token.",
    TOKEN_INVALID="The token is not good (any more), or the repository is not there.",
    TOKEN_LACKS_REPOSITORY="The token does not reach this repository.",
    TERMS_NOT_ACCEPTED="Its terms have not been accepted for this token's account.",
    NOT_FOUND="There is no such repository or revision, or it is private.",
    HUB_UNREACHABLE="The Hub does not answer.",
)
describe(
    FileAction,
    "What an install would do with a file.",
    DOWNLOAD="Fetch it.",
    REUSE="Keep what is on the volume.",
    SKIP="Leave it out.",
)
describe(
    RiskCode,
    "What is worth knowing before a repository is trusted.",
    PICKLE="Its weights are pickle files: loading them can run code.",
    GATED="Terms had to be accepted for it.",
)
describe(
    ComponentName,
    "A part that this server needs.",
    DATABASE="Holds the truth.",
    REDIS="Carries messages and changes.",
    WORKERS="Do the work.",
)
describe(
    ComponentState,
    "How a part is.",
    OK="Answers.",
    DEGRADED="Answers, not as it should.",
    DOWN="Does not answer.",
)
describe(
    ResyncReason,
    "Why a feed cannot go on from a cursor.",
    CURSOR_EXPIRED="What lies behind it has been removed after its time.",
    EPOCH_CHANGED="It is of a journal that is no more: the database was replaced or restored.",
)
describe(
    Weekday,
    "A day of the week.",
    MONDAY="The first day of the week.",
    TUESDAY="The second.",
    WEDNESDAY="The third.",
    THURSDAY="The fourth.",
    FRIDAY="The fifth.",
    SATURDAY="The sixth.",
    SUNDAY="The seventh.",
)


@strawberry.enum(description="Which way a list is sorted.")
class OrderDirection(Enum):
    """Which way a list is sorted."""

    ASC = strawberry.enum_value("ASC", description="Smallest, oldest or first in the alphabet first.")
    DESC = strawberry.enum_value("DESC", description="Largest, newest or last in the alphabet first.")


@strawberry.enum(description="The database that holds the truth.")
class DatabaseKind(Enum):
    """The database that holds the truth."""

    SQLITE = strawberry.enum_value("SQLITE", description="One file on this machine.")
    POSTGRESQL = strawberry.enum_value("POSTGRESQL", description="A server that several processes share.")


__all__ = [
    "AccessOutcome",
    "ComponentName",
    "ComponentState",
    "DatabaseKind",
    "ErrorCode",
    "FileAction",
    "FileFormat",
    "FileState",
    "InstallOutcome",
    "JobErrorCode",
    "JobKind",
    "JobPriority",
    "JobStage",
    "JobState",
    "LogLevel",
    "OrderDirection",
    "ResyncReason",
    "RiskCode",
    "Scope",
    "WaitReason",
    "Weekday",
    "WeightSetOrderField",
    "WeightSetState",
]
