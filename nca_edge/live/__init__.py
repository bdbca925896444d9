"""A count at the microscope while the stage moves: camera, analysis and storage as separate stages.

Stands beside ``runner`` above ``pipeline``. What others may rely on::

    with begin(LiveRequest(source="v4l2:0", out=None, session=None, um_per_px=None, target=100, choice=choice), say) as live:
        live.start()
        for event in live.events():          # frozen LiveEvent; ends after the event of kind "ended"
            ...                              # event.kind, .state, .frame, .reading, .camera, .fps, .table, .text
        outcome = live.finish()              # report and tables written; a runner.RunOutcome

``events()`` may be called by any number of watchers, each in its own thread, before or after ``start``; one that is slow loses
pictures, never slows the count. ``live.latest`` and ``live.latest_frame`` are the last event and the last picture (None before
the first). ``live.pause()``, ``live.resume()``, ``live.undo()`` and ``live.stop()`` return at once and may be called from any
thread; ``live.stop()`` lets what was analysed be stored, then the last event is ``ended``. ``live.session`` is the open
session, ``live.folder`` its folder; with ``begin`` all is closed at the end of the ``with``.
"""

from nca_edge.live.events import FieldState, LiveEvent
from nca_edge.live.options import LiveOptions
from nca_edge.live.run import LiveRun
from nca_edge.live.start import LiveRequest, begin

__all__ = ["FieldState", "LiveEvent", "LiveOptions", "LiveRequest", "LiveRun", "begin"]
