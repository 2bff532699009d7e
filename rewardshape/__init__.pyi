from .errors import InputError as InputError
from .integrations.callback import ProbeCallback as ProbeCallback
from .integrations.recorder import Recorder as Recorder
from .logs import Log as Log, read_logs as read_logs
from .notebook import ShownTrace as ShownTrace, read_trace as read_trace
from .probe.call import run_probe as run_probe
from .report import write_report as write_report
from .theory import (
    Alpha as Alpha,
    Objective as Objective,
    Responses as Responses,
    objective as objective,
    objective_names as objective_names,
    preset as preset,
    preset_names as preset_names,
)
from .trace import Run as Run, Trace as Trace
from .verdict import Verdict as Verdict, Word as Word, judge as judge, judge_all as judge_all

__version__: str
