"""A notice that says it is a test, to every receiver of a configuration: whoever sets alarms up wants to see one."""

import time
import tomllib
from pathlib import Path

from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.config.model import load_config
from spheroidd.daemon.config.service_settings import read_alarms
from spheroidd.daemon.monitoring import transports as delivery
from spheroidd.daemon.monitoring.notifications import Notification
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.regular_file import read_regular_text
from spheroidd.protocols.toml_text import parse_toml


def alarms_of(config: Path) -> AlarmsConfig:
    """The table [alarms] of a configuration of either kind; ConfigError where it cannot be read."""
    try:
        whole = "source" in parse_toml(read_regular_text(config))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(config), do="give a TOML file in UTF-8") from error
    return load_config(config).alarms if whole else read_alarms(config)


def send_test(config: Path, data_dir: Path) -> dict[str, str]:
    """Tell each receiver; what it said, by receiver: "" where it accepted. ConfigError where nobody is configured."""
    settings = alarms_of(config)
    receivers: dict[str, delivery.Deliver] = {}
    if settings.webhook is not None:
        receivers["webhook"] = delivery.webhook(settings.webhook, data_dir)
    if settings.email is not None:
        receivers["email"] = delivery.email(settings.email, data_dir)
    if not receivers:
        do = "write [alarms.webhook] or [alarms.email]"
        raise ConfigError("no receiver of alarms is configured", where=str(config), do=do)
    return {name: _told(deliver) for name, deliver in receivers.items()}


def _told(deliver: delivery.Deliver) -> str:
    now_s = time.time()
    number = round(1000 * now_s)
    what, do = "this is a test of the alarms; nothing is wrong", "nothing"
    notice = Notification(f"test-{number}-raised", "raised", 0, "test", "warning", what, "spheroidd", do, now_s, now_s)
    try:
        deliver(notice)
    except delivery.REFUSALS as error:
        return delivery.why(error)
    return ""
