"""The settings that can be changed while the server runs."""

from __future__ import annotations

import strawberry

from core.download_windows import DownloadWindow as WindowValue
from core.runtime_settings import RuntimeSettings, SettingName
from graph.enums import Weekday
from graph.errors import UserError
from graph.scalars import Bytes


@strawberry.type(description="A part of the day in which downloads may run, by the clock on the wall of a time zone.")
class DownloadWindow:
    """A part of the day in which downloads may run."""

    from_: str = strawberry.field(name="from", description="When it begins, HH:MM.")
    to: str = strawberry.field(
        description="When it ends, HH:MM: on the next day where that is at or before its beginning."
    )
    weekdays: list[Weekday] = strawberry.field(
        description="The days on which it begins; at most 7; empty means every day."
    )
    time_zone: str = strawberry.field(description="The time zone's IANA name, e.g. Europe/Berlin.")

    @classmethod
    def from_value(cls, value: WindowValue) -> DownloadWindow:
        """Show a window."""
        return cls(
            from_=f"{value.begins:%H:%M}",
            to=f"{value.ends:%H:%M}",
            weekdays=list(value.weekdays),
            time_zone=value.time_zone,
        )


@strawberry.type(description="How long what has ended is kept; looked at once an hour.")
class RetentionSettings:
    """How long what has ended is kept."""

    job_days: int = strawberry.field(description="Jobs, in days since their end.")
    log_days: int = strawberry.field(description="Logs of jobs, in days since the job's end.")
    event_days: int = strawberry.field(description="Events of the journal, in days.")


@strawberry.type(description="What holds now: a default, or what an administrator has changed. Never a secret.")
class Settings:
    """What holds now."""

    id: strawberry.ID = strawberry.field(description="Always `Settings:server`: there is one.")
    concurrent_installs: int = strawberry.field(description="How many installs run at once.")
    ranges_per_install: int = strawberry.field(description="How many connections an install may use at once.")
    download_bytes_per_second: Bytes | None = strawberry.field(
        description="What the installs of one worker process may fetch together, in bytes a second; null: unlimited."
    )
    download_windows: list[DownloadWindow] = strawberry.field(
        description="When installs may run; at most 14; empty means always."
    )
    volume_alert_percent: int = strawberry.field(description="How full the volume is, in percent, when it needs care.")
    retention: RetentionSettings = strawberry.field(description="How long what has ended is kept.")
    locked: bool = strawberry.field(description="Whether nothing can be changed here: the environment says so.")

    @classmethod
    def from_value(cls, value: RuntimeSettings, *, locked: bool) -> Settings:
        """Show what holds."""
        limit = value.download_bytes_per_second
        return cls(
            id=strawberry.ID("Settings:server"),
            concurrent_installs=value.concurrent_installs,
            ranges_per_install=value.ranges_per_install,
            download_bytes_per_second=Bytes(limit) if limit is not None else None,
            download_windows=[DownloadWindow.from_value(window) for window in value.download_windows],
            volume_alert_percent=value.volume_alert_percent,
            retention=RetentionSettings(job_days=value.job_days, log_days=value.log_days, event_days=value.event_days),
            locked=locked,
        )


@strawberry.input(description="A part of the day in which downloads may run, by the clock on the wall of a time zone.")
class DownloadWindowInput:
    """A part of the day in which downloads may run."""

    from_: str = strawberry.field(name="from", description="When it begins, HH:MM.")
    to: str = strawberry.field(
        description="When it ends, HH:MM: on the next day where that is at or before its beginning; the same: 24 hours."
    )
    weekdays: list[Weekday] = strawberry.field(
        default_factory=list, description="The days on which it begins; at most 7; empty means every day."
    )
    time_zone: str = strawberry.field(default="UTC", description="The time zone's IANA name, e.g. Europe/Berlin.")

    def to_json(self) -> dict[str, object]:
        """Write it as a setting's value."""
        days = [day.value for day in self.weekdays]
        return {"from": self.from_, "to": self.to, "weekdays": days, "timeZone": self.time_zone}


@strawberry.input(description="How long what has ended is kept. Absent: unchanged. Null: back to the default.")
class RetentionSettingsInput:
    """How long what has ended is kept."""

    job_days: int | None = strawberry.field(default=strawberry.UNSET, description="1 to 3650; 30 by default.")
    log_days: int | None = strawberry.field(default=strawberry.UNSET, description="1 to 3650; 14 by default.")
    event_days: int | None = strawberry.field(default=strawberry.UNSET, description="1 to 3650; 365 by default.")


@strawberry.input(description="What to change. Absent: unchanged. Null: back to the default.")
class UpdateSettingsInput:
    """What to change."""

    concurrent_installs: int | None = strawberry.field(
        default=strawberry.UNSET, description="How many installs run at once, 1 to 32; 3 by default."
    )
    ranges_per_install: int | None = strawberry.field(
        default=strawberry.UNSET, description="How many connections an install may use at once, 1 to 64; 8 by default."
    )
    download_bytes_per_second: Bytes | None = strawberry.field(
        default=strawberry.UNSET,
        description="What the installs of one worker process may fetch together, in bytes a second, at least 65536;"
        " unlimited by default.",
    )
    download_windows: list[DownloadWindowInput] | None = strawberry.field(
        default=strawberry.UNSET, description="When installs may run; at most 14; none, and so always, by default."
    )
    volume_alert_percent: int | None = strawberry.field(
        default=strawberry.UNSET, description="How full the volume is when it needs care, 1 to 100; 85 by default."
    )
    retention: RetentionSettingsInput | None = strawberry.field(
        default=strawberry.UNSET, description="How long what has ended is kept."
    )

    def to_changes(self) -> dict[SettingName, object]:
        """Gather what is to be changed."""
        windows = self.download_windows
        given: dict[SettingName, object] = {
            SettingName.CONCURRENT_INSTALLS: self.concurrent_installs,
            SettingName.RANGES_PER_INSTALL: self.ranges_per_install,
            SettingName.DOWNLOAD_BYTES_PER_SECOND: self.download_bytes_per_second,
            SettingName.DOWNLOAD_WINDOWS: [one.to_json() for one in windows] if windows else windows,
            SettingName.VOLUME_ALERT_PERCENT: self.volume_alert_percent,
        }
        kept = self.retention
        if kept is not strawberry.UNSET:
            given[SettingName.JOB_DAYS] = kept.job_days if kept is not None else None
            given[SettingName.LOG_DAYS] = kept.log_days if kept is not None else None
            given[SettingName.EVENT_DAYS] = kept.event_days if kept is not None else None
        return {name: value for name, value in given.items() if value is not strawberry.UNSET}


@strawberry.type(description="What came of updateSettings.")
class UpdateSettingsPayload:
    """What came of updateSettings."""

    settings: Settings | None = strawberry.field(default=None, description="What holds now; null when refused.")
    user_errors: list[UserError] = strawberry.field(
        default_factory=list, description="Each bad value; nothing was changed then; at most 10."
    )
